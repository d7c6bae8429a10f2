"""The main job end to end, on the net that comes with the project: convert, verify, segment (`make demo`)."""

from __future__ import annotations

import sys
from pathlib import Path

from caffe_fcn.cli import main

ROOT = Path(__file__).resolve().parent.parent
NET = ROOT / "prototxts" / "shapes-fcn8s"
OUT = ROOT / "out"


def step(*arguments: object) -> None:
    """Run one command as a user would type it; stop at the first that fails."""
    words = [str(a.relative_to(ROOT) if isinstance(a, Path) else a) for a in arguments]
    print("\n$ caffe-fcn " + " ".join(words), flush=True)
    if code := main([str(a) for a in arguments]):
        sys.exit(code)


if __name__ == "__main__":
    OUT.mkdir(exist_ok=True)
    model, samples = OUT / "shapes-fcn8s.onnx", sorted(NET.glob("sample-?.png"))
    step("convert", NET / "deploy.prototxt", NET / "shapes-fcn8s.caffemodel", model)
    step("segment", model, *samples, "-o", OUT)
    print(f"\nDone. The ONNX model and the segmented pictures are in {OUT}/")
