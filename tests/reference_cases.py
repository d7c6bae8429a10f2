"""The cases of real Caffe, and how to compare with them."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

import caffe_fcn
from caffe_fcn import surgery
from tests.conftest import REFERENCE, SHARED


@dataclass(frozen=True)
class Case:
    """One case: NAME.prototxt, NAME.caffemodel (or None), NAME.npz."""

    folder: Path
    name: str

    @property
    def prototxt(self) -> Path:
        return self.folder / f"{self.name}.prototxt"

    @property
    def caffemodel(self) -> Path | None:
        path = self.folder / f"{self.name}.caffemodel"
        return path if path.exists() else None

    @cached_property
    def stored(self) -> dict[str, np.ndarray]:
        with np.load(self.folder / f"{self.name}.npz") as data:
            return dict(data)

    @property
    def outputs(self) -> list[str]:
        return [str(name) for name in self.stored["outputs"]]

    @property
    def order(self) -> list[str]:
        return [str(name) for name in self.stored["order"]]

    def group(self, prefix: str) -> dict[str, np.ndarray]:
        return {k.removeprefix(prefix): v for k, v in self.stored.items() if k.startswith(prefix)}

    def net(self) -> caffe_fcn.Net:
        """The net at the shapes of what was fed, with its weights, and what they lack filled."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            net = caffe_fcn.Net(self.prototxt, caffe_fcn.TEST, weights=self.caffemodel)
        if self.caffemodel is not None:
            surgery.interp(net, [n for n in net.params if n not in net.filled])
        for name, value in self.group("in:").items():
            net.blobs[name].reshape(*value.shape)
        net.reshape()
        return net


def cases(folder: str) -> list[Case]:
    """All cases of one folder of the reference: those of ../shared if it is here, else the project's own."""
    root = SHARED / "reference" / folder
    root = root if root.is_dir() else REFERENCE / folder
    return [Case(root, path.stem) for path in sorted(root.glob("*.npz"))]


def assert_close(value: np.ndarray, reference: np.ndarray, what: str) -> None:
    """float32 in another order of summation; integers exactly, and NaN and infinities in the same places."""
    assert value.shape == reference.shape, f"{what}: {value.shape} instead of {reference.shape}"
    if reference.size == 0:
        return
    finite = np.isfinite(reference)
    assert np.array_equal(np.where(finite, 0, reference), np.where(finite, 0, value), equal_nan=True), what
    value, reference = value[finite].astype(np.float64), reference[finite].astype(np.float64)
    bound = 1e-4 * np.abs(reference).max(initial=0.0) + 1e-6
    worst = np.abs(value - reference).max(initial=0.0)
    assert worst <= bound, f"{what}: off by {worst:.3e}, allowed {bound:.3e}"
