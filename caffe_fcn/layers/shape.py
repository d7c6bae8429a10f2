"""Layers that move elements without changing them: Concat, Slice, Split, Silence, Flatten, Reshape, Tile.

Semantics: the file of that name in src/caffe/layers, such as concat_layer.cpp.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from caffe_fcn.layers.base import Array, Builder, Layer, Sequence, Shape, Size, Value, fixed, np, product
from caffe_fcn.symbols import same


class _AlongAxis(Layer):
    """An `axis`, or a legacy field that is unsigned and thus counts from the front only."""

    def _axis_of(self, p: Any, legacy: str, rank: int) -> int:
        self.check(not (p.HasField("axis") and p.HasField(legacy)), f"give axis or {legacy}, not both")
        if not p.HasField(legacy):
            return self.axis(p.axis, rank)
        axis = getattr(p, legacy)
        self.check(axis < rank, f"{legacy} {axis} does not exist in a blob of {rank} axes")
        return axis


class Concat(_AlongAxis, bottoms=range(1, 1 << 31)):
    """Put blobs behind each other along one axis.

    Bottoms: alike in every axis but `axis` (default 1; legacy `concat_dim`). Top: their sum along it.
    """

    def reshape(self, bottoms: Sequence[Shape]) -> list[Shape]:
        first = bottoms[0]
        axis = self._axis_of(self.param.concat_param, "concat_dim", len(first))
        total: Size = 0
        for name, shape in zip(self.param.bottom, bottoms, strict=True):
            self.check(
                len(shape) == len(first) and all(shape[i] == n for i, n in enumerate(first) if i != axis),
                f"'{self.param.bottom[0]}' is {first}, '{name}' {shape}: not alike but for axis {axis}",
                "crop or interpolate one of them to the size of the other",
            )
            total = shape[axis] + total
        return [(*first[:axis], total, *first[axis + 1 :])]

    def forward(self, bottoms: Sequence[Array]) -> list[Array]:
        axis = self._axis_of(self.param.concat_param, "concat_dim", bottoms[0].ndim)
        return [np.concatenate(bottoms, axis=axis)]

    def to_onnx(self, g: Builder, bottoms: Sequence[Value]) -> list[str]:
        if len(bottoms) == 1:
            return [bottoms[0].name]
        axis = self._axis_of(self.param.concat_param, "concat_dim", len(bottoms[0].shape))
        return [g.op("Concat", *bottoms, axis=axis)]


class Slice(_AlongAxis, tops=range(1, 1 << 31)):
    """Cut a blob into pieces along one axis.

    Tops: cut in front of every `slice_point`, or evenly, along `axis` (default 1; legacy `slice_dim`).
    """

    def _sizes(self, bottom: Shape) -> tuple[int, list[Size]]:
        """The axis, and the extent of every top along it."""
        p, tops = self.param.slice_param, len(self.param.top)
        axis = self._axis_of(p, "slice_dim", len(bottom))
        n = bottom[axis]
        if not p.slice_point:
            self.check(n % tops == 0, f"axis {axis} of {bottom} does not divide into {tops} tops")
            return axis, [n // tops] * tops
        points = list(p.slice_point)
        self.check(len(points) == tops - 1, f"{len(points)} slice_points for {tops} tops", "give one fewer")
        rising = all(a < b for a, b in pairwise([0, *points]))
        self.check(rising, f"slice_points {points} must rise, the first above 0")
        fits = tops <= n and points[-1] <= n
        self.check(fits, f"axis {axis} of {bottom} is too short for the slice_points {points}")
        edges = [0, *points, n]
        return axis, [stop - start for start, stop in pairwise(edges)]

    def reshape(self, bottoms: Sequence[Shape]) -> list[Shape]:
        (shape,) = bottoms
        axis, sizes = self._sizes(shape)
        return [(*shape[:axis], n, *shape[axis + 1 :]) for n in sizes]

    def forward(self, bottoms: Sequence[Array]) -> list[Array]:
        axis, sizes = self._sizes(bottoms[0].shape)
        return np.split(bottoms[0], np.cumsum([fixed(n) for n in sizes])[:-1], axis=axis)

    def to_onnx(self, g: Builder, bottoms: Sequence[Value]) -> list[str]:
        (bottom,) = bottoms
        axis, sizes = self._sizes(bottom.shape)
        if len(sizes) == 1:
            return [bottom.name]
        return g.op("Split", bottom, g.ints(sizes), outputs=len(sizes), axis=axis)


class _View(Layer):
    """The bottom's own memory under another name or shape."""

    shares_data = True

    def setup(self) -> None:
        self.check(
            self.param.bottom[0] not in self.param.top, "does not work in place", "give its top another name"
        )

    def forward(self, bottoms: Sequence[Array]) -> list[Array]:
        shapes = self.reshape([bottoms[0].shape])
        return [bottoms[0].reshape([fixed(n) for n in shape]) for shape in shapes]


class Split(_View, tops=range(1, 1 << 31)):
    """Give one blob to several readers; the net puts it in where a top has more than one.

    Tops: the bottom, as often as there are names.
    """

    pointwise = True

    def reshape(self, bottoms: Sequence[Shape]) -> list[Shape]:
        return [bottoms[0]] * len(self.param.top)

    def to_onnx(self, g: Builder, bottoms: Sequence[Value]) -> list[str]:
        return [bottoms[0].name] * len(self.param.top)


class Silence(Layer, bottoms=range(1, 1 << 31), tops=0):
    """Take blobs that nobody reads, so that they are not printed as outputs. No tops."""

    def reshape(self, bottoms: Sequence[Shape]) -> list[Shape]:
        return []

    def forward(self, bottoms: Sequence[Array]) -> list[Array]:
        return []

    def to_onnx(self, g: Builder, bottoms: Sequence[Value]) -> list[str]:
        return []


class Flatten(_View):
    """Make one axis of the axes from `axis` (default 1) to `end_axis` (default the last, included).

    Bottom: (N, C, H, W), say. Top: (N, C * H * W).
    """

    def _range(self, rank: int) -> tuple[int, int]:
        """The first axis that is flattened, and the one behind the last."""
        p = self.param.flatten_param
        start, end = self.axis(p.axis, rank), self.axis(p.end_axis, rank) + 1
        self.check(start <= end, f"axis {start} lies behind end_axis {end - 1}")
        return start, end

    def reshape(self, bottoms: Sequence[Shape]) -> list[Shape]:
        (shape,) = bottoms
        start, end = self._range(len(shape))
        return [(*shape[:start], product(shape[start:end]), *shape[end:])]

    def to_onnx(self, g: Builder, bottoms: Sequence[Value]) -> list[str]:
        (bottom,) = bottoms
        if self._range(len(bottom.shape)) == (1, len(bottom.shape)):
            return [g.op("Flatten", bottom, axis=1)]
        return [g.reshape(bottom, self.reshape([bottom.shape])[0])]


class Reshape(_View):
    """Give a blob another shape of as many elements.

    `shape` replaces `num_axes` axes (-1: all) from `axis` on (-1: behind the last, so that axes are added).
    A dim of 0 is the bottom's extent in that place, -1 what is left over.
    """

    def reshape(self, bottoms: Sequence[Shape]) -> list[Shape]:
        p, (old,) = self.param.reshape_param, bottoms
        start, end = self._replaced(len(old))
        new: list[Size] = list(p.shape.dim)
        for i, n in enumerate(new):
            if isinstance(n, int) and n == 0:
                self.check(
                    start + i < len(old), f"dim {i} of its shape is 0, but {old} has no axis {start + i}"
                )
                new[i] = old[start + i]
        shape = [*old[:start], *new, *old[end:]]
        open_axes = [start + i for i, n in enumerate(p.shape.dim) if n == -1]
        self.check(len(open_axes) <= 1, f"{len(open_axes)} dims of its shape are -1, only one can be")
        for i in open_axes:
            shape[i] = self._left_over(old, (*shape[:i], *shape[i + 1 :]))
        self.check(
            product(tuple(shape)) == product(old),
            f"{old} has {product(old)} elements, {tuple(shape)} would have {product(tuple(shape))}",
        )
        if not open_axes and not same(product(tuple(shape)), product(old)):
            fixed(product(old))  # the dims fit this number of elements only
        return [tuple(shape)]

    def _replaced(self, rank: int) -> tuple[int, int]:
        """The first axis that is replaced, and the one behind the last."""
        p = self.param.reshape_param
        start = p.axis if p.axis >= 0 else rank + p.axis + 1
        self.check(0 <= start <= rank, f"axis {p.axis} does not exist in a blob of {rank} axes")
        self.check(p.num_axes >= -1, f"num_axes {p.num_axes} must be -1 or more")
        end = rank if p.num_axes == -1 else start + p.num_axes
        self.check(end <= rank, f"axis {start} + num_axes {p.num_axes} > {rank} axes of the bottom")
        return start, end

    def _left_over(self, old: Shape, others: Shape) -> Size:
        """The extent of the dim that is -1."""
        total, rest = product(old), product(others)
        self.check(rest != 0, f"its -1 is not defined beside the other dims {others}, of which one is 0")
        count = total // fixed(rest) if isinstance(total, int) else total // rest
        self.check(
            count * rest == total, f"the {total} elements of {old} do not divide by {rest}, that is {others}"
        )
        return count

    def to_onnx(self, g: Builder, bottoms: Sequence[Value]) -> list[str]:
        return [g.reshape(bottoms[0], self.reshape([bottoms[0].shape])[0])]


class Tile(Layer):
    """Repeat a blob `tiles` times along `axis`.

    Top: the bottom's shape, `tiles` times as long along `axis` (default 1).
    """

    def setup(self) -> None:
        p = self.param.tile_param
        self.check(
            p.HasField("tiles"), "tiles is missing", "say how often to repeat: tile_param { tiles: 2 }"
        )
        self.check(p.tiles > 0, f"tiles {p.tiles} must be positive")

    def _repeats(self, rank: int) -> list[int]:
        p = self.param.tile_param
        axis = self.axis(p.axis, rank)
        return [p.tiles if i == axis else 1 for i in range(rank)]

    def reshape(self, bottoms: Sequence[Shape]) -> list[Shape]:
        return [tuple(n * r for n, r in zip(bottoms[0], self._repeats(len(bottoms[0])), strict=True))]

    def forward(self, bottoms: Sequence[Array]) -> list[Array]:
        return [np.tile(bottoms[0], self._repeats(bottoms[0].ndim))]

    def to_onnx(self, g: Builder, bottoms: Sequence[Value]) -> list[str]:
        return [g.op("Tile", bottoms[0], g.ints(self._repeats(len(bottoms[0].shape))))]
