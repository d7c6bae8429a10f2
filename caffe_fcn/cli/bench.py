"""Time converted models beside what the device could do at most.

    caffe-fcn bench fcn8s.onnx
    caffe-fcn bench plain.onnx default.onnx --input-shape data:1,3,500,500 --threads 2
    caffe-fcn bench fcn8s.onnx --device cuda --batch 8 --tf32

Models take turns, and every turn times a plain matrix product as well: its rate is the limit of which the
last column gives the share. A pass takes its inputs from host memory and brings its outputs there.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from caffe_fcn.benchmark import WARMUP, Figures, bench
from caffe_fcn.cli import input_shapes
from caffe_fcn.cli.segment import run_arguments
from caffe_fcn.progress import Progress
from caffe_fcn.units import count_text


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("models", nargs="+", metavar="MODEL.onnx")
    parser.add_argument(
        "--input-shape", action="append", metavar="BLOB:N,C,H,W",
        help="an input's shape (repeatable); what it and the file leave open is one image of 500x500",
    )  # fmt: skip
    parser.add_argument("--rounds", type=int, default=20, metavar="N",
                        help="passes that are timed (default: %(default)s)")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print as JSON, with every time")
    run_arguments(parser)


def run(args: argparse.Namespace) -> int:
    total = len(args.models) * (args.rounds + WARMUP)
    with Progress("timing", total, "passes", quiet=args.quiet) as step:
        found = bench(
            args.models, args.device, shapes=input_shapes(args.input_shape), batch=args.batch,
            rounds=args.rounds, progress=step, tf32=args.tf32, threads=args.threads,
        )  # fmt: skip
    if args.json:
        print(json.dumps([figures.to_dict() for figures in found], indent=2))
    else:
        print("\n".join(table(found, args.rounds)))
    return 0


def table(found: list[Figures], rounds: int) -> list[str]:
    """The lines of the text form."""
    names = [Path(f.model).name for f in found]
    sizes = [", ".join("x".join(map(str, shape)) for shape in f.shapes.values()) for f in found]
    wide, broad = max(map(len, [*names, "model"])), max(map(len, [*sizes, "input"]))
    lines = [f"{'model':{wide}}  {'input':{broad}}  {'median':>9}  {'p95':>9}  {'images/s':>8}  "
             f"{'MAC/pass':>8}  {'MAC/s':>8}  {'of limit':>8}"]  # fmt: skip
    lines += [
        f"{name:{wide}}  {size:{broad}}  {_milliseconds(f.median):>9}  {_milliseconds(f.p95):>9}  "
        f"{f.images:8.2f}  {count_text(f.cost.macs):>8}  {count_text(f.rate):>8}  {f.rate / f.limit:>8.0%}"
        for name, size, f in zip(names, sizes, found, strict=True)
    ]
    limits = {(f.device, f.cost.dtype): f.limit for f in found}
    lines += [
        f"limit: {count_text(limit)} MAC/s, a plain matrix product of {dtype} on {device}"
        f"{f' ({os.cpu_count()} cores)' if device == 'cpu' else ''}"
        for (device, dtype), limit in limits.items()
    ]
    return [*lines, f"{rounds} passes each, in turns, after {WARMUP} that do not count"]


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.1f} ms" if seconds < 10 else f"{seconds:.1f} s"
