"""The rows of a trace: layers, Crops, sums, and what is odd about them."""

from __future__ import annotations

from collections.abc import Iterable

from caffe_fcn.coords import between, crop_window
from caffe_fcn.errors import CaffeError
from caffe_fcn.tracing.fields import Field
from caffe_fcn.tracing.learning import Learning, state
from caffe_fcn.tracing.memory import memory
from caffe_fcn.tracing.model import Crop, Cut, Row, Totals
from caffe_fcn.tracing.sizes import numbers, pixels
from caffe_fcn.tracing.walk import SPATIAL, Walk, inserted

#: What the elements along a spatial axis are called.
ELEMENTS = {"D": "slices", "H": "rows", "W": "columns"}
STEPS = 1 << 18  # layers that are gone through to derive offsets


def rows(walked: Walk, learned: list[Learning], splits: bool) -> tuple[list[Row], Totals]:
    """One row a layer, and the sums; Splits that the net put in are left out unless `splits`."""
    net = walked.net
    names = list(net.blob_names) if splits else walked.names
    used = memory(net, walked.tops)
    result: list[Row] = []
    for i, (layer, own) in enumerate(zip(net.layers, learned, strict=True)):
        if inserted(layer) and not splits:
            continue
        bottoms, tops = net.bottom_ids[i], net.top_ids[i]
        field = walked.fields[i]
        result.append(Row(
            index=len(result), name=layer.name, type=layer.param.type,
            bottoms=[names[b] for b in bottoms], tops=[names[t] for t in tops],
            in_place=bool(set(bottoms) & set(tops)), shapes=walked.tops[i],
            windows=list(layer.windows([numbers(s) for s in walked.bottoms[i]])),
            group=layer.param.convolution_param.group,
            parameters=own.parameters, shared=own.shared, lr_mult=own.lr_mult, learning=state(own.lr_mult),
            source=own.source, macs=layer.macs(walked.bottoms[i], walked.tops[i]), memory=used.made[i],
            axes=field.axes if field else [],
        ))  # fmt: skip
    totals = Totals(
        layers=len(result), parameters=sum(own.parameters for own in learned),
        frozen=sum(own.frozen for own in learned), macs=sum((row.macs for row in result), 0),
        memory=sum(used.made, 0), live=used.live, live_at=net.layer_names[used.live_at] if net.layers else "",
    )  # fmt: skip
    return result, totals


def crops(walked: Walk) -> dict[int, Crop]:
    """Every Crop layer, by its index. In a net of thousands, offsets are derived for the first of them."""
    layers = walked.net.layers
    found = [i for i, layer in enumerate(layers) if layer.type == "Crop"]
    return {i: _crop(walked, i, n * len(layers) < STEPS) for n, i in enumerate(found)}


def axis_name(axis: int, rank: int) -> str:
    """What lies along an axis of a blob: "rows", "columns", or "axis 1"."""
    spatial = SPATIAL.get(rank, ())
    return ELEMENTS[spatial[axis - 2]] if axis >= 2 and spatial else f"axis {axis}"


def _crop(walked: Walk, index: int, derive: bool) -> Crop:
    layer, (data, reference) = walked.net.layers[index], walked.bottoms[index]
    rank = len(data)
    derived: dict[int, int] = {}
    problem = ""
    try:
        if not derive:
            raise CaffeError("the net is too large to derive every offset")
        first, offsets = crop_window(between(layer.param.bottom[0], layer.param.bottom[1], walked.net))
        derived = dict(enumerate(_each(offsets, rank - first), first))
    except CaffeError as error:
        problem = str(error)
    p = layer.param.crop_param
    first = layer.axis(p.axis, rank)
    cuts = [
        Cut(i, axis_name(i, rank), offset, derived.get(i), offset, data[i] - offset - reference[i])
        for i, offset in enumerate(_each(list(p.offset) or [0], rank - first), first)
    ]
    names = [walked.names[b] for b in walked.net.bottom_ids[index]]
    return Crop(layer.name, names[0], names[1], cuts, problem)


def _each(offsets: list[int], axes: int) -> list[int]:
    """An offset for each axis; a single one serves for all."""
    return offsets * axes if len(offsets) == 1 else offsets


def _once(offsets: Iterable[object]) -> str:
    """'31', or '1, 2' if they differ."""
    found = [str(offset) for offset in offsets]
    return found[0] if len(set(found)) == 1 else ", ".join(found)


def odd(walked: Walk, found: dict[int, Crop]) -> list[str]:
    """What a person should look at: wrong offsets, and blobs put together that lie apart in the image."""
    told = []
    for crop in found.values():
        if not crop.right:
            given = _once(c.given for c in crop.cuts)
            right = _once(c.derived for c in crop.cuts)
            told.append(
                f"{crop.layer}: the offset is {given}; the coordinates of its bottoms ask for {right}"
            )
    for i, layer in enumerate(walked.net.layers):
        if i not in found and layer.coord_map() is not None and (apart := _apart(walked, i)):
            told.append(f"{layer.name}: {apart}")
    return told


def _apart(walked: Walk, index: int) -> str:
    """How two bottoms of a layer lie apart, if by an element or more."""
    names = [walked.names[b] for b in walked.net.bottom_ids[index]]
    known = [(n, f) for n, f in zip(names, walked.bottom_fields[index], strict=True) if f]
    for name, other in known[1:]:
        first = known[0][1]
        if not _comparable(walked, first, other):
            continue
        for axis, (a, b) in enumerate(zip(first.axes, other.axes, strict=True), 2):
            if a.stride and b.stride and (a.stride != b.stride or abs(a.offset - b.offset) >= a.stride):
                what = axis_name(axis, len(first.axes) + 2)
                begin = f"begin on pixel {pixels(a.offset)} and {pixels(b.offset)} of the image"
                wide = (
                    f", {pixels(a.stride)} and {pixels(b.stride)} pixels apart"
                    if a.stride != b.stride
                    else ""
                )
                return f"{known[0][0]} and {name} do not lie alike: their {what} {begin}{wide}"
    return ""


def _comparable(walked: Walk, a: Field, b: Field) -> bool:
    """Whether the pixels of two fields are of one image, or of two of one size."""
    one, two = (walked.inputs.get(f.origin, ())[2:] for f in (a, b))
    return len(a.axes) == len(b.axes) and (a.origin == b.origin or numbers(one) == numbers(two))
