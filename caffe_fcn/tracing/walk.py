"""A net with its sizes as formulas, and with the place of every blob in the image."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import lcm

from caffe_fcn.errors import CaffeError, LayerError, nearest
from caffe_fcn.layers import Layer
from caffe_fcn.net import Net
from caffe_fcn.symbols import Extent, Shape, SizeNeeded
from caffe_fcn.tracing import fields
from caffe_fcn.tracing.fields import Field
from caffe_fcn.tracing.sizes import at

#: How the spatial axes of an input of so many axes are called.
SPATIAL = {4: ("H", "W"), 5: ("D", "H", "W")}
TRIALS = 8  # larger sizes that are tried, to see whether a size can change at all
OPEN = 4  # sizes of inputs that become symbols; what has more of them is no net that a person wrote
LONGEST = 1 << 20  # pixels


@dataclass
class Walk:
    """The layers of a net in order; lists have an entry for each."""

    net: Net
    inputs: dict[str, Shape]
    symbols: dict[str, int]  # symbol -> its value here
    fixed: dict[str, str]  # symbol that had to be a number -> the layer that needs it
    names: list[str]  # of each blob; for the tops of a Split that the net put in, that of its bottom
    bottoms: list[list[Shape]]
    tops: list[list[Shape]]
    fields: list[Field | None]  # of the first top
    bottom_fields: list[list[Field | None]]

    def period(self) -> int:
        """The least common multiple of the strides in the image, as far as these are whole numbers of pixels.

        As many of them as keep it below LONGEST.
        """
        axes = (axis for field in self.fields if field for axis in field.axes)
        whole = {int(a.stride) for a in axes if a.stride is not None and a.stride.denominator == 1}
        period = 1
        for stride in sorted(whole):
            period = longer if (longer := lcm(period, stride)) < LONGEST else period
        return period


def walk(net: Net, input_shape: Mapping[str, Sequence[int]]) -> Walk:
    """Follow the inputs' shapes, their spatial extents as symbols, through the net.

    Raises:
        LayerError: a layer cannot take what it would get.
        CaffeError: `input_shape` names what is not an input, or has other axes or channels.
    """
    given = _input_shapes(net, input_shape)
    net.infer(given)  # what does not fit is told with numbers
    first = _walk(net, given, {})
    bound = _bound(first)
    return _walk(net, given, bound) if bound else first


def _walk(net: Net, given: Mapping[str, Shape], bound: Mapping[str, str]) -> Walk:
    inputs, tops, fixed = _infer(net, given, bound)
    symbols = {str(n): n.hint for shape in inputs.values() for n in shape if isinstance(n, Extent)}
    known: dict[int, Shape] = {}
    bottoms: list[list[Shape]] = []
    for ids, reads, shapes in zip(net.top_ids, net.bottom_ids, tops, strict=True):
        bottoms.append([known[i] for i in reads])
        known.update(zip(ids, shapes, strict=True))
    result = Walk(net, inputs, symbols, fixed, _names(net), bottoms, tops, [], [])
    _place(result)
    return result


def inserted(layer: Layer) -> bool:
    """Whether a layer is a Split that the net put in."""
    p = layer.param
    return p.type == "Split" and p.name.startswith(f"{p.bottom[0]}_") and p.name.endswith("_split")


def _input_shapes(net: Net, given: Mapping[str, Sequence[int]]) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {name: net.blobs[name].shape for name in net.inputs}
    for name, shape in given.items():
        if name not in shapes:
            known = f"{net.path}: no input '{name}'; the inputs are {', '.join(net.inputs) or 'none'}"
            raise CaffeError(known, nearest(name, net.inputs))
        old, new = shapes[name], tuple(int(n) for n in shape)
        if len(old) != len(new):
            raise CaffeError(
                f"{net.path}: input '{name}' has {len(old)} axes {old}, the shape given {len(new)}: {new}"
            )
        if old[1:2] != new[1:2]:
            raise CaffeError(
                f"{net.path}: input '{name}' has {old[1]} channels, the shape given {new[1]}: {new}"
            )
        shapes[name] = new
    return shapes


def _infer(
    net: Net, given: Mapping[str, Shape], bound: Mapping[str, str]
) -> tuple[dict[str, Shape], list[list[Shape]], dict[str, str]]:
    """The inputs with symbols, the tops of every layer, and what had to be fixed for which layer."""
    fixed = dict(bound)
    while True:
        inputs = _symbolic(given, fixed)
        try:
            return inputs, net.infer(inputs), fixed
        except SizeNeeded as need:
            fixed.update(dict.fromkeys(sorted(need.symbols), _needing(net, inputs)))


def _bound(walked: Walk) -> dict[str, str]:
    """Symbols that can only have their present value, each with the layer that rejects all others.

    An InnerProduct has weights for one size only. Whether a symbol is open is found by trying larger values:
    alone by multiples of the net's stride, and all symbols together.
    """
    present, step = walked.symbols, walked.period()
    bound = {}
    for symbol, size in present.items():
        alone = ({**present, symbol: size + k * step} for k in range(1, TRIALS))
        together = ({s: n * k for s, n in present.items()} for k in range(2, TRIALS))
        layer = ""
        for values in (v for pair in zip(alone, together, strict=False) for v in pair):
            layer = _rejecting(walked, values)
            if not layer:
                break
        else:
            bound[symbol] = layer
    return bound


def _rejecting(walked: Walk, values: Mapping[str, int]) -> str:
    """The layer that takes no input of this size, or "" if every layer does."""
    try:
        walked.net.infer({name: at(shape, values) for name, shape in walked.inputs.items()})
    except LayerError as error:
        return error.layer
    return ""


def _needing(net: Net, inputs: Mapping[str, Shape]) -> str:
    """The layer that cannot do without a number."""

    def fails(layers: int) -> bool:
        try:
            net.infer(inputs, layers)
        except SizeNeeded:
            return True
        return False

    return net.layer_names[bisect_left(range(len(net.layers)), True, key=lambda i: fails(i + 1))]


def _symbolic(given: Mapping[str, Shape], fixed: Mapping[str, str]) -> dict[str, Shape]:
    """H and W for the spatial axes; inputs of one size share them, those of another have H2 and W2, to H4."""
    sizes: list[Shape] = []
    result: dict[str, Shape] = {}
    for name, shape in given.items():
        spatial = shape[2:]
        axes = SPATIAL.get(len(shape), ())
        if axes and spatial not in sizes and len(sizes) < OPEN:
            sizes.append(spatial)
        if spatial not in sizes or not axes:
            result[name] = shape
            continue
        number = sizes.index(spatial) + 1
        symbols = [axis if number == 1 else f"{axis}{number}" for axis in axes]
        open_ = [
            n if s in fixed else Extent.symbol(s, int(n)) for s, n in zip(symbols, spatial, strict=False)
        ]
        result[name] = (*shape[:2], *open_)
    return result


def _names(net: Net) -> list[str]:
    names = list(net.blob_names)
    for layer, bottoms, tops in zip(net.layers, net.bottom_ids, net.top_ids, strict=True):
        if inserted(layer):
            for top in tops:
                names[top] = names[bottoms[0]]
    return names


def _place(walked: Walk) -> None:
    """Fill in where the tops lie in the image."""
    now: dict[int, Field | None] = {}
    for i, layer in enumerate(walked.net.layers):
        tops, shapes = walked.net.top_ids[i], walked.tops[i]
        seen = [now[b] for b in walked.net.bottom_ids[i]]
        walked.bottom_fields.append(seen)
        for t, shape in reversed(list(zip(tops, shapes, strict=True))):
            if layer.bottoms.stop == 1 or not seen:
                now[t] = fields.of_input(walked.names[t], shape, i)
            else:
                now[t] = fields.through(layer, i, seen, walked.bottoms[i], shape)
        walked.fields.append(now[tops[0]] if tops else None)
