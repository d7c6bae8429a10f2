"""Where a coordinate of one blob lies in another: why FCN-32s crops at 19, and FCN-8s at 5, 9 and 31.

A layer says how coordinates go from its bottom to its top (`Layer.coord_map`); here these maps are composed
along the paths of a graph, exactly, in fractions. The graph is a NetSpec's, walked from top to bottom through
`Top.fn`, or a Net's, walked through its blobs. Semantics: python/caffe/coord_map.py.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from caffe_fcn.errors import CaffeError, nearest
from caffe_fcn.geometry import AxisMap
from caffe_fcn.layers import LAYERS, Layer
from caffe_fcn.layers.base import CoordMap
from caffe_fcn.net_spec import Function, Top
from caffe_fcn.net_spec import layers as L  # noqa: N812 (pycaffe's custom)

if TYPE_CHECKING:
    from caffe_fcn.net import Net

__all__ = [
    "AxisMismatchException",
    "CannotCropError",
    "UnconnectedError",
    "UndefinedMapException",
    "between",
    "coord_map",
    "coord_map_from_to",
    "crop",
    "crop_window",
]

Node = TypeVar("Node", bound=Hashable)
_SAME = CoordMap(None, [AxisMap()])
BITS = 128  # of a map's numbers; thousands of layers could make them as long as they like


class UndefinedMapException(CaffeError):  # noqa: N818 (pycaffe's name)
    """A layer has no coordinate map: its top is no picture of its bottom."""


class AxisMismatchException(CaffeError):  # noqa: N818 (pycaffe's name)
    """Two maps that follow each other are of different axes."""


class UnconnectedError(CaffeError, RuntimeError):
    """No path of mapped layers joins two blobs."""


class CannotCropError(CaffeError, AssertionError):
    """The one blob is not a window of the other."""


def coord_map(layer: Function | Layer) -> CoordMap:
    """From the bottom of one layer, of a NetSpec or of a Net, to its top. Raises UndefinedMapException."""
    if isinstance(layer, Function):
        kind = LAYERS.get(layer.type_name)
        # The names do not matter, but some checks count them.
        param = layer.to_layer(layer.type_name, ["bottom"] * len(layer.inputs), ["top"] * layer.ntop)
        layer = kind(param, "<NetSpec>") if kind else Layer(param, "<NetSpec>")
    found = layer.coord_map()
    if found is None:
        raise UndefinedMapException(f"layer '{layer.name}' ({layer.param.type}) maps no coordinates")
    return found


def between(source: Top | str, target: Top | str, net: Net | None = None) -> CoordMap:
    """The map from coordinates in `source` to those in `target`: two tops, or two blobs of `net` by name.

    Its `axis` is None if it is the same on every axis, its `maps` one if all the mapped axes are alike.

    Raises:
        UnconnectedError: no path of mapped layers joins them.
        AxisMismatchException: two layers on the way map different axes.
        CaffeError: `net` has no such blob.
    """
    if net is None:
        if not (isinstance(source, Top) and isinstance(target, Top)):
            raise CaffeError(
                f"expected two tops of a NetSpec, got {source!r} and {target!r}", "blobs need their net"
            )
        return _between(source, target, _spec_steps)
    graph = _NetGraph(net)
    return _between(graph.node(str(source)), graph.node(str(target)), graph.steps)


def coord_map_from_to(
    top_from: Top | str, top_to: Top | str, net: Net | None = None
) -> tuple[int | None, np.ndarray, np.ndarray]:
    """`between` as pycaffe gives it: axis, scales, shifts, with to = scale * from + shift."""
    axis, maps = between(top_from, top_to, net)
    return axis, np.array([float(m.scale) for m in maps]), np.array([float(m.shift) for m in maps])


def crop_window(found: CoordMap) -> tuple[int, list[int]]:
    """Crop's `axis` and `offset` for a map from the blob that is cut to its reference.

    CannotCropError if the scales differ, or the reference begins before the blob or between two pixels.
    """
    shifts = ", ".join(str(-m.shift) for m in found.maps)
    if any(m.scale != 1 for m in found.maps):
        scales = ", ".join(str(m.scale) for m in found.maps)
        raise CannotCropError(f"scale mismatch on crop: a pixel of the one is {scales} of the other's")
    if any(m.shift > 0 for m in found.maps):
        raise CannotCropError(f"cannot crop negative offset {shifts}", "pad the input of the net more")
    if any(m.shift.denominator != 1 for m in found.maps):
        raise CannotCropError(f"cannot crop noninteger offset {shifts}")
    # The axis is the one before the first that is mapped; a map of every axis alike leaves N and C alone.
    return (1 if found.axis is None else found.axis) + 1, [int(-m.shift) for m in found.maps]


def crop(top_from: Top, top_to: Top) -> Top:
    """A Crop layer that cuts `top_from` to `top_to`; axis and offset come from the layers between them."""
    axis, offset = crop_window(between(top_from, top_to))
    return L.Crop(top_from, top_to, crop_param={"axis": axis, "offset": offset})


# --- the walk


def _between(
    source: Node, target: Node, steps: Callable[[Node], Iterator[tuple[CoordMap, Node]]]
) -> CoordMap:
    """Back to the common ancestor that is nearest to `target`, then forth; all are taken for equal."""
    upstream = dict(_walk(source, steps))
    for node, to in _walk(target, steps):
        if node in upstream:
            axis, maps = upstream[node]
            return _after(to, CoordMap(axis, [m.inverse() for m in maps]))
    raise UnconnectedError(
        "could not compute the map between two blobs: are they connected by spatial layers?"
    )


def _walk(
    start: Node, steps: Callable[[Node], Iterator[tuple[CoordMap, Node]]]
) -> Iterator[tuple[Node, CoordMap]]:
    """The blobs that `start` is computed from, nearest first, each with the map from it to `start`."""
    maps: dict[Node, CoordMap] = {start: _SAME}
    waiting = deque([start])
    while waiting:
        node = waiting.popleft()
        yield node, maps[node]
        for step, bottom in steps(node):
            if bottom not in maps:
                maps[bottom] = _after(maps[node], step)
                waiting.append(bottom)


def _after(last: CoordMap, first: CoordMap) -> CoordMap:
    """First `first`, then `last`. A single map serves for as many axes as the other has."""
    axes = {axis for axis in (last.axis, first.axis) if axis is not None}
    if len(axes) > 1 or len({len(last.maps), len(first.maps), 1}) > 2:
        text = " and ".join(f"{len(m.maps)} axes after axis {m.axis}" for m in (first, last))
        raise AxisMismatchException(f"two layers that follow each other map different axes: {text}")
    n = max(len(last.maps), len(first.maps))
    pairs = zip(_widened(last.maps, n), _widened(first.maps, n), strict=True)
    maps = [b.after(a) for b, a in pairs]
    if any(max(n.numerator, n.denominator).bit_length() > BITS for m in maps for n in m):
        raise UndefinedMapException(f"coordinates that take more than {BITS} bits are not followed")
    return CoordMap(axes.pop() if axes else None, maps[:1] if maps.count(maps[0]) == n else maps)


def _widened(maps: Sequence[AxisMap], n: int) -> Sequence[AxisMap]:
    return list(maps) * n if len(maps) == 1 else maps


def _steps(
    layer: Function | Layer, kind: type[Layer], bottoms: Sequence[Node]
) -> Iterator[tuple[CoordMap, Node]]:
    """The bottoms of a layer that coordinates go through to, with the map; none if they do not."""
    try:
        step = coord_map(layer) if bottoms else _SAME
    except UndefinedMapException:
        return
    yield from ((step, bottom) for i, bottom in enumerate(bottoms) if i not in kind.shape_only)


def _spec_steps(top: Top) -> Iterator[tuple[CoordMap, Top]]:
    return _steps(top.fn, LAYERS.get(top.fn.type_name, Layer), top.fn.inputs)


class _NetGraph:
    """A Net to be walked: a node is a blob and the layer that wrote it, for layers may work in place."""

    def __init__(self, net: Net) -> None:
        self.net = net
        self.writers: dict[int, list[int]] = {}
        for index, tops in enumerate(net.top_ids):
            for blob in tops:
                self.writers.setdefault(blob, []).append(index)

    def node(self, name: str) -> tuple[int, int]:
        """A blob as it is after the forward pass."""
        if name not in self.net.blobs:
            raise CaffeError(f"no blob '{name}' in the net", nearest(name, self.net.blobs))
        blob = self.net.blob_index[name]
        return blob, self.writers[blob][-1]

    def _before(self, blob: int, index: int) -> int:
        """The layer that wrote a blob last before layer `index` read it."""
        writers = self.writers[blob]
        return writers[bisect_left(writers, index) - 1]

    def steps(self, node: tuple[int, int]) -> Iterator[tuple[CoordMap, tuple[int, int]]]:
        _, index = node
        layer = self.net.layers[index]
        bottoms = [(b, self._before(b, index)) for b in self.net.bottom_ids[index]]
        return _steps(layer, type(layer), bottoms)
