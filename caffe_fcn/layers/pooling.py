"""Pooling. Semantics: src/caffe/layers/pooling_layer.cpp."""

from __future__ import annotations

from typing import Any

from caffe_fcn.geometry import PoolAxis
from caffe_fcn.layers.base import (
    Array,
    AxisMap,
    Builder,
    CoordMap,
    Layer,
    Sequence,
    Shape,
    Value,
    Window,
    fixed,
    np,
)  # fmt: skip
from caffe_fcn.numeric.pool import pool_argmax, pool_max, pool_sum


class Pooling(Layer, tops=range(1, 3)):
    """Maximum or average of kernel_h x kernel_w windows, stride_h x stride_w apart.

    Bottom: (N, C, H, W). Top: (N, C, H', W'); H' rounds up unless `round_mode: FLOOR`.
    AVE divides by the window's area inside the padded input, not inside the input.
    A second top of MAX holds the position h * W + w of each maximum in its channel.
    """

    def setup(self) -> None:
        p = self.param.pooling_param
        self.check(p.pool != p.STOCHASTIC, "STOCHASTIC pooling is not implemented in Caffe's CPU code")
        sized = p.HasField("kernel_size") + (p.HasField("kernel_h") and p.HasField("kernel_w"))
        self.check(sized != p.global_pooling, "give kernel_size, or kernel_h and kernel_w, or global_pooling")
        self.maximum = p.pool == p.MAX
        self.check(self.maximum or len(self.param.top) < 2, "only MAX has a second top, the mask")
        if p.global_pooling:
            plain = self.pair(p, "stride") == (1, 1) and self.pair(p, "pad") == (0, 0)
            self.check(plain, "global_pooling takes pad 0 and stride 1 only")
            return
        for kernel, stride, pad in zip(*self._sizes(), strict=True):
            self.check(kernel > 0 and stride > 0, f"kernel {kernel} and stride {stride} must be positive")
            self.check(pad < kernel, f"pad {pad} must be less than the kernel {kernel}")

    def _sizes(self) -> tuple[tuple[int, int], ...]:
        p = self.param.pooling_param
        return (
            self.pair(p, "kernel_size", "kernel_h", "kernel_w"),
            self.pair(p, "stride"),
            self.pair(p, "pad"),
        )

    def _axes(self, bottom: Shape) -> list[PoolAxis]:
        """The windows along H and W; a global one covers the whole, whatever its size."""
        p = self.param.pooling_param
        self.check(len(bottom) == 4, f"needs 4 axes (N, C, H, W), got {bottom}")
        if p.global_pooling:
            return [PoolAxis(fixed(n), fixed(n), 1, 0, False) for n in bottom[2:]]
        up = p.round_mode == p.CEIL and p.ceil_mode  # `ceil_mode: false` is what forks say for FLOOR
        axes = [PoolAxis(n, k, s, pad, up) for n, k, s, pad in zip(bottom[2:], *self._sizes(), strict=True)]
        for axis in axes:
            self.check(
                axis.out >= 1,
                f"no window of {axis.kernel} begins in an input of {axis.size} with pad {axis.pad}",
            )
        return axes

    def reshape(self, bottoms: Sequence[Shape]) -> list[Shape]:
        if self.param.pooling_param.global_pooling:
            self.check(len(bottoms[0]) == 4, f"needs 4 axes (N, C, H, W), got {bottoms[0]}")
            return [(*bottoms[0][:2], 1, 1)] * len(self.param.top)
        return [(*bottoms[0][:2], *(a.out for a in self._axes(bottoms[0])))] * len(self.param.top)

    def forward(self, bottoms: Sequence[Array]) -> list[Array]:
        h, w = self._axes(bottoms[0].shape)
        if not self.maximum:
            with np.errstate(invalid="ignore"):  # 0/0 in an empty window is Caffe's answer too
                return [pool_sum(bottoms[0], h, w) / np.outer(h.counts, w.counts).astype(np.float32)]
        if len(self.param.top) == 2:
            return list(pool_argmax(bottoms[0], h, w))
        return [pool_max(bottoms[0], h, w)]

    def to_onnx(self, g: Builder, bottoms: Sequence[Value]) -> list[str]:
        (bottom,) = bottoms
        if self.param.pooling_param.global_pooling and len(self.param.top) == 1:
            return [g.op("GlobalMaxPool" if self.maximum else "GlobalAveragePool", bottom)]
        h, w = self._axes(bottom.shape)
        if h.empty or w.empty:
            self.unsupported(
                "its last window lies wholly outside the input, where Caffe gives -FLT_MAX or 0/0",
                "pad the input, or give a size at which the windows end inside it",
            )
        windows: dict[str, Any] = {
            "kernel_shape": [h.kernel, w.kernel],
            "strides": [h.stride, w.stride],
            "pads": [h.pad, w.pad, h.fit, w.fit],
        }
        if not self.maximum:
            average = g.op("AveragePool", bottom, count_include_pad=1, **windows)
            return [average if h.whole and w.whole else self._recount(g, average, h, w, windows)]
        if len(self.param.top) == 1:
            return [g.op("MaxPool", bottom, **windows)]
        top, index = g.op("MaxPool", bottom, outputs=2, **windows)
        # ONNX counts positions through the whole tensor, Caffe through one channel
        plane = g.size(bottom.shape[2] * bottom.shape[3])
        return [top, g.cast(g.op("Mod", index, plane))]

    @staticmethod
    def _recount(g: Builder, average: str, h: PoolAxis, w: PoolAxis, windows: dict[str, Any]) -> str:
        """Divide by the share of each window that counts: the mean of ones over the padded input."""
        ones = g.fill((1, 1, h.size + 2 * h.pad, w.size + 2 * w.pad), 1.0)
        beyond = [0, 0, h.fit - h.pad, w.fit - w.pad]
        share = g.op("AveragePool", ones, count_include_pad=1, **{**windows, "pads": beyond})
        return g.op("Div", average, share)

    def windows(self, bottoms: Sequence[Shape]) -> list[Window]:
        if self.param.pooling_param.global_pooling:
            return [Window(fixed(n)) for n in bottoms[0][2:]]
        return [Window(*axis) for axis in zip(*self._sizes(), strict=True)]

    def coord_map(self) -> CoordMap | None:
        if self.param.pooling_param.global_pooling:
            return None
        return CoordMap(1, [AxisMap.of(Window(*axis)) for axis in zip(*self._sizes(), strict=True)])
