"""How fast the exported graph is beside the plain one, and beside other readers of the same Caffe files.

    python tools/bench/inference.py [PROTOTXT CAFFEMODEL] [--sizes 500x500 ...] [--rounds 7] [--json FILE]

Contenders: `default` and `fixed` (with --input-shape) are what convert-fcn writes, `plain` is --no-pass all;
on CUDA also `half` (--fp16). If they are installed (pip install -e '.[bench]'), OpenCV reads the Caffe files
themselves and OpenVINO runs the plain graph, both in float32. Each is a process of its own; they take turns.

Without files the net is voc-fcn8s with weights by tools/recipe_weights.py.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]
MODULES = {"opencv": "cv2", "openvino": "openvino"}  # what else is compared, if it is there
PAUSE = 0.1  # seconds between passes, in which idle threads stop spinning

LINE = (
    "  {name:10} median {median:7.4f} s  least {least:7.4f} s  {ratio:5.2f}x plain  "
    "peak {peak:5.0f} MB  {same}"
)

Run = Callable[[np.ndarray], np.ndarray]


# --- the contenders, each in a process of its own


def onnxruntime(model: Path, args: argparse.Namespace) -> Run:
    from caffe_fcn.runtime import Session

    session = Session(model, args.device, threads=args.threads)
    (name,) = session.inputs
    return lambda x: next(iter(session.run({name: x}).values()))


def opencv(_: Path, args: argparse.Namespace) -> Run:
    import cv2

    cv2.setNumThreads(args.threads)
    net = cv2.dnn.readNetFromCaffe(args.prototxt, args.caffemodel)

    def run(x: np.ndarray) -> np.ndarray:
        net.setInput(x)
        return net.forward()

    return run


def openvino(model: Path, args: argparse.Namespace) -> Run:
    import openvino

    settings = {
        "INFERENCE_NUM_THREADS": args.threads,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    compiled = openvino.Core().compile_model(str(model), "CPU", settings)
    return lambda x: compiled(x)[0]


def work(args: argparse.Namespace) -> None:
    """Load, then run once for each line on stdin; a line of JSON answers each."""

    def say(**figures: float) -> None:
        sys.stdout.write(json.dumps(figures) + "\n")
        sys.stdout.flush()

    start = time.perf_counter()
    run = {"opencv": opencv, "openvino": openvino}.get(args.worker, onnxruntime)(Path(args.model), args)
    say(load=time.perf_counter() - start)
    x, scores = picture(args.sizes[0]), np.empty(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak of memory starts here
    for _ in sys.stdin:
        start = time.perf_counter()
        scores = run(x)
        say(seconds=time.perf_counter() - start, peak=status("VmHWM"))
    np.save(args.scores, scores)


def picture(size: str) -> np.ndarray:
    h, w = map(int, size.split("x"))
    return np.random.default_rng(0).normal(0, 60, (1, 3, h, w)).astype(np.float32)


def status(field: str) -> float:
    """A figure of this process in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1000 for line in lines if line.startswith(field))


class Contender:
    """A worker, seen from outside."""

    def __init__(self, name: str, model: Path, size: str, args: argparse.Namespace, folder: Path) -> None:
        self.name, self.scores, self.times, self.peak = name, folder / f"{name}.npy", [], 0.0
        words = [sys.executable, __file__, args.prototxt, args.caffemodel, "--worker", name, "--model", model]
        words += [
            "--sizes",
            size,
            "--threads",
            args.threads,
            "--device",
            args.device,
            "--scores",
            self.scores,
        ]
        command = [str(word) for word in words]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.load = self._answer()["load"]

    def _answer(self) -> dict[str, float]:
        line = self.process.stdout.readline() if self.process.stdout else ""
        if not line:
            sys.exit(f"{self.name} failed")
        return json.loads(line)

    def turn(self) -> float:
        assert self.process.stdin  # noqa: S101
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        figures = self._answer()
        self.peak = figures["peak"]
        time.sleep(PAUSE)
        return figures["seconds"]

    def result(self) -> np.ndarray:
        self.process.communicate()
        return np.load(self.scores)


# --- the comparison


def main() -> None:
    args = arguments()
    if args.worker:
        work(args)
        return
    with tempfile.TemporaryDirectory(prefix="caffe-fcn-bench.") as name:
        folder = Path(name)
        if not args.caffemodel:
            from recipe_weights import voc_fcn8s

            args.prototxt, args.caffemodel = voc_fcn8s(folder)
        rows = [row for size in args.sizes for row in compare(size, args, folder)]
    if args.json:
        about = {"machine": machine(), "threads": args.threads, "device": args.device, "rounds": args.rounds}
        Path(args.json).write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("prototxt", nargs="?")
    parser.add_argument("caffemodel", nargs="?")
    parser.add_argument("--sizes", nargs="+", default=["500x500", "334x500", "224x224"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--json", help="write the figures there too")
    for option in ("--worker", "--model", "--scores"):
        parser.add_argument(option, help=argparse.SUPPRESS)
    return parser.parse_args()


def compare(size: str, args: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """One size: all contenders in turn, after a pass each to warm up."""
    models = exported(size, args, folder)
    contenders = [Contender(name, model, size, args, folder) for name, model in models.items()]
    for contender in contenders:
        contender.turn()
    before = os.getloadavg()[0]
    for _ in range(args.rounds):
        for contender in contenders:
            contender.times.append(contender.turn())
    scores = {contender.name: contender.result() for contender in contenders}
    plain = next(statistics.median(c.times) for c in contenders if c.name == "plain")
    print(f"{size}, {args.device}, {args.threads} threads, {machine()}, load {before:.1f}")
    rows = []
    for c in contenders:
        row = {"size": size, "name": c.name, "median": statistics.median(c.times), "least": min(c.times)}
        row |= {"ratio": plain / row["median"], "load": c.load, "peak": c.peak, "load_average": before}
        row |= {"labels": float((scores[c.name].argmax(1) == scores["plain"].argmax(1)).mean())}
        row |= {"equal": bool(np.array_equal(scores[c.name], scores["plain"]))}
        rows.append(row)
        same = "bit for bit" if row["equal"] else f"same labels {100 * row['labels']:.4f} %"
        print(LINE.format(same=same, **row))
    return rows


def exported(size: str, args: argparse.Namespace, folder: Path) -> dict[str, Path]:
    """The files of the contenders, written where they are not there yet."""
    from caffe_fcn.conversion import Options, convert

    def write(path: Path, **options: Any) -> Path:
        if not path.exists():
            done = convert(args.prototxt, args.caffemodel, path, Options(verify=False, **options))
            (args.input,) = done.inputs
        return path

    models = {
        "plain": write(folder / "plain.onnx", skip_passes=["all"]),
        "default": write(folder / "default.onnx"),
    }
    fixed = {args.input: picture(size).shape}
    models["fixed"] = write(folder / f"fixed-{size}.onnx", input_shapes=fixed)
    if args.device == "cuda":
        models["half"] = write(folder / "half.onnx", fp16=True)
        models["fixed-half"] = write(folder / f"fixed-half-{size}.onnx", fp16=True, input_shapes=fixed)
        return models
    return models | {k: models["plain"] for k, module in MODULES.items() if importlib.util.find_spec(module)}


def machine() -> str:
    """The processor, as Linux calls it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "processor")
    return f"{name}, {os.cpu_count()} cores"


if __name__ == "__main__":
    main()
