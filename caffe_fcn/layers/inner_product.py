"""InnerProduct. Semantics: src/caffe/layers/inner_product_layer.cpp."""

from __future__ import annotations

from math import prod

from caffe_fcn.layers.base import Array, Builder, Layer, Parameter, Sequence, Shape, Size, Value
from caffe_fcn.numeric.blas import inner_product
from caffe_fcn.symbols import fixed, product


class InnerProduct(Layer):
    """Products of num_output weight vectors with everything from `axis` on (a fully connected layer).

    Bottom: any shape. Top: bottom's extents before `axis`, then num_output. Weights: (num_output, elements
    from `axis` on), or the other way round with `transpose`.
    """

    def setup(self) -> None:
        n = self.param.inner_product_param.num_output
        self.check(n > 0, f"num_output {n} must be positive")

    def _split(self, bottom: Shape) -> tuple[Shape, Size]:
        """The extents before `axis`, and the number of elements from there on."""
        axis = self.axis(self.param.inner_product_param.axis, len(bottom))
        return bottom[:axis], product(bottom[axis:])

    def parameters(self, bottoms: Sequence[Shape]) -> list[Parameter]:
        p, length = self.param.inner_product_param, fixed(self._split(bottoms[0])[1])
        shape = (length, p.num_output) if p.transpose else (p.num_output, length)
        weight = Parameter("weight", shape, p.weight_filler)
        return [weight, *([Parameter("bias", (p.num_output,), p.bias_filler)] if p.bias_term else [])]

    def reshape(self, bottoms: Sequence[Shape]) -> list[Shape]:
        (bottom,), p = bottoms, self.param.inner_product_param
        outer, length = self._split(bottom)
        if self.blobs:
            want = self.blobs[0].shape[0 if p.transpose else 1]
            self.check(
                length == want,
                f"its weights are for {want} elements, {bottom} has {length} from axis {len(outer)} on",
                "a fully connected layer takes inputs of one size; give that, or make it a Convolution",
            )
        return [(*outer, p.num_output)]

    def forward(self, bottoms: Sequence[Array]) -> list[Array]:
        (x,), p = bottoms, self.param.inner_product_param
        outer, length = self._split(x.shape)
        weight, *bias = self.weights
        top = inner_product(x.reshape(prod(outer), length), weight if p.transpose else weight.T)
        if bias:
            top += bias[0]
        return [top.reshape(*outer, p.num_output)]

    def to_onnx(self, g: Builder, bottoms: Sequence[Value]) -> list[str]:
        (bottom,), p = bottoms, self.param.inner_product_param
        outer, length = self._split(bottom.shape)
        fixed(length)
        flat = len(outer) == 1 and len(bottom.shape) == 2
        x = bottom if flat else g.op("Flatten", bottom, axis=len(outer))
        learned = [g.param(blob, name) for blob, name in zip(self.blobs, ("weight", "bias"), strict=False)]
        y = g.op("Gemm", x, *learned, transB=int(not p.transpose))
        return [y if len(outer) == 1 else g.reshape(y, (*outer, p.num_output))]

    def macs(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> Size:
        return product(bottoms[0]) * self.param.inner_product_param.num_output
