"""Embed. Semantics: src/caffe/layers/embed_layer.cpp."""

from __future__ import annotations

from caffe_fcn.layers.base import Array, Builder, Layer, Parameter, Sequence, Shape, Value, np


class Embed(Layer):
    """The row of the weights that each element of the bottom names.

    Bottom: any shape, numbers from 0 to input_dim - 1; a fraction is cut off. Top: bottom's shape, then
    num_output. Weights: (input_dim, num_output). Caffe reads any memory for another number, we refuse it.
    """

    def setup(self) -> None:
        p = self.param.embed_param
        for name, n in (("num_output", p.num_output), ("input_dim", p.input_dim)):
            self.check(n > 0, f"{name} {n} must be positive")

    def parameters(self, bottoms: Sequence[Shape]) -> list[Parameter]:
        p = self.param.embed_param
        weight = Parameter("weight", (p.input_dim, p.num_output), p.weight_filler)
        return [weight, *([Parameter("bias", (p.num_output,), p.bias_filler)] if p.bias_term else [])]

    def reshape(self, bottoms: Sequence[Shape]) -> list[Shape]:
        return [(*bottoms[0], self.param.embed_param.num_output)]

    def forward(self, bottoms: Sequence[Array]) -> list[Array]:
        rows, (weight, *bias) = np.trunc(bottoms[0]), self.weights
        wrong = rows[~((rows >= 0) & (rows < len(weight)))]
        self.check(
            wrong.size == 0,
            f"its bottom holds {float(wrong[0]) if wrong.size else ''}, input_dim is {len(weight)}",
        )
        top = weight[rows.astype(np.int64)]
        return [top + bias[0] if bias else top]

    def to_onnx(self, g: Builder, bottoms: Sequence[Value]) -> list[str]:
        top = g.op("Gather", g.param(self.blobs[0], "weight"), g.cast(bottoms[0], np.int64))
        return [g.op("Add", top, g.param(self.blobs[1], "bias")) if len(self.blobs) == 2 else top]

    def sample(self, i: int, bottoms: Sequence[Shape], rng: np.random.Generator) -> Array | None:
        return rng.integers(0, self.param.embed_param.input_dim, bottoms[0])
