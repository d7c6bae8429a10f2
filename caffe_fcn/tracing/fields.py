"""Receptive fields: what part of the image an element of a blob is computed from, and where that lies."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

from caffe_fcn.geometry import AxisMap, Window
from caffe_fcn.layers import Layer
from caffe_fcn.symbols import Shape, same
from caffe_fcn.tracing.model import Axis
from caffe_fcn.tracing.sizes import numbers


class Field(NamedTuple):
    """The place of a blob's elements in an input, and how the largest of them came about."""

    origin: str  # the input
    axes: list[Axis]  # along the axes from 2 on
    path: tuple[int, ...]  # layers from the input on, along which the field is the largest


def of_input(name: str, shape: Shape, index: int) -> Field | None:
    """An input's elements are the image's pixels; None if it is no image."""
    if len(shape) < 3:
        return None
    return Field(name, [Axis(Fraction(1), Fraction(1), Fraction(0)) for _ in shape[2:]], (index,))


def through(
    layer: Layer, index: int, bottoms: Sequence[Field | None], shapes: Sequence[Shape], top: Shape
) -> Field | None:
    """The field of a layer's top; of several bottoms the one that sees most of the image counts.

    A layer that has neither coordinate map nor windows, but keeps every spatial extent (Concat, Softmax), is
    taken to work pixel by pixel. None where elements have no place in the image any more (InnerProduct).
    """
    known = [
        (f, s)
        for i, (f, s) in enumerate(zip(bottoms, shapes, strict=True))
        if f and i not in layer.shape_only
    ]
    if not known:
        return None
    field, shape = max(known, key=lambda pair: [a.size for a in pair[0].axes])
    maps = _maps(layer, len(field.axes))
    windows = list(layer.windows([numbers(shape) for shape in shapes]))
    if maps is None and not windows:
        kept = len(top) == len(shape) and all(same(a, b) for a, b in zip(top[2:], shape[2:], strict=True))
        maps = [AxisMap()] * len(field.axes) if kept else None
    if maps is None and not windows:
        return None
    windows = windows or [Window(1)] * len(field.axes)
    if len(windows) != len(field.axes):
        return None
    each = maps if maps is not None else [None] * len(windows)
    axes = [_step(a, w, m) for a, w, m in zip(field.axes, windows, each, strict=True)]
    placed = [axis for axis in axes if axis is not None]
    return Field(field.origin, placed, (*field.path, index)) if len(placed) == len(axes) else None


def _maps(layer: Layer, n: int) -> list[AxisMap] | None:
    """The coordinate map along each of the n last axes."""
    found = layer.coord_map()
    if found is None:
        return None
    maps = list(found.maps)
    return maps * n if len(maps) == 1 else maps[-n:]


def _step(axis: Axis, window: Window, there: AxisMap | None) -> Axis | None:
    """One axis through one layer; a window without a map takes the whole extent (global pooling)."""
    if axis.stride is None:
        return axis if window.kernel == 1 else None
    if there is None:
        size = axis.size + (window.reach - 1) * axis.stride
        return Axis(size, None, axis.offset + Fraction(window.reach - 1, 2) * axis.stride)
    # A Deconvolution's windows lie on its top, which is finer: each element gets something from so many
    seen = -(-window.reach // max(there.scale, Fraction(1)))
    back = there.inverse()
    return Axis(
        axis.size + (seen - 1) * axis.stride, axis.stride * back.scale, axis.offset + axis.stride * back.shift
    )
