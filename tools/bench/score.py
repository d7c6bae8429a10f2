"""How fast label images are compared, beside numpy's bincount of indices that lie ready.

    python tools/bench/score.py [--size 500x500] [--rounds 200]

`fast_hist` is the usual way: mask, index, bincount. All take turns; medians are printed. Label images consist
of patches; noise is the worst case, in which no two neighbours are equal.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from caffe_fcn.scoring import Confusion  # noqa: E402

CLASSES = 21


def pair(kind: str, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A label and a prediction that is shifted against it."""
    patch = 25 if kind == "patches" else 1
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, CLASSES, (height // patch + 1, width // patch + 1), dtype=np.uint8)
    label = coarse.repeat(patch, 0).repeat(patch, 1)[:height, :width].copy()
    prediction = np.roll(label, 3, axis=1)
    label[:5] = 255
    return label, prediction


def fast_hist(label: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    true, said = label.ravel(), prediction.ravel()
    known = true < CLASSES
    index = CLASSES * true[known].astype(int) + said[known]
    return np.bincount(index, minlength=CLASSES**2).reshape(CLASSES, CLASSES)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="500x500")
    parser.add_argument("--rounds", type=int, default=200)
    args = parser.parse_args()
    for kind in ("patches", "noise"):
        label, prediction = pair(kind, *map(int, args.size.split("x")))
        ready = CLASSES * np.minimum(label, CLASSES - 1).ravel().astype(np.intp) + prediction.ravel()
        confusion = Confusion(CLASSES)
        ways: dict[str, Callable[[], object]] = {
            "bincount alone": lambda ready=ready: np.bincount(ready, minlength=CLASSES**2),  # type: ignore[misc]
            "fast_hist": lambda pair=(label, prediction): fast_hist(*pair),  # type: ignore[misc]
            "Confusion.add": lambda c=confusion, pair=(label, prediction): c.add(*pair),  # type: ignore[misc]
        }
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(args.rounds):
            for name, way in ways.items():
                start = time.perf_counter()
                way()
                times[name].append(time.perf_counter() - start)
        medians = {name: statistics.median(each) for name, each in times.items()}
        print(f"{args.size} {kind}: " + ", ".join(f"{name} {t * 1e3:.3f} ms" for name, t in medians.items()))


if __name__ == "__main__":
    main()
