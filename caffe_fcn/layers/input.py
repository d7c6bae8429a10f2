"""Input. Semantics: src/caffe/layers/input_layer.cpp."""

from __future__ import annotations

from caffe_fcn.layers.base import Array, Builder, Layer, Sequence, Shape, Value


class Input(Layer, bottoms=0, tops=range(1, 1 << 31)):
    """Blobs that the user fills.

    Tops: of the shapes in `input_param`: one for each, one for all, or none, which leaves a blob without
    axes. The net feeds it and the exporter makes graph inputs of it, so that nothing is computed here.
    """

    def setup(self) -> None:
        shapes, tops = len(self.param.input_param.shape), len(self.param.top)
        self.check(
            shapes in (0, 1, tops), f"{shapes} shapes for {tops} tops", "give one for all, or one for each"
        )

    def reshape(self, bottoms: Sequence[Shape]) -> list[Shape]:
        shapes = [tuple(shape.dim) for shape in self.param.input_param.shape] or [()]
        return shapes * len(self.param.top) if len(shapes) == 1 else shapes

    def forward(self, bottoms: Sequence[Array]) -> list[Array]:
        self.check(False, "is fed by the user and computes nothing", "start the forward pass behind it")
        return []

    def to_onnx(self, g: Builder, bottoms: Sequence[Value]) -> list[str]:
        return [
            g.input(name, shape).name for name, shape in zip(self.param.top, self.reshape([]), strict=True)
        ]
