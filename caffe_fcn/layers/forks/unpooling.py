"""Unpooling, of DeconvNet: every element goes where the maximum of its window stood."""

from __future__ import annotations

from caffe_fcn.layers.base import Array, Builder, Sequence, Shape, Size, Value, fixed, np
from caffe_fcn.layers.forks.resize import _Resampled


class Unpooling(_Resampled, bottoms=range(1, 3)):
    """Make maps larger again after a Pooling: each element to one place, 0 elsewhere.

    Bottoms: (N, C, H, W), and the mask of the Pooling, which says the places; without it an element goes to
    the first of its window. Top: (N, C, H', W'), `unpool_size` or `unpool_h` and `unpool_w`, else the larger
    of (H - 1) * stride + kernel and H * stride + 1. Only `unpool: MAX` (unpooling_layer.cpp of HyeonwooNoh's
    Caffe).
    """

    fork = "DeconvNet"

    def setup(self) -> None:
        p = self.param.unpooling_param
        self.masked = len(self.param.bottom) == 2
        self.decides = self.masked
        self.check(p.unpool == p.MAX, "only unpool: MAX is known")
        self.check(p.HasField("unpool_h") == p.HasField("unpool_w"), "unpool_h or unpool_w is missing")
        self.check(max(p.pad, p.pad_h, p.pad_w) == 0, "a pad is not allowed, in Caffe neither")
        kernel, stride = self.pair(p, "kernel_size", "kernel_h", "kernel_w"), self.pair(p, "stride")
        self.check(min(*kernel, *stride) > 0, f"kernel {kernel} and stride {stride} must be positive")

    def _sizes(self, bottoms: Sequence[Shape]) -> tuple[Size, Size]:
        p = self.param.unpooling_param
        if self.masked:
            told = f"its bottom is {bottoms[0]}, the mask {bottoms[1]}"
            self.check(tuple(bottoms[0]) == tuple(bottoms[1]), told)
        if p.HasField("unpool_size") or p.HasField("unpool_h"):
            return self.pair(p, "unpool_size", "unpool_h", "unpool_w")
        kernel, stride = self.pair(p, "kernel_size", "kernel_h", "kernel_w"), self.pair(p, "stride")
        height, width = (
            n * s + max(k - s, 1) for n, k, s in zip(bottoms[0][2:], kernel, stride, strict=True)
        )
        return height, width

    def _places(self, height: int, width: int, bottom: Shape) -> Array:
        """The place in its channel of each element, if no mask tells."""
        strides = self.pair(self.param.unpooling_param, "stride")
        sizes = zip(bottom[2:], strides, (height, width), strict=True)
        rows, columns = (np.minimum(np.arange(fixed(n)) * s, end - 1) for n, s, end in sizes)
        return (rows[:, None] * width + columns).astype(np.float32)

    def forward(self, bottoms: Sequence[Array]) -> list[Array]:
        x = bottoms[0]
        height, width = self._target([b.shape for b in bottoms])
        places = bottoms[1] if self.masked else np.broadcast_to(self._places(height, width, x.shape), x.shape)
        return [self._unpooled(x, places, height, width, "unpool_h, unpool_w")]

    def to_onnx(self, g: Builder, bottoms: Sequence[Value]) -> list[str]:
        x = bottoms[0]
        height, width = self._target([b.shape for b in bottoms])
        flat = (*x.shape[:2], fixed(x.shape[2]) * fixed(x.shape[3]))
        if self.masked:
            index = g.cast(g.reshape(bottoms[1], flat), np.int64)
        else:
            places = self._places(height, width, x.shape).reshape(1, 1, -1).astype(np.int64)
            index = g.op("Expand", g.array(places), g.ints(flat))
        return [self._scattered(g, x, index, flat, height, width)]
