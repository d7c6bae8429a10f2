"""Reduction. Semantics: src/caffe/layers/reduction_layer.cpp."""

from __future__ import annotations

from caffe_fcn.layers.base import Array, Builder, Layer, Sequence, Shape, Value, np, product


class Reduction(Layer):
    """One number for everything from `axis` on: SUM, ASUM (of absolute values), SUMSQ (of squares) or MEAN.

    Bottom: any shape. Top: its axes in front of `axis` (default 0: none, a scalar). Multiplied by `coeff`.
    """

    def _axis(self, bottom: Shape) -> int:
        return self.axis(self.param.reduction_param.axis, len(bottom))

    def reshape(self, bottoms: Sequence[Shape]) -> list[Shape]:
        return [bottoms[0][: self._axis(bottoms[0])]]

    def forward(self, bottoms: Sequence[Array]) -> list[Array]:
        (x,), p = bottoms, self.param.reduction_param
        axes = tuple(range(self._axis(x.shape), x.ndim))
        terms = np.abs(x) if p.operation == p.ASUM else x * x if p.operation == p.SUMSQ else x
        top = np.float32(p.coeff) * terms.sum(axes, dtype=np.float32)
        if p.operation != p.MEAN:
            return [top]
        with np.errstate(invalid="ignore"):  # 0/0, the mean of nothing, is Caffe's answer too
            return [top / np.float32(product(x.shape[axes[0] :]))]

    def to_onnx(self, g: Builder, bottoms: Sequence[Value]) -> list[str]:
        (x,), p = bottoms, self.param.reduction_param
        op = {p.SUM: "ReduceSum", p.ASUM: "ReduceL1", p.SUMSQ: "ReduceSumSquare", p.MEAN: "ReduceMean"}[
            p.operation
        ]
        top = g.reduce(op, x, range(self._axis(x.shape), len(x.shape)), keepdims=False)
        return [top if p.coeff == 1 else g.op("Mul", top, g.scalar(p.coeff))]
