"""Functions of each element that forks added: ReLU6, Mish, HardSwish, Noise, SpatialDropout; and Axpy."""

from __future__ import annotations

from caffe_fcn.layers.base import Array, Builder, Layer, Sequence, Shape, Value, np
from caffe_fcn.layers.neuron import _Neuron


class ReLU6(_Neuron):
    """x cut at 6, and at 0 or, with a `negative_slope`, times that below 0.

    Bottom: any shape. Top: the same (relu6_layer.cpp of MobileNet-YOLO and caffe-xilinx).
    """

    fork = "MobileNet-YOLO, caffe-xilinx"

    def apply(self, x: Array) -> Array:
        slope = self.param.relu6_param.negative_slope
        return np.minimum(np.maximum(x, 0) + slope * np.minimum(x, 0), 6)

    def lower(self, g: Builder, x: Value) -> str:
        slope = self.param.relu6_param.negative_slope
        if not slope:
            return g.op("Clip", x, g.scalar(0), g.scalar(6))
        return g.op("Min", g.op("LeakyRelu", x, alpha=slope), g.scalar(6))


class Mish(_Neuron):
    """x * tanh(log(1 + e^x)). Bottom: any shape. Top: the same (mish_layer.cpp of Synopsys Caffe)."""

    fork = "YOLO v4, Synopsys Caffe"

    def apply(self, x: Array) -> Array:
        return x * np.tanh(np.logaddexp(x, np.float32(0)))

    def lower(self, g: Builder, x: Value) -> str:
        return g.op("Mul", x, g.op("Tanh", g.op("Softplus", x)))


class HardSwish(_Neuron):
    """x * min(max(x + 3, 0), 6) / 6.

    Bottom: any shape. Top: the same (hard_swish_layer.cpp of Synopsys Caffe).
    """

    fork = "Synopsys Caffe"

    def apply(self, x: Array) -> Array:
        return x * (np.clip(x + 3, 0, 6) / np.float32(6))

    def lower(self, g: Builder, x: Value) -> str:
        return g.op("HardSwish", x)


class _TrainingNoise(_Neuron):
    """A layer that changes what it reads in training only. Bottom: any shape. Top: the same."""

    def setup(self) -> None:
        self.check(
            not self.training, "is random in phase TRAIN, which is not computed here", "use phase TEST"
        )

    def apply(self, x: Array) -> Array:
        return x

    def lower(self, g: Builder, x: Value) -> str:
        return x.name


class Noise(_TrainingNoise):
    """The bottom itself in phase TEST.

    Bottom: any shape. Top: the same (noise_layer.cpp of caffe-windows).
    """

    fork = "caffe-windows"


class SpatialDropout(_TrainingNoise):
    """The bottom itself in phase TEST.

    Bottom: any shape. Top: the same (spatial_dropout_layer.cpp of Intel Caffe).
    """

    fork = "Intel Caffe"
    settings = "dropout_param"


class Axpy(Layer, bottoms=3):
    """a * x + y, with a factor for each channel of each item: the end of a squeeze-and-excitation block.

    Bottoms: a (N, C) or (N, C, 1, 1); x (N, C, ...); y as x. Top: as x (axpy_layer.cpp of SENet).
    """

    fork = "SENet"

    def reshape(self, bottoms: Sequence[Shape]) -> list[Shape]:
        a, x, y = bottoms
        told = f"'{self.param.bottom[0]}' is {a}, '{self.param.bottom[1]}' is {x}"
        self.check(len(x) >= 2 and a[:2] == x[:2], f"{told}: they differ in N or C")
        self.check(all(n == 1 for n in a[2:]), f"{told}: the factors are not one for each channel")
        self.check(x == y, f"'{self.param.bottom[1]}' is {x}, '{self.param.bottom[2]}' is {y}: they differ")
        return [x]

    def forward(self, bottoms: Sequence[Array]) -> list[Array]:
        a, x, y = bottoms
        return [a.reshape(*x.shape[:2], *(1,) * (x.ndim - 2)) * x + y]

    def to_onnx(self, g: Builder, bottoms: Sequence[Value]) -> list[str]:
        a, x, y = bottoms
        factors = str(a)
        if len(a.shape) != len(x.shape):
            factors = g.reshape(a, (*x.shape[:2], *(1,) * (len(x.shape) - 2)))
        return [g.op("Add", g.op("Mul", factors, x), y)]
