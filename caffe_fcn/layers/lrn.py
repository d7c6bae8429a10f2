"""LRN. Semantics: src/caffe/layers/lrn_layer.cpp."""

from __future__ import annotations

from caffe_fcn.layers.base import Array, Builder, Layer, Sequence, Shape, Value, Window, np
from caffe_fcn.numeric.lrn import across_channels, within_channel


class LRN(Layer):
    """Divide each element by a power of its neighbourhood's sum of squares.

    Bottom: (N, C, H, W). Top: the same. The neighbourhood is `local_size` channels at one pixel, or, with
    WITHIN_CHANNEL, local_size x local_size pixels of one channel; there `k` is not read, Caffe takes 1.
    """

    pointwise = True

    def setup(self) -> None:
        p = self.param.lrn_param
        self.check(p.local_size % 2 == 1, f"local_size {p.local_size} is even", "take an odd one")
        self.within = p.norm_region == p.WITHIN_CHANNEL

    def reshape(self, bottoms: Sequence[Shape]) -> list[Shape]:
        self.check(len(bottoms[0]) == 4, f"needs 4 axes (N, C, H, W), got {bottoms[0]}")
        return [bottoms[0]]

    def forward(self, bottoms: Sequence[Array]) -> list[Array]:
        (x,), p = bottoms, self.param.lrn_param
        with np.errstate(all="ignore"):
            if self.within:
                return [within_channel(x, p.local_size, p.alpha, p.beta)]
            return [across_channels(x, p.local_size, p.alpha, p.beta, p.k)]

    def to_onnx(self, g: Builder, bottoms: Sequence[Value]) -> list[str]:
        (x,), p = bottoms, self.param.lrn_param
        if not self.within and p.alpha > 0 and p.beta > 0:  # onnxruntime takes no others
            return [g.op("LRN", x, size=p.local_size, alpha=p.alpha, beta=p.beta, bias=p.k)]
        squares, channels = g.op("Mul", x, x), g.ints([1])
        if self.within:
            mean = self._mean(g, squares, [p.local_size] * 2)
        else:
            volume = self._mean(g, g.op("Unsqueeze", squares, channels), [p.local_size, 1, 1])
            mean = g.op("Squeeze", volume, channels)
        scale = g.op("Add", g.op("Mul", mean, g.scalar(p.alpha)), g.scalar(1 if self.within else p.k))
        return [g.op("Mul", x, g.op("Pow", scale, g.scalar(-p.beta)))]

    @staticmethod
    def _mean(g: Builder, x: str, kernel: Sequence[int]) -> str:
        pads = [(size - 1) // 2 for size in kernel]
        return g.op("AveragePool", x, kernel_shape=list(kernel), pads=pads * 2, count_include_pad=1)

    def windows(self, bottoms: Sequence[Shape]) -> list[Window]:
        size = self.param.lrn_param.local_size
        return [Window(size, 1, (size - 1) // 2)] * (len(bottoms[0]) - 2) if self.within else []
