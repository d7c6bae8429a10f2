"""Scale. Semantics: src/caffe/layers/scale_layer.cpp."""

from __future__ import annotations

from caffe_fcn.layers.base import Array, Builder, Parameter, Sequence, Shape, Value
from caffe_fcn.layers.bias import _Along


class Scale(_Along):
    """Multiply by an operand that lies along some of the axes: learned, or the second bottom.

    Bottoms: data of any shape; optionally the operand, of data's extents from `axis` on. Top: as data.
    A learned operand starts at 1, the bias, which is always learned and has the operand's shape, at 0.
    """

    def setup(self) -> None:
        self.along = self.param.scale_param

    def parameters(self, bottoms: Sequence[Shape]) -> list[Parameter]:
        p, shape = self.along, self._operand(bottoms)
        filler = p.filler if p.HasField("filler") else type(p.filler)(type="constant", value=1)
        scale = [Parameter("scale", shape, filler)] if len(bottoms) == 1 else []
        return [*scale, *([Parameter("bias", shape, p.bias_filler)] if p.bias_term else [])]

    def forward(self, bottoms: Sequence[Array]) -> list[Array]:
        data, operand = bottoms if len(bottoms) == 2 else (bottoms[0], self.weights[0])
        top = data * self._spread(data.shape, operand)
        if self.along.bias_term:
            top += self._spread(data.shape, self.weights[-1])
        return [top]

    def to_onnx(self, g: Builder, bottoms: Sequence[Value]) -> list[str]:
        data, *given = bottoms
        operand = self._given(g, data, given[0]) if given else self._learned(g, data, 0, "scale")
        top = g.op("Mul", data, operand)
        return [g.op("Add", top, self._learned(g, data, -1, "bias")) if self.along.bias_term else top]
