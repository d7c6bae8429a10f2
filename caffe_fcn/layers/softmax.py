"""Softmax. Semantics: src/caffe/layers/softmax_layer.cpp."""

from __future__ import annotations

from caffe_fcn.layers.base import Array, Builder, Layer, Sequence, Shape, Value
from caffe_fcn.numeric.softmax import softmax


class Softmax(Layer):
    """exp(x), divided by its sum along `axis`: scores to probabilities.

    Bottom: any shape. Top: the same.
    """

    pointwise = True

    def _axis(self, bottom: Shape) -> int:
        return self.axis(self.param.softmax_param.axis, len(bottom))

    def reshape(self, bottoms: Sequence[Shape]) -> list[Shape]:
        self._axis(bottoms[0])
        return [bottoms[0]]

    def forward(self, bottoms: Sequence[Array]) -> list[Array]:
        return [softmax(bottoms[0], self._axis(bottoms[0].shape))]

    def to_onnx(self, g: Builder, bottoms: Sequence[Value]) -> list[str]:
        return [g.op("Softmax", bottoms[0], axis=self._axis(bottoms[0].shape))]
