"""How well label images agree: the accuracies and intersections over union of the FCN papers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from caffe_fcn.errors import CaffeError
from caffe_fcn.segment import opened

IGNORE = 255  # PASCAL VOC's label of pixels that do not count
CHUNK = 1 << 20  # pixels counted at a time
MOST = 4096  # classes; the matrix grows with their square


class Confusion:
    """How often each class was taken for each, summed over pairs of label images.

    >>> import numpy as np
    >>> c = Confusion(2)
    >>> c.add(np.array([[0, 0, 1, 255]]), np.array([[0, 1, 1, 1]]))
    >>> c.matrix.tolist(), c.pixel_accuracy
    ([[1, 1], [0, 1]], 0.6666666666666666)

    Args:
        classes: how many, or their names.
        ignore: the label of pixels that do not count. Nor do others whose label is no class; how many these
            are is in `strange`, for they hint at a wrong number of classes.

    `matrix[t, p]` is the number of pixels of class t (int64) that were predicted as p. The measures are those
    of the FCN repository's score.py: means are over the classes that occur.

    Raises CaffeError for no class, and for more than MOST.
    """

    def __init__(self, classes: int | Sequence[str], ignore: int = IGNORE) -> None:
        many = classes if isinstance(classes, int) else len(classes)
        if not 0 < many <= MOST:
            raise CaffeError(f"{many} classes: from 1 to {MOST:,} can be compared")
        names = [f"class {i}" for i in range(classes)] if isinstance(classes, int) else list(classes)
        self.names, self.ignore = names, ignore
        self.matrix = np.zeros((len(names), len(names)), np.int64)
        self.ignored = self.strange = self.pairs = 0

    def add(self, label: np.ndarray, prediction: np.ndarray) -> None:
        """Count a pair of label images of one shape.

        Raises CaffeError for shapes that differ, for arrays that hold no integers, and for a prediction that
        is no class where the label is one; then nothing is counted.
        """
        _check(label, prediction)
        n = len(self.names)
        side, true, said = 256, label.ravel(), prediction.ravel()
        if label.dtype == prediction.dtype == np.uint8 and n <= side and 0 <= self.ignore < side:
            rows = (
                np.arange(n) - self.ignore
            ) % side  # so the table ends at the last class: few bins are fast
            true = true - np.uint8(self.ignore)
        else:
            side, rows, true, said = n + 2, np.arange(n) + 1, self._coded(true), self._coded(said) - 1
            true[label.ravel() == self.ignore] = 0
        table = _table(true, said, side, n + 1)
        ignored, table[0] = int(table[0].sum()), 0
        known = np.zeros((n, side), np.int64)
        found = rows < len(table)
        known[found] = table[rows[found]]
        if known[:, n:].any():
            wrong = self._known(label) & (label != self.ignore) & ~self._known(prediction)
            raise CaffeError(
                f"the prediction holds label {prediction[wrong][0]}, and there are {n} classes (0 to {n - 1})"
            )
        self.matrix += known[:, :n]
        self.ignored, self.strange = self.ignored + ignored, self.strange + int(table.sum() - known.sum())
        self.pairs += 1

    def _known(self, labels: np.ndarray) -> np.ndarray:
        """Where labels are classes."""
        return (labels >= 0) & (labels < len(self.names))

    def _coded(self, labels: np.ndarray) -> np.ndarray:
        """Labels of any type as 1 to n for classes, n + 1 for what is none."""
        return np.where(self._known(labels), labels.astype(np.intp) + 1, len(self.names) + 1)

    def occurring(self) -> Confusion:
        """Itself without the classes above the last that occurs: for when nobody says how many there are."""
        found = np.flatnonzero(self.matrix.sum(0) + self.matrix.sum(1))
        n = int(found[-1]) + 1 if found.size else 1
        cut = Confusion(self.names[:n], self.ignore)
        cut.matrix = self.matrix[:n, :n].copy()
        cut.ignored, cut.strange, cut.pairs = self.ignored, self.strange, self.pairs
        return cut

    def __iadd__(self, other: Confusion) -> Confusion:
        """Add the counts of another part of the same data."""
        self.matrix += other.matrix
        self.ignored, self.strange = self.ignored + other.ignored, self.strange + other.strange
        self.pairs += other.pairs
        return self

    @property
    def accuracy(self) -> np.ndarray:
        """Of each class: the share of its pixels that were predicted as such; nan for one without pixels."""
        return _ratio(self.matrix.diagonal(), self.matrix.sum(1))

    @property
    def iu(self) -> np.ndarray:
        """Of each class: pixels that are both over pixels that are either; nan for one that never occurs."""
        hits = self.matrix.diagonal()
        return _ratio(hits, self.matrix.sum(1) + self.matrix.sum(0) - hits)

    @property
    def pixel_accuracy(self) -> float:
        """The share of the pixels that were predicted as what they are."""
        return float(_ratio(self.matrix.trace(), self.matrix.sum()))

    @property
    def mean_accuracy(self) -> float:
        return _mean(self.accuracy)

    @property
    def mean_iu(self) -> float:
        return _mean(self.iu)

    @property
    def frequency_weighted_iu(self) -> float:
        """The IUs' mean, each class by its share of the pixels."""
        share = _ratio(self.matrix.sum(1), self.matrix.sum())
        return float((share * self.iu)[share > 0].sum()) if self.matrix.any() else float("nan")

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON takes it: None where there is nothing to divide by."""
        means = {k: _plain(getattr(self, k)) for k in MEASURES}
        rows = zip(self.names, self.matrix.sum(1), self.matrix.sum(0), self.accuracy, self.iu, strict=True)
        return {
            "pairs": self.pairs,
            "pixels": int(self.matrix.sum()),
            "ignored": self.ignored,
            "strange": self.strange,
            **means,
            "classes": [
                {
                    "name": name,
                    "pixels": int(true),
                    "predicted": int(said),
                    "accuracy": _plain(a),
                    "iu": _plain(i),
                }
                for name, true, said, a, i in rows
            ],
            "matrix": self.matrix.tolist(),
        }

    def __str__(self) -> str:
        width = max(map(len, [*self.names, "class"]))
        lines = [f"{'class':{width}}  {'pixels':>12}  accuracy      IU"]
        rows = zip(self.names, self.matrix.sum(1), self.accuracy, self.iu, strict=True)
        lines += [
            f"{name:{width}}  {true:12,}  {_percent(a):>8}  {_percent(i):>6}" for name, true, a, i in rows
        ]
        lines += [
            f"{k.replace('_', ' ').replace('iu', 'IU'):24} {_percent(getattr(self, k)):>7}" for k in MEASURES
        ]
        return "\n".join(lines)


MEASURES = ("pixel_accuracy", "mean_accuracy", "mean_iu", "frequency_weighted_iu")


def read_labels(path: str | os.PathLike[str]) -> np.ndarray:
    """A label image as (H, W) integers: an indexed or grey image whose pixels are the labels.

    Raises CaffeError for what is none.
    """
    with opened(path) as file:
        if file.mode not in ("P", "L", "1", "I", "I;16"):
            raise CaffeError(
                f"{path}: is a picture of mode {file.mode}; the pixels of a label image are the labels",
                "an indexed PNG, as `caffe-fcn segment` writes and VOC's SegmentationClass holds",
            )
        return np.asarray(file)


def _check(label: np.ndarray, prediction: np.ndarray) -> None:
    for name, array in (("label", label), ("prediction", prediction)):
        if array.dtype.kind not in "iub":
            raise CaffeError(f"the {name} holds {array.dtype}; labels are integers")
    if label.shape != prediction.shape:
        sizes = ("x".join(map(str, a.shape)) for a in (label, prediction))
        raise CaffeError("the label is {} pixels, the prediction {}".format(*sizes))


def _table(true: np.ndarray, said: np.ndarray, side: int, rows: int) -> np.ndarray:
    """How often each pair of values below `side` occurs: (`rows` or more, side) int64."""
    found = np.zeros(rows * side, np.int64)
    for i in range(0, true.size, CHUNK):
        part = _counted(true[i : i + CHUNK], said[i : i + CHUNK], side)
        if len(part) > len(found):
            found.resize(-(-len(part) // side) * side, refcheck=False)
        found[: len(part)] += part
    return found.reshape(-1, side)


def _counted(true: np.ndarray, said: np.ndarray, side: int) -> np.ndarray:
    """How often each true * side + said occurs, up to the largest.

    Label images consist of patches: where neighbours are mostly equal, stretches are counted, not pixels.
    """
    index: Any = true.astype(np.uint16 if side == 256 else np.intp)
    index *= side
    index += said
    changes = index[1:] != index[:-1]
    if 8 * np.count_nonzero(changes) > index.size:
        return np.bincount(index)
    ends = np.append(np.flatnonzero(changes), index.size - 1)
    return np.bincount(index[ends], np.diff(ends, prepend=-1)).astype(np.int64)


def _ratio(a: Any, b: Any) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.true_divide(a, b)


def _mean(values: np.ndarray) -> float:
    """Over those that are numbers; nan if none is."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _percent(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.2%}"
