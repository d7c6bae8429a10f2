"""Pooling of regions of interest: ROIPooling of Fast R-CNN, PSROIPooling of R-FCN."""

from __future__ import annotations

from typing import NamedTuple

from caffe_fcn.layers.base import Array, Builder, Layer, Sequence, Shape, Value, fixed, np, product
from caffe_fcn.numeric import roi


class _Regions(Layer, bottoms=2):
    """Bottoms: maps (N, C, H, W); regions (R, 5): the item, then x1, y1, x2, y2 in pixels of the image."""

    def _check(self, bottoms: Sequence[Shape]) -> None:
        maps, regions = bottoms
        self.check(len(maps) == 4, f"'{self.param.bottom[0]}' is {maps}, not (N, C, H, W)")
        told = f"'{self.param.bottom[1]}' is {regions}, not (R, 5)"
        self.check(len(regions) >= 1 and product(regions[1:]) == 5, told)

    def _rows(self, maps: Array, regions: Array) -> Array:
        """The regions as (R, 5), whose items are checked."""
        rows = regions.reshape(-1, 5)
        wrong = rows[:, 0][(rows[:, 0] < 0) | (rows[:, 0] >= len(maps))]
        self.check(
            not wrong.size, f"a region is of item {wrong[:1]}, '{self.param.bottom[0]}' has {len(maps)} items"
        )
        return rows

    def sample(self, i: int, bottoms: Sequence[Shape], rng: np.random.Generator) -> Array | None:
        if i == 0:
            return None
        count, (n, _, height, width) = fixed(bottoms[1][0]), (fixed(size) for size in bottoms[0])
        ends = np.sort(rng.uniform(0, 1, (count, 2, 2)), axis=1) * [width, height] / self._scale
        regions = np.concatenate([rng.integers(0, n, (count, 1)), ends.reshape(count, 4)], axis=1)
        return regions.reshape([fixed(size) for size in bottoms[1]])

    @property
    def _scale(self) -> float:
        """Positions on the map for a pixel of the image."""
        raise NotImplementedError

    def _flat(self, g: Builder, regions: Value) -> str:
        if len(regions.shape) == 2:
            return regions.name
        return g.reshape(regions, (regions.shape[0], 5))


class ROIPooling(_Regions):
    """The maxima of pooled_h x pooled_w bins of every region.

    Bottoms: maps (N, C, H, W); regions (R, 5), each the item, then x1, y1, x2, y2, which times
    `spatial_scale` are positions on the map, rounded. Top: (R, C, pooled_h, pooled_w), 0 of an empty bin
    (roi_pooling_layer.cpp of caffe-fast-rcnn).
    """

    fork = "Fast R-CNN"

    def setup(self) -> None:
        p = self.param.roi_pooling_param
        self.check(
            p.pooled_h > 0 and p.pooled_w > 0,
            f"pooled_h {p.pooled_h} and pooled_w {p.pooled_w} must be positive",
        )

    @property
    def _scale(self) -> float:
        return float(self.param.roi_pooling_param.spatial_scale)

    def reshape(self, bottoms: Sequence[Shape]) -> list[Shape]:
        self._check(bottoms)
        p = self.param.roi_pooling_param
        return [(bottoms[1][0], bottoms[0][1], p.pooled_h, p.pooled_w)]

    def forward(self, bottoms: Sequence[Array]) -> list[Array]:
        p, rows = self.param.roi_pooling_param, self._rows(*bottoms)
        return [roi.roi_pool(bottoms[0], rows, (p.pooled_h, p.pooled_w), p.spatial_scale)]

    def to_onnx(self, g: Builder, bottoms: Sequence[Value]) -> list[str]:
        p, (maps, regions) = self.param.roi_pooling_param, bottoms
        how = {"pooled_shape": [p.pooled_h, p.pooled_w], "spatial_scale": p.spatial_scale}
        return [g.op("MaxRoiPool", maps, self._flat(g, regions), **how)]


class _Bounds(NamedTuple):
    """First positions and those behind the last, each (R, 1 or group, 1 or group), int64."""

    first: str
    behind: str


class PSROIPooling(_Regions):
    """The means of group_size x group_size bins of every region, each bin on maps of its own.

    Bottoms: maps (N, output_dim * group_size * group_size, H, W); regions (R, 5), each the item, then x1, y1,
    x2, y2, rounded, and then times `spatial_scale` positions on the map. Top: (R, output_dim, group_size,
    group_size), 0 of an empty bin (psroi_pooling_layer.cu of R-FCN).
    """

    fork = "R-FCN"

    def setup(self) -> None:
        p = self.param.psroi_pooling_param
        for name in ("output_dim", "group_size"):
            self.check(getattr(p, name) > 0, f"{name} {getattr(p, name)} must be positive")
        self.check(p.HasField("spatial_scale"), "spatial_scale is missing")

    @property
    def _scale(self) -> float:
        return float(self.param.psroi_pooling_param.spatial_scale)

    def reshape(self, bottoms: Sequence[Shape]) -> list[Shape]:
        self._check(bottoms)
        p, channels = self.param.psroi_pooling_param, bottoms[0][1]
        needed = p.output_dim * p.group_size**2
        told = f"'{self.param.bottom[0]}' has {channels} channels, output_dim and group_size need {needed}"
        self.check(channels == needed, told)
        return [(bottoms[1][0], p.output_dim, p.group_size, p.group_size)]

    def forward(self, bottoms: Sequence[Array]) -> list[Array]:
        p, rows = self.param.psroi_pooling_param, self._rows(*bottoms)
        return [roi.psroi_pool(bottoms[0], rows, p.output_dim, p.group_size, p.spatial_scale)]

    def to_onnx(self, g: Builder, bottoms: Sequence[Value]) -> list[str]:
        """Sums over rectangles, as differences of the four corners of running sums in float64."""
        p, (maps, regions) = self.param.psroi_pooling_param, bottoms
        (_, channels, height, width), group = maps.shape, p.group_size
        rows = self._flat(g, regions)
        item = g.cast(g.op("Gather", rows, g.ints([0]), axis=1), np.int64)
        corners = self._rounded(g, g.op("Gather", rows, g.ints([1, 2, 3, 4]), axis=1))
        start, end = g.op("Split", corners, g.ints([2, 2]), outputs=2, axis=1)
        scale = g.scalar(p.spatial_scale)
        start = g.op("Mul", start, scale)
        length = g.op("Sub", g.op("Mul", g.op("Add", end, g.scalar(1)), scale), start)
        step = g.op("Div", g.op("Max", length, g.scalar(0.1)), g.scalar(group))
        x = self._bounds(g, start, step, 0, g.size(width), (1, group))
        y = self._bounds(g, start, step, 1, g.size(height), (group, 1))
        sums = self._sums(g, maps)
        channel = np.arange(p.output_dim * group * group).reshape(1, p.output_dim, group, group)
        base = g.op("Add", g.op("Mul", g.reshape(item, (-1, 1, 1, 1)), g.size(channels)), g.array(channel))
        corner = [[self._at(g, sums, base, h, w, (height + 1, width + 1)) for w in x] for h in y]
        total = g.op("Sub", g.op("Sub", corner[1][1], corner[0][1]), g.op("Sub", corner[1][0], corner[0][0]))
        one = g.ints([1])
        heights, widths = (g.op("Max", g.op("Sub", b.behind, b.first), g.ints([0])) for b in (y, x))
        area = g.op("Max", g.op("Mul", heights, widths), one)
        full = g.op("Greater", g.op("Mul", heights, widths), g.ints([0]))
        mean = g.cast(g.op("Div", total, g.cast(area, np.float64)))
        return [g.op("Where", full, mean, g.scalar(0))]

    @staticmethod
    def _rounded(g: Builder, x: str) -> str:
        """Halves away from zero, unlike ONNX's Round."""
        return g.op("Mul", g.op("Sign", x), g.op("Floor", g.op("Add", g.op("Abs", x), g.scalar(0.5))))

    @staticmethod
    def _bounds(g: Builder, start: str, step: str, axis: int, size: str, place: tuple[int, int]) -> _Bounds:
        """Where the bins along one axis begin and end, cut at the map; `place` is their axis in the top."""
        group = max(place)
        begin, by = (g.op("Gather", v, g.ints([axis]), axis=1) for v in (start, step))
        each = [g.array(np.arange(group, dtype=np.float32) + i) for i in (0, 1)]
        ends = [g.op("Add", g.op("Mul", by, e), begin) for e in each]
        whole = [g.cast(g.op(op, end), np.int64) for op, end in zip(("Floor", "Ceil"), ends, strict=True)]
        cut = [g.op("Min", g.op("Max", v, g.ints([0])), size) for v in whole]
        return _Bounds(*(g.reshape(v, (-1, 1, *place)) for v in cut))

    @staticmethod
    def _sums(g: Builder, maps: Value) -> str:
        """Sums over all that is above and left of each corner of a pixel, flat."""
        n, c, height, width = maps.shape
        sums = g.op("Pad", g.cast(maps, np.float64), g.ints([0, 0, 1, 1, 0, 0, 0, 0]))
        for axis in (2, 3):
            sums = g.op("CumSum", sums, g.array(np.asarray(axis, np.int64)))
        return g.reshape(sums, (n * c * (height + 1) * (width + 1),))

    @staticmethod
    def _at(g: Builder, sums: str, channel: str, h: str, w: str, size: Shape) -> str:
        """The sum at corner (h, w) of a channel."""
        row = g.op("Add", g.op("Mul", channel, g.size(size[0])), h)
        return g.op("Gather", sums, g.op("Add", g.op("Mul", row, g.size(size[1])), w), axis=0)
