"""List what a weights file holds: layers, types, shapes, and with --stats what the values are like."""

from __future__ import annotations

import argparse
import json
from typing import Any

import numpy as np

from caffe_fcn.formats.weights import load
from caffe_fcn.terminal import printable
from caffe_fcn.units import bytes_text, count_text


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("weights", metavar="WEIGHTS", help=".caffemodel or .caffemodel.h5")
    parser.add_argument(
        "--stats", action="store_true", help="min, max, mean, standard deviation, share of zeros"
    )
    parser.add_argument("--json", action="store_true", help="print as JSON")


def run(args: argparse.Namespace) -> None:
    rows: list[dict[str, Any]] = [
        {"layer": layer.name, "type": layer.type, "param": i, "shape": list(blob.data.shape),
         "dtype": str(blob.data.dtype), **(_stats(blob.data) if args.stats else {})}
        for layer in load(args.weights) for i, blob in enumerate(layer.blobs) if blob is not None
    ]  # fmt: skip
    if args.json:
        print(json.dumps(rows, indent=2))
        return
    for row in rows:
        row.update({key: printable(row[key]) for key in ("layer", "type")})
    width = max((len(row["layer"]) for row in rows), default=0)
    for row in rows:
        shape = " x ".join(map(str, row["shape"])) or "scalar"
        stats = "  ".join(f"{k} {row[k]:.4g}" for k in ("min", "max", "mean", "std", "zeros") if k in row)
        print(f"{row['layer']:{width}}  {row['type']:16} {row['param']}  {shape:24} {stats}".rstrip())
    count = sum(int(np.prod(row["shape"])) for row in rows)
    print(f"{len(rows)} parameters, {count_text(count)} values, {bytes_text(4 * count)} as float32")


def _stats(a: np.ndarray) -> dict[str, float]:
    if not a.size:
        return {}
    return {
        "min": float(a.min()), "max": float(a.max()), "mean": float(a.mean(dtype=np.float64)),
        "std": float(a.std(dtype=np.float64)), "zeros": float((a == 0).mean()),
    }  # fmt: skip
