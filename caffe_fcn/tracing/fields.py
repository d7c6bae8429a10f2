"""Receptive fields: what part of the image an element of a blob is computed from, and where that lies."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import gcd
from typing import NamedTuple

from caffe_fcn.geometry import AxisMap, Window
from caffe_fcn.layers import Layer
from caffe_fcn.symbols import Shape, same
from caffe_fcn.tracing.model import Axis
from caffe_fcn.tracing.sizes import numbers

BITS = 64  # of the numbers that say where an element lies; what takes more is nowhere
LINKS = 64  # that do not become one; real nets have a few


class Link(NamedTuple):
    """Layers along one axis: n elements of the top are made of floor((a * n + b) / by) of the bottom."""

    a: int
    b: int
    by: int

    @classmethod
    def of(cls, reach: int, scale: Fraction) -> Link:
        """A window of `reach` elements, and `scale` elements of the top for one of the bottom.

        A window of a Deconvolution lies on its top: n elements in a row get something from as many of the
        bottom as have a window that touches them.
        """
        up, down = scale.numerator, scale.denominator
        b = down * (reach - 2) + up if scale > 1 else up * (reach + 1) - down - 1
        return cls(down, b, up)

    def after(self, first: Link) -> Link | None:
        """`first` (on the side of the input), then this one, as one link where that is the same."""
        if first.a != 1 and self.by != 1:
            return None
        a, b, by = first.a * self.a, first.a * self.b + first.b * self.by, first.by * self.by
        common = gcd(a, by)
        return Link(a // common, b // common, by // common)


class Field(NamedTuple):
    """The place of a blob's elements in an input, and how the largest of them came about."""

    origin: str  # the input
    axes: list[Axis]  # along the axes from 2 on
    links: list[tuple[Link, ...]]  # along each axis, from the input on
    layer: int
    before: Field | None  # the largest of the layer's bottoms'; None for an input

    @property
    def path(self) -> tuple[int, ...]:
        """Layers from the input on, along which the field is the largest."""
        path, field = [self.layer], self.before
        while field:
            path.append(field.layer)
            field = field.before
        return tuple(reversed(path))


def of_input(name: str, shape: Shape, index: int) -> Field | None:
    """An input's elements are the image's pixels; None if it is no image."""
    if len(shape) < 3:
        return None
    pixel = Axis(1, Fraction(1), Fraction(0))
    return Field(name, [pixel for _ in shape[2:]], [() for _ in shape[2:]], index, None)


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
    return Field(field.origin, placed, links, index, field) if placed else None


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
        links = _linked(links, Link.of(window.reach, Fraction(1)))
        return Axis(_size(links), None, axis.offset + Fraction(window.reach - 1, 2) * axis.stride), links
    if (window.reach, there.scale) != (1, 1):
        links = _linked(links, Link.of(window.reach, there.scale))
    back = there.inverse()
    stride, offset = axis.stride * back.scale, axis.offset + axis.stride * back.shift
    numbers_ = (*(n for link in links for n in link), *stride.as_integer_ratio(), offset.denominator)
    if len(links) > LINKS or any(n.bit_length() > BITS for n in numbers_):
        return None
    return Axis(_size(links), stride, offset), links


def _size(links: tuple[Link, ...]) -> int:
    """Pixels that one element is computed from, at most: counted back, link by link."""
    n = 1
    for link in reversed(links):
        n = (link.a * n + link.b) // link.by
    return n


def _linked(links: tuple[Link, ...], link: Link) -> tuple[Link, ...]:
    one = link.after(links[-1]) if links else None
    return (*links[:-1], one) if one else (*links, link)
