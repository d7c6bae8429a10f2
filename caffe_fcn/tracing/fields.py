"""Receptive fields: what part of the image an element of a blob is computed from, and where that lies."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import ceil, floor
from typing import NamedTuple

from caffe_fcn.geometry import AxisMap, Window
from caffe_fcn.layers import Layer
from caffe_fcn.symbols import Shape, same
from caffe_fcn.tracing.model import Axis
from caffe_fcn.tracing.sizes import numbers

#: One layer along one axis: how many elements a window spans, and elements of the top for one of the bottom.
Link = tuple[int, Fraction]


class Field(NamedTuple):
    """The place of a blob's elements in an input, and how the largest of them came about."""

    origin: str  # the input
    axes: list[Axis]  # along the axes from 2 on
    path: tuple[int, ...]  # layers from the input on, along which the field is the largest
    links: list[tuple[Link, ...]]  # along each axis, from the input on


def of_input(name: str, shape: Shape, index: int) -> Field | None:
    """An input's elements are the image's pixels; None if it is no image."""
    if len(shape) < 3:
        return None
    pixel = Axis(1, Fraction(1), Fraction(0))
    return Field(name, [pixel for _ in shape[2:]], (index,), [() for _ in shape[2:]])


def through(
    layer: Layer, index: int, bottoms: Sequence[Field | None], shapes: Sequence[Shape], top: Shape
) -> Field | None:
    """The field of a layer's top; of several bottoms the one that sees most of the image counts.

    A layer that has neither coordinate map nor windows, but keeps every spatial extent (Concat, Softmax), is
    taken to work pixel by pixel. None where elements have no place in the image any more (InnerProduct).
    """
    pairs = enumerate(zip(bottoms, shapes, strict=True))
    known = [(field, shape) for i, (field, shape) in pairs if field and i not in layer.shape_only]
    if not known:
        return None
    field, shape = max(known, key=lambda pair: [axis.size for axis in pair[0].axes])
    n = len(field.axes)
    maps = _maps(layer, n)
    windows = list(layer.windows([numbers(shape) for shape in shapes]))
    if not maps and not windows:
        kept = len(top) == len(shape) and all(same(a, b) for a, b in zip(top[2:], shape[2:], strict=True))
        if not kept:
            return None
        maps = [AxisMap()] * n
    windows = windows or [Window(1)] * n
    placed, links = [], []
    for i in range(n if len(windows) == n else 0):
        step = _step(field.axes[i], field.links[i], windows[i], maps[i] if maps else None)
        if step is None:
            return None
        placed.append(step[0])
        links.append(step[1])
    return Field(field.origin, placed, (*field.path, index), links) if placed else None


def _maps(layer: Layer, n: int) -> list[AxisMap]:
    """The coordinate map along each of the n last axes; [] if there is none."""
    found = layer.coord_map()
    maps = list(found.maps) if found else []
    return maps * n if len(maps) == 1 else maps[-n:]


def _step(
    axis: Axis, links: tuple[Link, ...], window: Window, there: AxisMap | None
) -> tuple[Axis, tuple[Link, ...]] | None:
    """One axis through one layer; a window without a map takes the whole extent (global pooling)."""
    if axis.stride is None:
        return (axis, links) if window.kernel == 1 else None
    if there is None:
        links = (*links, (window.reach, Fraction(1)))
        return Axis(_size(links), None, axis.offset + Fraction(window.reach - 1, 2) * axis.stride), links
    if (window.reach, there.scale) != (1, 1):
        links = (*links, (window.reach, there.scale))
    back = there.inverse()
    return Axis(_size(links), axis.stride * back.scale, axis.offset + axis.stride * back.shift), links


def _size(links: tuple[Link, ...]) -> int:
    """Pixels that one element is computed from, at most: counted back, layer by layer.

    A window of a Deconvolution lies on its top: n elements in a row get something from as many of the bottom
    as have a window that touches them.
    """
    n = 1
    for reach, scale in reversed(links):
        n = floor((n + reach - 2) / scale) + 1 if scale > 1 else ceil((n - 1) / scale) + reach
    return n
