"""Bias, and what it has in common with Scale. Semantics: src/caffe/layers/bias_layer.cpp."""

from __future__ import annotations

from typing import Any

from caffe_fcn.layers.base import Array, Builder, Layer, Parameter, Sequence, Shape, Value, fixed


class _Along(Layer, bottoms=range(1, 3)):
    """An operand that lies along the axes from `axis` on and repeats over the others: learned, or bottom 1.

    `num_axes` says how many axes a learned one has: -1 all of the rest, 0 none, a single number.
    """

    pointwise = True

    along: Any  # the message with `axis` and `num_axes`

    def _operand(self, bottoms: Sequence[Shape]) -> Shape:
        """The operand's shape, before there is one."""
        if len(bottoms) == 2:
            return bottoms[1]
        p, (bottom,) = self.along, bottoms
        axis = self.axis(p.axis, len(bottom))
        self.check(p.num_axes >= -1, f"num_axes {p.num_axes} is neither -1 nor a number of axes")
        end = len(bottom) if p.num_axes == -1 else axis + p.num_axes
        self.check(end <= len(bottom), f"axes {axis} to {end - 1} are not all in its bottom, {bottom}")
        return bottom[axis:end]

    def _place(self, bottom: Shape, operand: Shape) -> tuple[int, int]:
        """The axes (start, end) of bottom that the operand lies along; `axis` says nothing about a scalar."""
        start = self.axis(self.along.axis, len(bottom)) if operand else 0
        end = start + len(operand)
        fits = tuple(bottom[start:end]) == tuple(operand)
        self.check(fits, f"an operand of {tuple(operand)} does not fit axes {start} to {end - 1} of {bottom}")
        return start, end

    def reshape(self, bottoms: Sequence[Shape]) -> list[Shape]:
        for operand in [*bottoms[1:], *(blob.shape for blob in self.blobs)]:
            self._place(bottoms[0], operand)
        return [bottoms[0]]

    def _spread(self, bottom: Shape, operand: Array) -> Array:
        """The operand with an axis of 1 for each of bottom's behind it."""
        end = self._place(bottom, operand.shape)[1]
        return operand.reshape((*operand.shape, *(1,) * (len(bottom) - end)))

    def _given(self, g: Builder, bottom: Value, operand: Value) -> str:
        """Bottom 1, so that it spreads over bottom 0."""
        behind = range(len(operand.shape), len(bottom.shape) - self._place(bottom.shape, operand.shape)[0])
        return g.op("Unsqueeze", operand, g.ints(behind)) if operand.shape and behind else str(operand)

    def _learned(self, g: Builder, bottom: Value, index: int, name: str) -> str:
        """Blob `index`, so that it spreads over bottom 0, whose axes along it have to stay as they are."""
        start, end = self._place(bottom.shape, self.blobs[index].shape)
        for n in bottom.shape[start:end]:
            fixed(n)
        return g.param(self.blobs[index], name, self._spread(bottom.shape, self.weights[index]))


class Bias(_Along):
    """Add an operand that lies along some of the axes: learned, or the second bottom.

    Bottoms: data of any shape; optionally the operand, of data's extents from `axis` on. Top: as data.
    """

    def setup(self) -> None:
        self.along = self.param.bias_param

    def parameters(self, bottoms: Sequence[Shape]) -> list[Parameter]:
        learned = len(bottoms) == 1
        return [Parameter("bias", self._operand(bottoms), self.along.filler)] if learned else []

    def forward(self, bottoms: Sequence[Array]) -> list[Array]:
        data, operand = bottoms if len(bottoms) == 2 else (bottoms[0], self.weights[0])
        return [data + self._spread(data.shape, operand)]

    def to_onnx(self, g: Builder, bottoms: Sequence[Value]) -> list[str]:
        data, *given = bottoms
        operand = self._given(g, data, given[0]) if given else self._learned(g, data, 0, "bias")
        return [g.op("Add", data, operand)]
