"""How long a conversion takes beside a plain copy of the weights, and how much private memory.

    python tools/bench/convert.py [PROTOTXT] [--rounds 5] [-- OPTIONS OF convert-fcn]
    python tools/bench/convert.py -- --fp16 --no-verify

Weights are made by tools/recipe_weights.py. Copy and conversion take turns; medians are printed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))


def convert(prototxt: Path, model: Path, out: Path, options: list[str]) -> tuple[float, float]:
    """(seconds, peak private memory in MB) of one conversion in a process of its own."""
    command = [
        sys.executable,
        "-m",
        "caffe_fcn",
        "convert",
        str(prototxt),
        str(model),
        str(out),
        "--quiet",
        *options,
    ]
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT)
    peak = 0.0
    while process.poll() is None:
        peak = max(peak, private(process.pid))
        time.sleep(0.005)
    if process.returncode:
        sys.exit(process.returncode)
    return time.perf_counter() - start, peak


def private(pid: int) -> float:
    """Anonymous memory of a process in MB: mapped file pages are not in it."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon"):
                return int(line.split()[1]) / 1000
    except OSError:
        pass
    return 0.0


def copy(model: Path, out: Path) -> float:
    start = time.perf_counter()
    subprocess.run(["cp", str(model), str(out)], check=True)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "prototxt", nargs="?", type=Path, default=ROOT / "prototxts/voc-fcn8s/deploy.prototxt"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", help="where the files lie; a temporary one by default")
    words = sys.argv[1:]
    split = words.index("--") if "--" in words else len(words)
    args, options = parser.parse_args(words[:split]), words[split + 1 :]
    folder = Path(args.folder or tempfile.mkdtemp(prefix="caffe-fcn-bench."))
    model = folder / "recipe.caffemodel"
    if not model.exists():
        from recipe_weights import make

        make(args.prototxt, model)
    print(f"{model.stat().st_size / 1e6:.0f} MB of weights, {os.cpu_count()} cores")
    rows = []
    for _ in range(args.rounds):
        rows.append(
            (copy(model, folder / "copy"), *convert(args.prototxt, model, folder / "out.onnx", options))
        )
        (folder / "copy").unlink()
        (folder / "out.onnx").unlink()
    cp, seconds, memory = (statistics.median(column) for column in zip(*rows, strict=True))
    print(
        f"cp {cp:.2f} s   convert {seconds:.2f} s   1.5 x cp + 1 s = {1.5 * cp + 1:.2f} s"
        f"   private {memory:.0f} MB"
    )
    if not args.folder:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
