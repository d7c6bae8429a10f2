"""Layers that are a function of each element by itself (neuron_layer.cpp). Each names the file it follows."""

from __future__ import annotations

from caffe_fcn.fillers import random
from caffe_fcn.layers.base import Array, Builder, Layer, Parameter, Sequence, Shape, Value, np


class _Neuron(Layer):
    """One bottom of any shape, one top of the same; subclasses say what becomes of an element."""

    pointwise = True

    def reshape(self, bottoms: Sequence[Shape]) -> list[Shape]:
        return [bottoms[0]]

    def forward(self, bottoms: Sequence[Array]) -> list[Array]:
        with np.errstate(all="ignore"):  # NaN and infinities are Caffe's answers too
            return [self.apply(bottoms[0])]

    def to_onnx(self, g: Builder, bottoms: Sequence[Value]) -> list[str]:
        return [self.lower(g, bottoms[0])]

    def apply(self, x: Array) -> Array:
        """The top's values."""
        raise NotImplementedError

    def lower(self, g: Builder, x: Value) -> str:
        """The name of the top."""
        raise NotImplementedError


def _affine(g: Builder, x: Value | str, scale: float = 1, shift: float = 0) -> str:
    """Nodes for scale * x + shift, without those that would change nothing."""
    top = str(x) if scale == 1 else g.op("Mul", x, g.scalar(scale))
    return top if shift == 0 else g.op("Add", top, g.scalar(shift))


class ReLU(_Neuron):
    """x where it is positive, `negative_slope` * x elsewhere.

    Bottom: any shape. Top: the same (relu_layer.cpp).
    """

    def apply(self, x: Array) -> Array:
        slope = self.param.relu_param.negative_slope
        return np.maximum(x, 0) + slope * np.minimum(x, 0) if slope else np.maximum(x, 0)

    def lower(self, g: Builder, x: Value) -> str:
        slope = self.param.relu_param.negative_slope
        return g.op("LeakyRelu", x, alpha=slope) if slope else g.op("Relu", x)


class PReLU(_Neuron):
    """x where it is positive, a learned slope times x elsewhere: a slope for each channel, or one for all.

    Bottom: (N, C, ...). Top: the same (prelu_layer.cpp). The slopes start at 0.25.
    """

    def parameters(self, bottoms: Sequence[Shape]) -> list[Parameter]:
        (bottom,), p = bottoms, self.param.prelu_param
        self.check(len(bottom) >= 2, f"needs at least 2 axes (N, C), got {bottom}")
        filler = p.filler if p.HasField("filler") else type(p.filler)(type="constant", value=0.25)
        return [Parameter("slope", () if p.channel_shared else (bottom[1],), filler)]

    def reshape(self, bottoms: Sequence[Shape]) -> list[Shape]:
        (bottom,), slopes = bottoms, self.blobs[0].shape
        fits = not slopes or (len(bottom) >= 2 and bottom[1] == slopes[0])
        self.check(fits, f"has a slope for each of {slopes} channels, its bottom is {bottom}")
        return [bottom]

    def _slope(self, rank: int) -> Array:
        slope = self.weights[0]
        return slope.reshape(slope.size, *(1,) * (rank - 2))

    def apply(self, x: Array) -> Array:
        return np.maximum(x, 0) + self._slope(x.ndim) * np.minimum(x, 0)

    def lower(self, g: Builder, x: Value) -> str:
        return g.op("PRelu", x, g.param(self.blobs[0], "slope", self._slope(len(x.shape))))


class ELU(_Neuron):
    """x where it is positive, `alpha` * (exp(x) - 1) elsewhere.

    Bottom: any shape. Top: the same (elu_layer.cpp).
    """

    def apply(self, x: Array) -> Array:
        return np.maximum(x, 0) + self.param.elu_param.alpha * (np.exp(np.minimum(x, 0)) - 1)

    def lower(self, g: Builder, x: Value) -> str:
        return g.op("Elu", x, alpha=self.param.elu_param.alpha)


class Sigmoid(_Neuron):
    """1 / (1 + exp(-x)).

    Bottom: any shape. Top: the same (sigmoid_layer.cpp).
    """

    def apply(self, x: Array) -> Array:
        return 0.5 * np.tanh(0.5 * x) + 0.5

    def lower(self, g: Builder, x: Value) -> str:
        return g.op("Sigmoid", x)


class Swish(_Neuron):
    """x * sigmoid(`beta` * x).

    Bottom: any shape. Top: the same (swish_layer.cpp).
    """

    def apply(self, x: Array) -> Array:
        return x * (0.5 * np.tanh(0.5 * (self.param.swish_param.beta * x)) + 0.5)

    def lower(self, g: Builder, x: Value) -> str:
        return g.op("Mul", x, g.op("Sigmoid", _affine(g, x, self.param.swish_param.beta)))


class TanH(_Neuron):
    """The hyperbolic tangent.

    Bottom: any shape. Top: the same (tanh_layer.cpp).
    """

    def apply(self, x: Array) -> Array:
        return np.tanh(x)

    def lower(self, g: Builder, x: Value) -> str:
        return g.op("Tanh", x)


class BNLL(_Neuron):
    """log(1 + exp(x)), computed so that a large x does not overflow.

    Bottom: any shape. Top: the same (bnll_layer.cpp).
    """

    def apply(self, x: Array) -> Array:
        return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))

    def lower(self, g: Builder, x: Value) -> str:
        return g.op("Softplus", x)


class AbsVal(_Neuron):
    """The absolute value.

    Bottom: any shape. Top: the same, another blob (absval_layer.cpp).
    """

    def setup(self) -> None:
        in_place = self.param.bottom[:1] == self.param.top[:1]
        self.check(not in_place, "does not work in place", "give its top a name of its own")

    def apply(self, x: Array) -> Array:
        return np.abs(x)

    def lower(self, g: Builder, x: Value) -> str:
        return g.op("Abs", x)


class Clip(_Neuron):
    """x cut at `min` and `max`; `min` wins where they cross, and over NaN.

    Bottom: any shape. Top: the same (clip_layer.cpp).
    """

    def apply(self, x: Array) -> Array:
        p = self.param.clip_param
        return np.fmax(np.minimum(x, p.max), p.min)

    def lower(self, g: Builder, x: Value) -> str:
        p = self.param.clip_param
        return g.op("Clip", x, g.scalar(p.min), g.scalar(max(p.min, p.max)))


class Threshold(_Neuron):
    """1 where x is greater than `threshold`, else 0.

    Bottom: any shape. Top: the same (threshold_layer.cpp).
    """

    def apply(self, x: Array) -> Array:
        return (x > self.param.threshold_param.threshold).astype(np.float32)

    def lower(self, g: Builder, x: Value) -> str:
        return g.cast(g.op("Greater", x, g.scalar(self.param.threshold_param.threshold)))


class Power(_Neuron):
    """(`scale` * x + `shift`) ^ `power`. A scale or power of 0 makes it a constant that no NaN gets through.

    Bottom: any shape. Top: the same (power_layer.cpp).
    """

    def _constant(self) -> float | None:
        p = self.param.power_param
        if p.power * p.scale != 0:
            return None
        with np.errstate(all="ignore"):
            return 1.0 if p.power == 0 else float(np.float32(p.shift) ** np.float32(p.power))

    def apply(self, x: Array) -> Array:
        p, constant = self.param.power_param, self._constant()
        if constant is not None:
            return np.full(x.shape, constant, np.float32)
        x = x if p.scale == 1 else x * p.scale
        x = x if p.shift == 0 else x + p.shift
        return x if p.power == 1 else np.power(x, np.float32(p.power))

    def lower(self, g: Builder, x: Value) -> str:
        p, constant = self.param.power_param, self._constant()
        if constant is not None:
            return g.op("ConstantOfShape", g.ints(x.shape), value=np.asarray([constant], np.float32))
        base = _affine(g, x, p.scale, p.shift)
        return base if p.power == 1 else g.op("Pow", base, g.scalar(p.power))


class _WithBase(_Neuron):
    """Exp and Log: to a `base`, e where it is -1."""

    def _ln(self, base: float) -> float:
        """The natural logarithm of the base, in float32 as Caffe has it."""
        self.check(base == -1 or base > 0, f"base {base} must be positive, or -1 for e")
        ln = 1.0 if base == -1 else float(np.log(np.float32(base)))
        self.check(bool(np.isfinite(ln)), f"log(base) = log({base}) = {ln}")
        return ln


class Exp(_WithBase):
    """`base` ^ (`scale` * x + `shift`).

    Bottom: any shape. Top: the same (exp_layer.cpp).
    """

    def setup(self) -> None:
        p = self.param.exp_param
        ln = self._ln(p.base)
        self.inner = ln * p.scale
        with np.errstate(over="ignore"):
            self.outer = float(np.exp(np.float32(p.shift) * np.float32(ln)))

    def apply(self, x: Array) -> Array:
        return self.outer * np.exp(self.inner * x)

    def lower(self, g: Builder, x: Value) -> str:
        return _affine(g, g.op("Exp", _affine(g, x, self.inner)), self.outer)


class Log(_WithBase):
    """The logarithm of `scale` * x + `shift` to `base`.

    Bottom: any shape. Top: the same (log_layer.cpp).
    """

    def setup(self) -> None:
        ln = self._ln(self.param.log_param.base)
        self.check(ln != 0, f"base {self.param.log_param.base}: 1/log(base) is infinite")
        self.outer = 1 / ln

    def apply(self, x: Array) -> Array:
        p = self.param.log_param
        return self.outer * np.log(p.scale * x + p.shift)

    def lower(self, g: Builder, x: Value) -> str:
        p = self.param.log_param
        return _affine(g, g.op("Log", _affine(g, x, p.scale, p.shift)), self.outer)


class Dropout(_Neuron):
    """In phase TRAIN each element is 0 with probability `dropout_ratio`; in phase TEST nothing happens.

    Bottom: any shape. Top: the same (dropout_layer.cpp). What is kept is scaled up by 1 / (1 - ratio) when
    training, so that nothing is left to do in TEST. With `scale_train: false`, which forks have (DeepLab,
    PSPNet, Fast R-CNN), it is scaled down in TEST instead.
    """

    def setup(self) -> None:
        self.ratio = self.param.dropout_param.dropout_ratio
        self.scale_train = self.param.dropout_param.scale_train
        self.check(0 <= self.ratio < 1, f"dropout_ratio {self.ratio} is not in [0, 1)")

    @property
    def variant(self) -> str:
        """Bayesian SegNet draws at random in TEST too; what we compute is the mean."""
        sampled = self.param.dropout_param.sample_weights_test
        return "the mean of Bayesian SegNet's Dropout, which samples in TEST" if sampled else ""

    def apply(self, x: Array) -> Array:
        if not self.training:
            return x if self.scale_train else x * np.float32(1 - self.ratio)
        kept = x * (random().random(x.shape, np.float32) >= self.ratio)
        return kept / np.float32(1 - self.ratio) if self.scale_train else kept

    def lower(self, g: Builder, x: Value) -> str:
        if self.training:
            self.unsupported("drops elements at random in phase TRAIN", "build the net in phase TEST")
        return str(x) if self.scale_train else g.op("Mul", x, g.scalar(1 - self.ratio))
