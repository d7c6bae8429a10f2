"""BN: two forks gave this name to different layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from caffe_fcn.layers.base import Array, Builder, Layer, Parameter, Shape, Value, np

SEGNET = ("scale", "shift")
PSPNET = ("slope", "bias", "mean", "variance")
SEGNET_EPS = 1e-9
_OF_SEGNET = ("scale_filler", "shift_filler", "bn_mode")
_OF_PSPNET = ("slope_filler", "bias_filler", "momentum", "eps", "frozen")


class BN(Layer):
    """Normalize each channel, then multiply by what was learned and add it.

    Bottom: (N, C, H, W). Top: the same.

    SegNet's has 2 blobs, scale and shift. `bn_mode: INFERENCE` leaves the normalization out, for the
    statistics are in the blobs; LEARN takes the batch's, in phase TEST too (bn_layer.cpp of caffe-segnet).
    PSPNet's has 4, slope, bias, mean and variance; phase TEST, or `frozen`, takes the stored statistics
    (bn_layer.cpp of yjxiong's Caffe, which PSPNet and ICNet use).
    Which it is shows in the fields of `bn_param`, in the number of `param`, and at last in the weights file;
    `variant` says what was taken. Without any sign it is SegNet's.
    """

    fork = "SegNet, PSPNet"
    pointwise = True

    def setup(self) -> None:
        p = self.param.bn_param
        segnet, pspnet = ([n for n in names if p.HasField(n)] for names in (_OF_SEGNET, _OF_PSPNET))
        self.check(
            not (segnet and pspnet),
            f"bn_param has SegNet's {', '.join(segnet)} and PSPNet's {', '.join(pspnet)}",
        )
        self.names: tuple[str, ...] = PSPNET if pspnet or len(self.param.param) > 2 else SEGNET

    @property
    def variant(self) -> str:
        """Whose BN it is."""
        return "PSPNet's BN" if self.names == PSPNET else "SegNet's BN"

    def parameters(self, bottoms: Sequence[Shape]) -> list[Parameter]:
        (bottom,), p = bottoms, self.param.bn_param
        self.check(2 <= len(bottom) <= 4, f"needs 2 to 4 axes (N, C, H, W), got {bottom}")
        constant = type(p.scale_filler)
        fillers = {
            "scale": p.scale_filler, "shift": p.shift_filler, "slope": p.slope_filler, "bias": p.bias_filler,
            "mean": None, "variance": constant(type="constant", value=float(p.frozen)),
        }  # fmt: skip
        return [Parameter(name, (1, bottom[1], 1, 1), fillers[name]) for name in self.names]

    def adapt(self, stored: Sequence[Any]) -> Sequence[Any]:
        names = {2: SEGNET, 4: PSPNET}.get(len(stored), self.names)
        if names != self.names:
            shape, kind = self.blobs[0].shape, type(self.blobs[0])
            self.names = names
            self.blobs[:] = [kind(shape) for _ in names]
        return stored

    def reshape(self, bottoms: Sequence[Shape]) -> list[Shape]:
        (bottom,), channels = bottoms, self.blobs[0].shape[1]
        fits = len(bottom) >= 2 and bottom[1] == channels
        self.check(fits, f"has a scale of each of {channels} channels, its bottom is {bottom}")
        return [bottom]

    def _statistics(self) -> str:
        """Where mean and variance come from: "stored", the "batch", or "" for no normalization."""
        p = self.param.bn_param
        if self.names == SEGNET:
            return "batch" if p.bn_mode == p.LEARN else ""
        return "batch" if self.training and not p.frozen else "stored"

    @property
    def _eps(self) -> float:
        return SEGNET_EPS if self.names == SEGNET else self.param.bn_param.eps

    def forward(self, bottoms: Sequence[Array]) -> list[Array]:
        (x,), statistics = bottoms, self._statistics()
        scale, shift, *stored = (w.reshape(-1, *(1,) * (x.ndim - 2)) for w in self.weights)
        if statistics == "batch":
            axes = (0, *range(2, x.ndim))
            mean = x.mean(axes, keepdims=True)
            stored = [mean, np.square(x - mean).mean(axes, keepdims=True)]
        if statistics:
            with np.errstate(all="ignore"):
                x = (x - stored[0]) / np.sqrt(stored[1] + np.float32(self._eps))
        return [x * scale + shift]

    def to_onnx(self, g: Builder, bottoms: Sequence[Value]) -> list[str]:
        (x,), statistics = bottoms, self._statistics()
        if statistics == "stored":
            flat = [
                g.param(b, n, w.reshape(-1))
                for b, n, w in zip(self.blobs, self.names, self.weights, strict=True)
            ]
            return [g.op("BatchNormalization", x, *flat, epsilon=self._eps)]
        top: Value | str = x
        if statistics == "batch":
            axes = [0, *range(2, len(x.shape))]
            top = g.op("Sub", x, g.reduce("ReduceMean", x, axes))
            variance = g.reduce("ReduceMean", g.op("Mul", top, top), axes)
            top = g.op("Div", top, g.op("Sqrt", g.op("Add", variance, g.scalar(self._eps))))
        shape = (-1, *(1,) * (len(x.shape) - 2))
        scale, shift = (
            g.param(b, n, w.reshape(shape))
            for b, n, w in zip(self.blobs[:2], self.names, self.weights, strict=False)
        )
        return [g.op("Add", g.op("Mul", top, scale), shift)]
