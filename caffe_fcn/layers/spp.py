"""SPP, spatial pyramid pooling. Semantics: src/caffe/layers/spp_layer.cpp."""

from __future__ import annotations

from caffe_fcn.geometry import ceil_div
from caffe_fcn.layers.base import Array, Builder, Layer, Sequence, Shape, Size, Value, fixed, np
from caffe_fcn.layers.pooling import Pooling


class SPP(Layer):
    """Pool into 1x1, 2x2, 4x4 ... bins, whatever the input's size, and line the bins up.

    Bottom: (N, C, H, W). Top: (N, C * (1 + 4 + 16 ...)), one term for each of `pyramid_height` levels; (N, C,
    1, 1) if there is one level only. Each level is a Pooling whose windows lie side by side.
    """

    def setup(self) -> None:
        p = self.param.spp_param
        self.check(p.HasField("pyramid_height"), "pyramid_height is missing")
        self.check(0 < p.pyramid_height <= 16, f"pyramid_height {p.pyramid_height} must be from 1 to 16")

    def _pool(self, level: int, h: int, w: int) -> Pooling:
        """The pooling of one level: 2**level bins along either axis."""
        p, bins = (
            type(self.param)(name=self.name, type="Pooling", bottom=self.param.bottom, top=["level"]),
            2**level,
        )
        p.pooling_param.pool = self.param.spp_param.pool  # both enums number MAX, AVE, STOCHASTIC alike
        for axis, size in (("h", h), ("w", w)):
            kernel = ceil_div(size, bins)
            pad = (kernel * bins - size + 1) // 2
            self.check(
                pad < kernel,
                f"level {level} makes {bins} bins of {size} pixels: pad {pad} reaches the kernel {kernel}",
                "give a larger input, or a lower pyramid_height",
            )
            for name, value in (("kernel", kernel), ("stride", kernel), ("pad", pad)):
                setattr(p.pooling_param, f"{name}_{axis}", value)
        return Pooling(p, self.where)

    def _pools(self, bottom: Shape) -> list[Pooling]:
        self.check(
            len(bottom) == 4 and min(bottom[2:]) > 0,
            f"needs 4 axes (N, C, H, W), none of them 0, got {bottom}",
        )
        h, w = (fixed(n) for n in bottom[2:])
        return [self._pool(level, h, w) for level in range(self.param.spp_param.pyramid_height)]

    def reshape(self, bottoms: Sequence[Shape]) -> list[Shape]:
        tops = [pool.reshape(bottoms)[0] for pool in self._pools(bottoms[0])]
        if len(tops) == 1:
            return tops
        bins: Size = sum(fixed(h) * fixed(w) for _, _, h, w in tops)
        return [(bottoms[0][0], bottoms[0][1] * bins)]

    def forward(self, bottoms: Sequence[Array]) -> list[Array]:
        tops = [pool.forward(bottoms)[0] for pool in self._pools(bottoms[0].shape)]
        if len(tops) == 1:
            return tops
        return [np.concatenate([top.reshape(len(top), top[:1].size) for top in tops], axis=1)]

    def to_onnx(self, g: Builder, bottoms: Sequence[Value]) -> list[str]:
        tops = [pool.to_onnx(g, bottoms)[0] for pool in self._pools(bottoms[0].shape)]
        if len(tops) == 1:
            return tops
        return [g.op("Concat", *(g.op("Flatten", top, axis=1) for top in tops), axis=1)]
