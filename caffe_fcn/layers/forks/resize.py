"""Layers that make maps larger or smaller: Interp, Resize, DeephiResize, Upsample."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

from caffe_fcn.geometry import AxisMap, ceil_div
from caffe_fcn.layers.base import Array, Builder, CoordMap, Layer, Sequence, Shape, Size, Value, fixed, np
from caffe_fcn.numeric import resize

#: ONNX's Resize by a whole number, each element repeated.
REPEAT = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}


class _Resampled(Layer):
    """Bottom: (N, C, H, W). Top: (N, C, H', W')."""

    def _sizes(self, bottoms: Sequence[Shape]) -> tuple[Size, Size]:
        """H' and W'."""
        raise NotImplementedError

    def reshape(self, bottoms: Sequence[Shape]) -> list[Shape]:
        bottom = bottoms[0]
        self.check(len(bottom) == 4, f"needs 4 axes (N, C, H, W), got {bottom}")
        self.check(min(bottom[2:]) > 0, f"its bottom has no pixels: {bottom}")
        height, width = self._sizes(bottoms)
        self.check(height > 0 and width > 0, f"its top would be {height} x {width}")
        return [(*bottom[:2], height, width)]

    def _target(self, bottoms: Sequence[Shape]) -> tuple[int, int]:
        return tuple(fixed(n) for n in self.reshape(bottoms)[0][2:])  # type: ignore[return-value]

    def _resize(self, g: Builder, bottoms: Sequence[Value], x: Value | str | None = None, **how: Any) -> str:
        """ONNX's Resize to the size that `reshape` says; of `x` in place of the bottom."""
        shape = self.reshape([b.shape for b in bottoms])[0]
        return g.op("Resize", x or bottoms[0], "", "", g.ints(shape), **how)

    def _unpooled(self, x: Array, places: Array, height: int, width: int, hint: str) -> Array:
        """Each element of x at its place in a top of 0; LayerError for a place outside."""
        inside = (places >= 0) & (places < height * width)  # NaN is not
        told = f"position {places[~inside][:1]} of its mask lies outside of {height} x {width}"
        self.check(bool(inside.all()), told, f"give the size of the Pooling's bottom: {hint}")
        return resize.unpool(x, places, height, width)

    @staticmethod
    def _scattered(g: Builder, x: Value, index: str, flat: Shape, height: Size, width: Size) -> str:
        """The same in ONNX: `index` are the places, int64 (N, C, H * W), which is `flat`."""
        n, c = x.shape[:2]
        zeros = g.fill((n, c, height * width), 0)
        top = g.op("ScatterElements", zeros, index, g.reshape(x, flat), axis=2)
        return g.reshape(top, (n, c, height, width))

    def only(self, name: str) -> None:
        """Refuse fields of `name` that this fork lacks: another's layer may compute other things."""
        beyond = sorted(self.fields.get(name, {}))
        self.check(not beyond, f"{name} of another fork: {', '.join(beyond)} is not known here")


class Interp(_Resampled, bottoms=range(1, 3)):
    """Bilinear interpolation with the corners on the corners (interp_layer.cpp of DeepLab and PSPNet).

    Bottoms: (N, C, H, W); a second gives its H and W to the top. Top: (N, C, H', W'). `shrink_factor` makes
    one of so many positions, then `zoom_factor` puts so many less one between each two; `height` and `width`
    count only where not one of the two factors alone is given. Negative `pad_beg` and `pad_end` cut the
    bottom first.
    """

    fork = "DeepLab, PSPNet"
    shape_only = frozenset({1})

    def setup(self) -> None:
        p = self.param.interp_param
        self.only("interp_param")
        for name in ("pad_beg", "pad_end"):
            self.check(
                getattr(p, name) <= 0, f"{name} {getattr(p, name)} must not be positive: it only crops"
            )
        for name in ("zoom_factor", "shrink_factor"):
            self.check(getattr(p, name) >= 1, f"{name} {getattr(p, name)} must be at least 1")
        factor = p.HasField("zoom_factor") or p.HasField("shrink_factor")
        told = factor or (p.HasField("height") and p.HasField("width")) or len(self.param.bottom) > 1
        self.check(
            told, "the size of its top is missing", "give height and width, zoom_factor or shrink_factor"
        )

    def _cut(self, bottom: Shape) -> Shape:
        p = self.param.interp_param
        height, width = (n + p.pad_beg + p.pad_end for n in bottom[2:])
        self.check(
            height > 0 and width > 0, f"pad_beg {p.pad_beg} and pad_end {p.pad_end} leave nothing of {bottom}"
        )
        return (*bottom[:2], height, width)

    def _sizes(self, bottoms: Sequence[Shape]) -> tuple[Size, Size]:
        p = self.param.interp_param
        height, width = self._cut(bottoms[0])[2:]
        if len(bottoms) > 1:
            self.check(len(bottoms[1]) == 4, f"'{self.param.bottom[1]}' is {bottoms[1]}, not (N, C, H, W)")
            return bottoms[1][2], bottoms[1][3]
        shrink, zoom, told = (p.HasField(name) for name in ("shrink_factor", "zoom_factor", "height"))
        if told and p.HasField("width") and shrink == zoom:
            return p.height, p.width
        return self._scaled(height), self._scaled(width)

    def _scaled(self, n: Size) -> Size:
        p = self.param.interp_param
        return (ceil_div(n, p.shrink_factor) - 1) * p.zoom_factor + 1

    def forward(self, bottoms: Sequence[Array]) -> list[Array]:
        p, x = self.param.interp_param, bottoms[0]
        height, width = self._target([b.shape for b in bottoms])
        cut = [slice(-p.pad_beg, n + p.pad_end) for n in x.shape[2:]]
        return [resize.linear(x[:, :, cut[0], cut[1]], height, width, resize.aligned)]

    def to_onnx(self, g: Builder, bottoms: Sequence[Value]) -> list[str]:
        p, x = self.param.interp_param, str(bottoms[0])
        if p.pad_beg or p.pad_end:
            ends = [n + p.pad_end for n in bottoms[0].shape[2:]]
            x = g.op("Slice", x, g.ints([-p.pad_beg] * 2), g.ints(ends), g.ints([2, 3]))
        return [self._resize(g, bottoms, x, mode="linear", coordinate_transformation_mode="align_corners")]

    def coord_map(self) -> CoordMap | None:
        p = self.param.interp_param
        if len(self.param.bottom) > 1 or p.shrink_factor > 1 or not p.HasField("zoom_factor"):
            return None  # corners on corners: the scale depends on the size
        return CoordMap(1, [AxisMap(Fraction(p.zoom_factor), Fraction(p.pad_beg * p.zoom_factor))])


class Resize(_Resampled):
    """Bilinear interpolation with the first positions on each other; beyond the last there are zeros.

    Bottom: (N, C, H, W). Top: (N, C, `height`, `width`), or with `is_pyramid_test` H and W times
    `out_height_scale` and `out_width_scale`, cut to whole numbers (resize_layer.cpp of caffe-windows).
    """

    fork = "caffe-windows"

    def setup(self) -> None:
        p = self.param.resize_param
        self.only("resize_param")
        names = ("out_height_scale", "out_width_scale") if p.is_pyramid_test else ("height", "width")
        for name in names:
            value = getattr(p, name)
            self.check(
                p.HasField(name) and math.isfinite(value), f"{name} is {value if value else 'missing'}"
            )

    def _sizes(self, bottoms: Sequence[Shape]) -> tuple[Size, Size]:
        p, (_, _, h, w) = self.param.resize_param, bottoms[0]
        if not p.is_pyramid_test:
            return p.height, p.width
        return scaled(h, p.out_height_scale), scaled(w, p.out_width_scale)

    def forward(self, bottoms: Sequence[Array]) -> list[Array]:
        return [resize.linear(bottoms[0], *self._target([bottoms[0].shape]), resize.cornered)]

    def to_onnx(self, g: Builder, bottoms: Sequence[Value]) -> list[str]:
        (x,) = bottoms
        h, w = (fixed(n) for n in x.shape[2:])
        height, width = self._target([x.shape])
        rows = g.array(resize.matrix(resize.cornered(h, height), h))
        columns = g.array(resize.matrix(resize.cornered(w, width), w).T.copy())
        return [g.op("MatMul", rows, g.op("MatMul", x, columns))]


class DeephiResize(_Resampled):
    """Interpolation as cv::resize does it: bilinear with the pixels' centres on each other, or nearest.

    Bottom: (N, C, H, W). Top: (N, C, `new_height`, `new_width`), or H and W times `scale_h` and `scale_w`,
    cut to whole numbers. `use_dpu`, which works on bytes, is refused (deephi_resize_layer.cpp of
    caffe-xilinx).
    """

    fork = "caffe-xilinx"

    def setup(self) -> None:
        p = self.param.deephi_resize_param
        self.check(not p.use_dpu, "use_dpu: the arithmetic on bytes of a DPU is not computed here")
        for a, b in (("new_height", "new_width"), ("scale_h", "scale_w")):
            self.check(p.HasField(a) == p.HasField(b), f"one of {a} and {b} is missing", "give both, or none")
        self.check(math.isfinite(p.scale_h + p.scale_w), f"scale_h is {p.scale_h}, scale_w {p.scale_w}")

    def _sizes(self, bottoms: Sequence[Shape]) -> tuple[Size, Size]:
        p, (_, _, h, w) = self.param.deephi_resize_param, bottoms[0]
        if p.HasField("new_height"):
            return p.new_height, p.new_width
        return scaled(h, p.scale_h), scaled(w, p.scale_w)

    def forward(self, bottoms: Sequence[Array]) -> list[Array]:
        p, (x,) = self.param.deephi_resize_param, bottoms
        height, width = self._target([x.shape])
        if p.resize_type == p.NEAREST:
            rows, columns = (
                resize.nearest(*sizes) for sizes in zip(x.shape[2:], (height, width), strict=True)
            )
            return [x[:, :, rows][..., columns]]
        return [resize.linear(x, height, width, resize.centred)]

    def to_onnx(self, g: Builder, bottoms: Sequence[Value]) -> list[str]:
        p = self.param.deephi_resize_param
        if p.resize_type != p.NEAREST:
            return [self._resize(g, bottoms, mode="linear", coordinate_transformation_mode="half_pixel")]
        (x,) = bottoms
        if not p.HasField("new_height") and p.scale_h.is_integer() and p.scale_w.is_integer():
            return [self._resize(g, bottoms, **REPEAT)]
        top = str(x)
        for axis, out in zip((2, 3), self._target([x.shape]), strict=True):
            top = g.op("Gather", top, g.array(resize.nearest(fixed(x.shape[axis]), out)), axis=axis)
        return [top]


class Upsample(_Resampled, bottoms=range(1, 3)):
    """Make maps larger: by the positions of a pooling's maxima (SegNet), or by repeating each element (YOLO).

    Bottoms: (N, C, H, W); SegNet's second is the mask of a Pooling, and every element goes where the maximum
    stood, the rest is 0. Top: (N, C, `upsample_h`, `upsample_w`), or H and W times `scale`, or `scale_h` and
    `scale_w`; one less with `pad_out_h`, `pad_out_w` (upsample_layer.cpp of caffe-segnet; of MobileNet-YOLO).
    `variant` says which was taken: SegNet's if there are two bottoms. Its `scale` is 2 unless given, the
    other's 1.
    """

    fork = "SegNet, MobileNet-YOLO"

    def setup(self) -> None:
        p = self.param.upsample_param
        self.only("upsample_param")
        self.masked = len(self.param.bottom) == 2
        self.decides = self.masked  # the mask says which of two equals was the greater
        for a, b in (("upsample_h", "upsample_w"), ("scale_h", "scale_w")):
            self.check(p.HasField(a) == p.HasField(b), f"one of {a} and {b} is missing", "give both, or none")
        for what, pads, scale in zip("hw", (p.pad_out_h, p.pad_out_w), self._scales(), strict=True):
            self.check(scale > 0, f"scale {scale} must be positive")
            self.check(not pads or scale == 2, f"pad_out_{what} goes with a scale of 2 only, got {scale}")
        sized = p.HasField("upsample_h") or p.pad_out_h or p.pad_out_w
        self.check(
            self.masked or not sized, "upsample_h, upsample_w and pad_out go with a mask, the second bottom"
        )

    @property
    def variant(self) -> str:
        """Whose Upsample it is."""
        return "SegNet's Upsample, by a mask" if self.masked else "YOLO's Upsample, which repeats elements"

    def _scales(self) -> tuple[int, int]:
        p = self.param.upsample_param
        if p.HasField("scale_h"):
            return p.scale_h, p.scale_w
        return (p.scale if p.HasField("scale") else 2 if self.masked else 1,) * 2

    def _sizes(self, bottoms: Sequence[Shape]) -> tuple[Size, Size]:
        p, (_, _, h, w) = self.param.upsample_param, bottoms[0]
        if self.masked:
            names = self.param.bottom
            self.check(
                bottoms[0] == bottoms[1], f"'{names[0]}' is {bottoms[0]}, '{names[1]}' is {bottoms[1]}"
            )
        if p.HasField("upsample_h"):
            return p.upsample_h, p.upsample_w
        rows, columns = self._scales()
        return h * rows - int(p.pad_out_h), w * columns - int(p.pad_out_w)

    def forward(self, bottoms: Sequence[Array]) -> list[Array]:
        x = bottoms[0]
        if not self.masked:
            rows, columns = self._scales()
            return [x.repeat(rows, 2).repeat(columns, 3)]
        height, width = self._target([b.shape for b in bottoms])
        return [self._unpooled(x, bottoms[1], height, width, "upsample_h, upsample_w")]

    def to_onnx(self, g: Builder, bottoms: Sequence[Value]) -> list[str]:
        if not self.masked:
            return [self._resize(g, bottoms, **REPEAT)]
        x, mask = bottoms
        if self.param.upsample_param.HasField("upsample_h"):
            for size in x.shape[2:]:  # the mask's positions are those of one size
                fixed(size)
        n, c, height, width = self.reshape([b.shape for b in bottoms])[0]
        flat = (n, c, x.shape[2] * x.shape[3])
        return [self._scattered(g, x, g.cast(g.reshape(mask, flat), np.int64), flat, height, width)]


def scaled(n: Size, scale: float) -> Size:
    """The product cut to a whole number, in float32 as in C++; a formula if the scale has few bits."""
    factor = Fraction(scale)
    if factor.denominator <= 1 << 8:
        return n * factor.numerator // factor.denominator
    return int(np.float32(fixed(n)) * np.float32(scale))
