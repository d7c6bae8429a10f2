"""Parameter. Semantics: include/caffe/layers/parameter_layer.hpp."""

from __future__ import annotations

from caffe_fcn.layers import base
from caffe_fcn.layers.base import Array, Builder, Layer, Sequence, Shape, Value


class Parameter(Layer, bottoms=0):
    """A learned blob as a top.

    Top: `parameter_param.shape`, the values of the layer's only parameter.
    """

    def parameters(self, bottoms: Sequence[Shape]) -> list[base.Parameter]:
        return [base.Parameter("value", tuple(self.param.parameter_param.shape.dim))]

    def reshape(self, bottoms: Sequence[Shape]) -> list[Shape]:
        return [tuple(self.param.parameter_param.shape.dim)]

    def forward(self, bottoms: Sequence[Array]) -> list[Array]:
        return [
            self.weights[0].copy()
        ]  # a layer that works in place on the top must not change what was learned

    def to_onnx(self, g: Builder, bottoms: Sequence[Value]) -> list[str]:
        return [g.param(self.blobs[0], "value")]
