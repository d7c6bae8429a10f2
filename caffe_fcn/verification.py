"""An exported file against the reference forward pass, blob by blob."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from caffe_fcn.errors import CaffeError, VerifyError
from caffe_fcn.net import Net
from caffe_fcn.runtime import Device, Session

TOLERANCE = 1e-4  # of a blob's largest absolute value: float32 sums in another order
SIDES = (37, 45)  # the image that a file is tried with; neither side divides by 32


@dataclass
class Report:
    """How far each blob is from the reference, as a share of the reference's largest absolute value."""

    device: str
    inputs: dict[str, tuple[int, ...]]
    tolerance: float
    differences: dict[str, float] = field(default_factory=dict)  # blob -> worst relative difference

    @property
    def worst(self) -> tuple[str, float]:
        """The blob that is farthest off, and by how much."""
        if not self.differences:
            return ("", 0.0)
        return max(self.differences.items(), key=lambda item: (np.isnan(item[1]), item[1]))

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "worst_blob": self.worst[0], "worst_difference": self.worst[1]}

    def __str__(self) -> str:
        blob, difference = self.worst
        sizes = ", ".join(f"{n} {'x'.join(map(str, s))}" for n, s in self.inputs.items())
        worst = f"worst {difference:.1e} at '{blob}'"
        return f"{len(self.differences)} blobs compared at {sizes} on {self.device}: {worst}"


def verify(
    net: Net,
    path: str | os.PathLike[str],
    *,
    shapes: Mapping[str, Sequence[int]] | None = None,
    values: Mapping[str, np.ndarray] | None = None,
    expected: Mapping[str, np.ndarray] | None = None,
    device: Device = "cpu",
    tolerance: float = TOLERANCE,
) -> Report:
    """Compare every blob that the ONNX file at `path` holds with the NumPy forward pass of `net`.

    The file itself runs for its outputs, and a probe of it for the blobs inside.

    Args:
        shapes: of the inputs; a small image whose sides do not divide by 32 by default.
        values: of the inputs; normal random ones by default.
        expected: blobs to compare with in place of the forward pass's.

    Raises:
        VerifyError: a blob is off by more than `tolerance`; names it.
    """
    session = Session(path, device)
    _set_shapes(net, session, {**(shapes or {}), **{n: v.shape for n, v in (values or {}).items()}})
    feeds = dict(values or random_inputs(net))
    missing = set(net.inputs) - set(feeds)
    if missing:
        raise CaffeError(f"{path}: no values for the inputs {sorted(missing)}")
    got = session.run({n: feeds[n].astype(np.float32) for n in session.inputs})
    got.update(_inner(path, session, feeds, device))
    if expected is None:
        for name in net.inputs:
            net.blobs[name].data[...] = feeds[name]
        net.forward()
        expected = {name: blob.peek() for name, blob in net.blobs.items()}
    report = Report(session.device, {n: tuple(feeds[n].shape) for n in session.inputs}, tolerance)
    for name, value in got.items():
        if name in expected:
            report.differences[name] = difference(value, expected[name])
    blob, worst = report.worst
    if not report.differences:
        raise VerifyError(f"{path}: none of its blobs is known to compare with: {', '.join(got)}")
    if not worst <= tolerance:
        raise VerifyError(
            f"{path}: blob '{blob}' differs from the reference by {worst:.2e} of its largest value, "
            f"more than {tolerance:.0e}"
        )
    return report


def difference(value: np.ndarray, reference: np.ndarray) -> float:
    """max|value - reference| / max|reference|; inf if shapes differ, nan if only one is finite somewhere."""
    if value.shape != reference.shape:
        return float("inf")
    if value.size == 0 or np.array_equal(value, reference, equal_nan=True):
        return 0.0
    finite = np.isfinite(reference)
    if not np.array_equal(finite, np.isfinite(value)):
        return float("nan")
    scale = float(np.abs(reference[finite]).max(initial=0.0)) + 1e-2  # 1e-6 absolute at the tolerance of 1e-4
    return float(np.abs(value[finite].astype(np.float64) - reference[finite]).max(initial=0.0)) / scale


def random_inputs(net: Net, seed: int = 0) -> dict[str, np.ndarray]:
    """Normal values of the size of mean-free pixels, for each input."""
    rng = np.random.default_rng(seed)
    return {name: rng.normal(0, 60, net.blobs[name].shape).astype(np.float32) for name in net.inputs}


def _set_shapes(net: Net, session: Session, shapes: Mapping[str, Sequence[int]]) -> None:
    """The net's inputs at the shapes asked for, else at a small image where the file leaves H and W open."""
    chosen = {n: tuple(s) for n, s in shapes.items()}
    open_ = {
        n
        for n, i in session.inputs.items()
        if n not in chosen and len(i.shape) == 4 and isinstance(i.shape[2], str)
    }
    for scale in range(8):
        sides = tuple(side + 32 * scale * (1 + scale) // 2 for side in SIDES)
        trial = {n: (1, net.blobs[n].shape[1], *sides) for n in open_}
        try:
            net.infer({**chosen, **trial})
        except CaffeError:
            if not open_:
                raise
            continue
        chosen.update(trial)
        break
    for name, shape in chosen.items():
        net.blobs[name].reshape(*shape)
    net.reshape()


def _inner(
    path: Any, session: Session, feeds: Mapping[str, np.ndarray], device: Device
) -> dict[str, np.ndarray]:
    from caffe_fcn.export.probe import write_probe

    folder = Path(path).resolve().parent
    handle, probe = tempfile.mkstemp(".onnx", ".probe", folder)
    os.close(handle)
    try:
        names = write_probe(path, probe)
        return (
            Session(probe, device).run({n: feeds[n].astype(np.float32) for n in session.inputs}, names)
            if names
            else {}
        )
    finally:
        Path(probe).unlink(missing_ok=True)
