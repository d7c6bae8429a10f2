"""An exported file against the reference forward pass, blob by blob."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from caffe_fcn.errors import CaffeError, VerifyError
from caffe_fcn.net import Net
from caffe_fcn.numeric.softmax import softmax
from caffe_fcn.runtime import Device, Session

TOLERANCE = 1e-4  # of a blob's largest absolute value: float32 sums in another order
HALF_TOLERANCE = 3e-2  # the same for float16, whose every product is off by up to 5e-4
OVERFLOW = "float16 ends at 65504; --keep-fp32 LAYER keeps a layer in float32"
LARGE = 100e6  # bytes; onnxruntime takes many seconds to lay out that many weights for speed
CHANGED = 1e-2  # what rewriting may change, unless rounding alone has grown to a tenth of it
#: Images that a file is tried with, the first that the net takes; sides divide by 32 only if they have to.
SIDES = ((37, 45), (69, 77), (65, 97), (133, 141), (229, 237), (40, 48), (64, 96), (192, 256), (389, 397))
BATCH = 2  # images to try where a file of one size leaves their number open


@dataclass
class Report:
    """How far each blob is from the reference, as a share of the reference's largest absolute value."""

    device: str
    inputs: dict[str, tuple[int, ...]]
    tolerance: float
    differences: dict[str, float] = field(default_factory=dict)  # blob -> worst relative difference
    grown: float = 0.0  # what rounding came to at the end of the net, where that is above the tolerance

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
        if self.grown:
            worst += f" layer by layer (rounding grows to {self.grown:.1e} through the net)"
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

    A probe of the file runs for all blobs: its own graph, on the weights where they lie in it. A file that is
    not large also runs as it is, with onnxruntime's rewriting, for its outputs.

    Args:
        shapes: of the inputs; a small image whose sides do not divide by 32 by default.
        values: of the inputs; normal random ones by default.
        expected: blobs to compare with in place of the forward pass's.

    Raises:
        VerifyError: a blob is off by more than `tolerance`; names it.
    """
    with _probe(path, device) as (session, blobs):
        _check_inputs(net, session)
        _set_shapes(net, session, {**(shapes or {}), **{n: v.shape for n, v in (values or {}).items()}})
        net.check_memory()
        feeds, fed = _feeds(net, session, values)
        probed = session.run(feeds, blobs)
    whole = Session(path, device).run(feeds) if Path(path).stat().st_size < LARGE else {}
    got = {**probed, **whole}
    if expected is None:
        _fill(net, fed)
        net.forward()
        reference = {name: blob.peek() for name, blob in net.blobs.items()}
    else:
        reference = dict(expected)
    reference.update(_derived(got))
    reference.update(_changed_inputs(net, got, reference))
    report = Report(session.device, {n: tuple(a.shape) for n, a in feeds.items()}, tolerance)
    report.differences = {n: difference(v, reference[n]) for n, v in got.items() if n in reference}
    if expected is None and tolerance < report.worst[1] < np.inf:
        grown = max((difference(v, reference[n]) for n, v in probed.items() if n in reference), default=0.0)
        _fill(net, fed)  # a layer in place on an input has written there
        report.grown, report.differences = min(report.worst[1], 1.0), _layer_by_layer(net, probed)
        _check_whole(net, path, probed, whole, max(CHANGED, 10 * grown))
    blob, worst = report.worst
    if not report.differences:
        raise VerifyError(f"{path}: none of its blobs is known to compare with: {', '.join(got)}")
    if not worst <= tolerance:
        raise VerifyError(
            f"{path}: blob '{blob}' differs from the reference by {worst:.2e} of its largest value, "
            f"more than {tolerance:.0e}",
            OVERFLOW if np.isnan(worst) and tolerance == HALF_TOLERANCE else "",
        )
    return report


def _fill(net: Net, fed: Mapping[str, np.ndarray]) -> None:
    """The net's inputs."""
    for name in net.inputs:
        net.blobs[name].data[...] = fed[name]


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


def _check_inputs(net: Net, session: Session) -> None:
    """CaffeError if the file does not take what the net takes: it may be of another net, or not ours."""
    if _takes_pixels(session):
        fits = list(session.inputs) == ["image"] and [len(net.blobs[n].shape) for n in net.inputs] == [4]
        fits = fits and len(session.inputs["image"].shape) == 4 and net.blobs[net.inputs[0]].shape[1] == 3
    else:
        fits = set(session.inputs) <= set(net.inputs)
    if not fits:
        told = f"takes {', '.join(session.inputs) or 'nothing'}, the net {', '.join(net.inputs) or 'nothing'}"
        raise CaffeError(f"{session.path}: {told}", "is it of another net?")


def _feeds(
    net: Net, session: Session, values: Mapping[str, np.ndarray] | None
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """What the file is fed, and what that is for the net: pixels, where the file does the preprocessing."""
    fed = {n: a.astype(np.float32) for n, a in (values or random_inputs(net)).items()}
    if missing := set(net.inputs) - set(fed):
        raise CaffeError(f"{session.path}: no values for the inputs {sorted(missing)}")
    if not _takes_pixels(session):
        return {n: fed[n] for n in session.inputs}, fed
    (name,) = net.inputs
    n, c, h, w = fed[name].shape
    image = np.random.default_rng(0).integers(0, 256, (n, h, w, c), np.uint8)
    try:
        mean, scale = (np.asarray(json.loads(session.metadata[k]), np.float32) for k in ("mean", "scale"))
        of_pixel = np.broadcast_to(mean, 3)
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        told = "does not tell the mean and scale of its pixels"
        raise CaffeError(f"{session.path}: {told}: {error}") from error
    return {"image": image}, {name: ((image[..., ::-1] - of_pixel) * scale).transpose(0, 3, 1, 2)}


def _takes_pixels(session: Session) -> bool:
    return any(info.type == "tensor(uint8)" for info in session.inputs.values())


def _derived(got: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What --softmax and --argmax make of the scores that the file itself found."""
    found: dict[str, np.ndarray] = {}
    for name, value in got.items():
        if f"{name}_prob" in got:
            found[f"{name}_prob"] = softmax(value, 1)
        if f"{name}_label" in got:
            found[f"{name}_label"] = value.argmax(axis=1)
    return found


def _changed_inputs(
    net: Net, got: Mapping[str, np.ndarray], reference: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """What a layer made of an input in place: in the file it needs a name of its own, NAME_2 as a rule."""
    stems = {name: re.sub(r"_\d+\Z", "", name) for name in got if name not in reference}
    return {name: reference[stem] for name, stem in stems.items() if stem in net.inputs and stem in reference}


def _layer_by_layer(net: Net, got: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The differences when every layer starts from the file's own blobs, so that rounding does not add up.

    What a lowering does wrong shows as clearly as before; what a deep net makes of the last bit does not.
    """
    writes = {t: i for i, tops in enumerate(net.top_ids) for t in tops}  # the last layer that writes a blob
    differences = {}
    for i, tops in enumerate(net.top_ids):
        net.forward_range(i, i)
        for t in tops:
            name = net.blob_names[t]
            if name in got and writes[t] == i:
                differences[name] = difference(got[name], net.blob_list[t].peek())
                if got[name].shape == net.blob_list[t].shape:
                    net.blob_list[t].data[...] = got[name]
    return differences


def _check_whole(
    net: Net,
    path: str | os.PathLike[str],
    probed: Mapping[str, np.ndarray],
    whole: Mapping[str, np.ndarray],
    most: float,
) -> None:
    """VerifyError if onnxruntime's rewriting changes an output by `most`, and no layer before decides it.

    Behind a layer that decides, the last bits, which rewriting changes, choose other boxes.
    """
    decided: set[int] = set()
    for layer, bottoms, tops in zip(net.layers, net.bottom_ids, net.top_ids, strict=True):
        if layer.decides or decided.intersection(bottoms):
            decided.update(tops)
    for name in whole.keys() & probed.keys():
        off = difference(whole[name], probed[name])
        if net.blob_index.get(name) not in decided and not off < most:
            raise VerifyError(
                f"{path}: onnxruntime's rewriting changes '{name}' by {off:.2e} of its largest value"
            )


def random_inputs(net: Net, seed: int = 0) -> dict[str, np.ndarray]:
    """Values that the layer which reads an input can take; else normal ones, as mean-free pixels are."""
    rng = np.random.default_rng(seed)
    return {name: _sample(net, name, rng).astype(np.float32) for name in net.inputs}


def _sample(net: Net, name: str, rng: np.random.Generator) -> np.ndarray:
    same = {net.blob_index[name]}  # the input, and what a Split or Reshape makes of it
    for layer, bottoms, tops in zip(net.layers, net.bottom_ids, net.top_ids, strict=True):
        if layer.shares_data and same.intersection(bottoms):
            same.update(tops)
            continue
        shapes = [net.blob_list[b].shape for b in bottoms]
        for i in (i for i, b in enumerate(bottoms) if b in same):
            if (values := layer.sample(i, shapes, rng)) is not None:
                return values.reshape(net.blobs[name].shape)
    return rng.normal(0, 60, net.blobs[name].shape)


def _set_shapes(net: Net, session: Session, shapes: Mapping[str, Sequence[int]]) -> None:
    """The net's inputs at the shapes asked for, else at a small image where the file leaves H and W open.

    A file of one size is tried with few images, whatever the number in the prototxt.
    """
    chosen = {n: tuple(s) for n, s in shapes.items()}
    declared = {n: sides for n, sides in _sides(net, session).items() if n not in chosen}
    open_ = [n for n, sides in declared.items() if any(isinstance(side, str) for side in sides)]
    for trial in [*_images(net, declared, open_), *_batches(net, session, {*chosen, *open_})]:
        try:
            net.infer({**chosen, **trial})
        except CaffeError:
            continue
        chosen.update(trial)
        break
    net.infer(chosen)
    for name, shape in chosen.items():
        net.blobs[name].reshape(*shape)
    net.reshape()


def _images(
    net: Net, declared: Mapping[str, list[Any]], open_: Sequence[str]
) -> Iterator[dict[str, tuple[int, ...]]]:
    """Small images for the inputs whose sides are open."""
    for tried in SIDES if open_ else ():
        pairs = {n: zip(tried, declared[n], strict=True) for n in open_}
        sides = {n: tuple(t if isinstance(d, str) else d for t, d in pair) for n, pair in pairs.items()}
        yield {n: (1, net.blobs[n].shape[1], *sides[n]) for n in open_}


def _batches(net: Net, session: Session, known: set[str]) -> Iterator[dict[str, tuple[int, ...]]]:
    """Fewer items for the inputs whose first extent is open."""
    first = {
        n: i.shape[0] for n, i in session.inputs.items() if n in net.inputs and n not in known and i.shape
    }
    shapes = {n: net.blobs[n].shape for n, extent in first.items() if isinstance(extent, str)}
    if any(shape[0] > BATCH for shape in shapes.values()):
        yield {n: (min(shape[0], BATCH), *shape[1:]) for n, shape in shapes.items()}


def _sides(net: Net, session: Session) -> dict[str, list[Any]]:
    """(height, width) of each input that is an image, as the file declares it, by the net's name for it."""
    if _takes_pixels(session):
        return {net.inputs[0]: session.inputs["image"].shape[1:3]}
    return {n: i.shape[2:] for n, i in session.inputs.items() if len(i.shape) == 4}


@contextmanager
def _probe(path: str | os.PathLike[str], device: Device) -> Iterator[tuple[Session, list[str]]]:
    """A session on the probe of a file, which lies beside it as long as it runs, and the blobs it gives."""
    from caffe_fcn.export.probe import write_probe

    handle, probe = tempfile.mkstemp(".onnx", ".probe", Path(path).resolve().parent)
    os.close(handle)
    try:
        inner = write_probe(path, probe)
        session = Session(probe, device, optimize=False)
        yield session, [*session.outputs, *(name for name in inner if name not in session.outputs)]
    finally:
        Path(probe).unlink(missing_ok=True)
