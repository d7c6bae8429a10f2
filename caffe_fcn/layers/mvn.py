"""MVN. Semantics: src/caffe/layers/mvn_layer.cpp."""

from __future__ import annotations

from caffe_fcn.layers.base import Array, Builder, Layer, Sequence, Shape, Value, np


class MVN(Layer):
    """Subtract the mean of each channel of each item, and divide by its standard deviation plus `eps`.

    Bottom: (N, C, H, W), or fewer axes. Top: (N, C, H, W), axes that the bottom lacks being 1. Statistics
    are of all channels together with `across_channels`; `normalize_variance: false` leaves out the division.
    """

    pointwise = True

    def reshape(self, bottoms: Sequence[Shape]) -> list[Shape]:
        (bottom,) = bottoms
        self.check(len(bottom) <= 4, f"takes at most 4 axes (N, C, H, W), got {bottom}")
        return [(*bottom, *(1,) * (4 - len(bottom)))]

    def _axes(self) -> tuple[int, ...]:
        return (1, 2, 3) if self.param.mvn_param.across_channels else (2, 3)

    def forward(self, bottoms: Sequence[Array]) -> list[Array]:
        (x,), p, axes = bottoms, self.param.mvn_param, self._axes()
        x = x.reshape(*x.shape, *(1,) * (4 - x.ndim))
        with np.errstate(all="ignore"):
            top = x - x.mean(axes, keepdims=True)
            if p.normalize_variance:
                top /= np.sqrt(np.square(top).mean(axes, keepdims=True)) + np.float32(p.eps)
        return [top]

    def to_onnx(self, g: Builder, bottoms: Sequence[Value]) -> list[str]:
        (x,), p, axes = bottoms, self.param.mvn_param, self._axes()
        rank = len(x.shape)
        four = str(x) if rank == 4 else g.op("Unsqueeze", x, g.ints(range(rank, 4)))
        top = g.op("Sub", four, g.reduce("ReduceMean", four, axes))
        if p.normalize_variance:
            deviation = g.op("Sqrt", g.reduce("ReduceMean", g.op("Mul", top, top), axes))
            top = g.op("Div", top, g.op("Add", deviation, g.scalar(p.eps)))
        return [top]
