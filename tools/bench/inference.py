"""How fast the exported graph is beside the plain one, in one run, rounds taking turns.

    python tools/bench/inference.py PROTOTXT CAFFEMODEL [--sizes 500x500 334x500 224x224] [--rounds 5]

The plain graph is `--no-pass all`. Medians, their ratio, and whether the scores are equal bit for bit.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from caffe_fcn.conversion import convert
from caffe_fcn.runtime import Session


def timed(session: Session, feeds: dict[str, np.ndarray]) -> tuple[float, dict[str, np.ndarray]]:
    start = time.perf_counter()
    result = session.run(feeds)
    return time.perf_counter() - start, result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("prototxt")
    parser.add_argument("caffemodel")
    parser.add_argument("--sizes", nargs="+", default=["500x500", "334x500", "224x224"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sessions = {}
        for name, skip in (("default", []), ("plain", ["all"])):
            path = Path(folder) / f"{name}.onnx"
            convert(args.prototxt, args.caffemodel, path, verify=False, skip_passes=skip)
            sessions[name] = Session(path, args.device, threads=args.threads)
        print(f"{args.device}, {args.threads} threads, load {os.getloadavg()[0]:.1f} at the start")
        for size in args.sizes:
            compare(sessions, size, args.rounds)


def compare(sessions: dict[str, Session], size: str, rounds: int) -> None:
    """One size: both graphs in turn, after a pass each to warm up."""
    h, w = map(int, size.split("x"))
    (name,) = sessions["plain"].inputs
    feeds = {name: np.random.default_rng(0).normal(0, 60, (1, 3, h, w)).astype(np.float32)}
    results = {k: session.run(feeds) for k, session in sessions.items()}
    times: dict[str, list[float]] = {k: [] for k in sessions}
    for _ in range(rounds):
        for key, session in sessions.items():
            times[key].append(timed(session, feeds)[0])
    fast, plain = (statistics.median(times[k]) for k in ("default", "plain"))
    same = all(np.array_equal(a, results["plain"][n]) for n, a in results["default"].items())
    print(f"{size:9} default {fast:6.3f} s   plain {plain:6.3f} s   {plain / fast:5.2f}x   "
          f"{'equal bit for bit' if same else 'NOT EQUAL'}")  # fmt: skip


if __name__ == "__main__":
    main()
