"""Eltwise. Semantics: src/caffe/layers/eltwise_layer.cpp."""

from __future__ import annotations

from functools import reduce

from caffe_fcn.layers.base import Array, Builder, Layer, Sequence, Shape, Value, np


class Eltwise(Layer, bottoms=range(2, 1 << 31)):
    """Product, weighted sum or maximum of blobs, element by element.

    Bottoms: two or more of one shape. Top: the same. A `coeff` of 0 leaves its bottom out of the SUM, NaN and
    all, as BLAS does.
    """

    pointwise = True

    def setup(self) -> None:
        p, n = self.param.eltwise_param, len(self.param.bottom)
        self.check(len(p.coeff) in (0, n), f"{len(p.coeff)} coeff for {n} bottoms", "give one for each")
        self.check(p.operation == p.SUM or not p.coeff, "only SUM takes coeff")

    def reshape(self, bottoms: Sequence[Shape]) -> list[Shape]:
        for name, shape in zip(self.param.bottom, bottoms, strict=True):
            told = f"'{self.param.bottom[0]}' is {bottoms[0]}, '{name}' is {shape}"
            self.check(tuple(shape) == tuple(bottoms[0]), told)
        return [bottoms[0]]

    def _coefficients(self, n: int) -> list[float]:
        return list(self.param.eltwise_param.coeff) or [1.0] * n

    def forward(self, bottoms: Sequence[Array]) -> list[Array]:
        p = self.param.eltwise_param
        if p.operation == p.PROD:
            return [reduce(np.multiply, bottoms)]
        if p.operation == p.MAX:  # not np.maximum: a NaN loses against what came first, and wins as second
            first, second, *rest = bottoms
            top = np.where(first > second, first, second)
            return [reduce(lambda top, x: np.where(x > top, x, top), rest, top)]
        pairs = zip(bottoms, self._coefficients(len(bottoms)), strict=True)
        terms = [x if c == 1 else np.float32(c) * x for x, c in pairs if c]
        return [reduce(np.add, terms) if terms else np.zeros_like(bottoms[0])]

    def to_onnx(self, g: Builder, bottoms: Sequence[Value]) -> list[str]:
        p = self.param.eltwise_param
        if p.operation == p.PROD:
            return [reduce(lambda a, b: g.op("Mul", a, b), map(str, bottoms))]
        if p.operation == p.MAX:
            return [g.op("Max", *bottoms)]
        coefficients = self._coefficients(len(bottoms))
        if len(bottoms) > 2 and set(coefficients) == {1.0}:
            return [g.op("Sum", *bottoms)]
        top = ""
        for x, c in zip(bottoms, coefficients, strict=True):
            if c == 0:
                continue
            if top and c in (1, -1):
                top = g.op("Add" if c == 1 else "Sub", top, x)
            else:
                term = str(x) if c == 1 else g.op("Mul", x, g.scalar(c))
                top = g.op("Add", top, term) if top else term
        return [top or g.fill(bottoms[0].shape, 0.0)]
