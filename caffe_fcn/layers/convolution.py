"""Convolution, and what it shares with Deconvolution and Im2col.

Semantics: src/caffe/layers/base_conv_layer.cpp, conv_layer.cpp.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

from caffe_fcn.geometry import AxisMap, Window
from caffe_fcn.layers.base import Array, Builder, CoordMap, Layer, Parameter, Sequence, Shape, Size, Value
from caffe_fcn.numeric.conv import conv
from caffe_fcn.symbols import fixed, product

MANY = 1 << 31


class _Windowed(Layer):
    """Windows over the axes behind the channels, as convolution_param describes them.

    Every setting is given once for all these axes or once for each; for two of them also as kernel_h and
    kernel_w, stride_h and stride_w, pad_h and pad_w. Of such a pair Caffe takes what is left out for 0.
    """

    settings = "convolution_param"

    def setup(self) -> None:
        self._by_axes: dict[int, list[Window]] = {}  # the windows, by how many axes they slide along
        kernel, stride, _, dilation = self._settings()
        for name, values in (("kernel", kernel), ("stride", stride), ("dilation", dilation)):
            hint = f"give both {name}_h and {name}_w" if len(values) == 2 and name != "dilation" else ""
            self.check(all(v > 0 for v in values), f"{name} {_by(values)} must be positive", hint)

    def _settings(self) -> tuple[list[int], ...]:
        """Kernel, stride, pad and dilation, each once or once an axis; no kernel where none is given."""
        return (
            self._setting("kernel_size", "kernel", []),
            self._setting("stride", "stride", [1]),
            self._setting("pad", "pad", [0]),
            list(self.param.convolution_param.dilation) or self._setting("hole", "hole", [1]),  # so DeepLab
        )

    def _setting(self, plain: str, stem: str, default: list[int]) -> list[int]:
        p = self.param.convolution_param
        values = list(getattr(p, plain))
        h, w = f"{stem}_h", f"{stem}_w"
        if not (p.HasField(h) or p.HasField(w)):
            return values or default
        self.check(not values, f"has {plain} and {h} or {w}", f"give either {plain}, or {h} and {w}")
        return [getattr(p, h), getattr(p, w)]

    def _channel_axis(self, bottom: Shape) -> int:
        return self.axis(self.param.convolution_param.axis, len(bottom))

    def _windows(self, bottom: Shape) -> list[Window]:
        """The window along each axis behind the channels."""
        n = len(bottom) - self._channel_axis(bottom) - 1
        if n not in self._by_axes:
            self._by_axes[n] = self._slide(n, bottom)
        return self._by_axes[n]

    def _slide(self, n: int, bottom: Shape) -> list[Window]:
        kernel, *others = self._settings()
        self.check(bool(kernel) or n == 0, "no kernel_size is given")
        each = [kernel, *others]
        for name, values in zip(("kernel_size", "stride", "pad", "dilation"), each, strict=True):
            self.check(
                len(values) in (1, n),
                f"{name} is {_by(values)}, its bottom {bottom} has {n} axes behind the channels",
                f"give {name} once, or once for each of these axes",
            )
        kernel, stride, pad, dilation = (values * n if len(values) == 1 else values for values in each)
        return [Window(*axis) for axis in zip(kernel, stride, pad, dilation, strict=True)]

    def _counts(self, bottom: Shape) -> list[Size]:
        """How many windows there are along each axis."""
        axes = zip(self._windows(bottom), bottom[self._channel_axis(bottom) + 1 :], strict=True)
        return [self._count(window, size) for window, size in axes]

    def _count(self, window: Window, size: Size) -> Size:
        short = _short(window, size)
        # Where less than a stride is missing, C's division rounds to one window; beyond the end lie zeros
        if 0 < short < window.stride:
            return 1
        dilated = f" (dilated {window.kernel})" if window.dilation > 1 else ""
        self.check(
            short <= 0,
            f"input of {size} + 2 * pad {window.pad} is smaller than the kernel {window.reach}{dilated}",
            "give a larger input, or pad it",
        )
        return window.count(size)

    def _pads(self, bottom: Shape) -> list[int]:
        """ONNX's pads: at the begin of each axis, then at the end, where `_count` may need more."""
        axes = list(zip(self._windows(bottom), bottom[self._channel_axis(bottom) + 1 :], strict=True))
        more = [fixed(_short(window, size)) if _short(window, size) > 0 else 0 for window, size in axes]
        pads = [window.pad for window, _ in axes]
        return pads + [pad + m for pad, m in zip(pads, more, strict=True)]

    def windows(self, bottoms: Sequence[Shape]) -> list[Window]:
        return self._windows(bottoms[0])

    def coord_map(self) -> CoordMap | None:
        kernel, *others = self._settings()
        n = max(len(values) for values in (kernel, *others))
        axes = zip(
            *(values * n if len(values) == 1 else values for values in (kernel, *others)), strict=False
        )
        maps = [AxisMap.of(Window(*axis)) for axis in axes]
        return CoordMap(self.param.convolution_param.axis, maps) if maps else None


class _Filter(_Windowed, bottoms=range(1, MANY), tops=range(1, MANY)):
    """Weights over windows, in groups of channels; the same for every bottom.

    What Convolution and Deconvolution differ in is which end of the weights is which: a Deconvolution's are
    those of the Convolution that goes the other way, (channels of the bottom, of the top / group, *kernel).
    """

    op: str  # of ONNX

    def setup(self) -> None:
        super().setup()
        p, n = self.param.convolution_param, len(self.param.bottom)
        self.check(n == len(self.param.top), f"{n} bottoms make {n} tops, got {len(self.param.top)}")
        self.check(p.group > 0, f"group {p.group} must be positive")

    def _outputs(self, bottom: Shape) -> int:
        """How many channels come out."""
        n = self.param.convolution_param.num_output
        self.check(n > 0, f"num_output {n} must be positive")
        return n

    def _group(self, bottom: Shape) -> int:
        """In how many groups the channels work; forks have types that say so by their name."""
        return self.param.convolution_param.group

    def _kernel_shape(self, channels: int, outputs: int, group: int) -> tuple[int, int]:
        """The first two extents of the weights."""
        raise NotImplementedError

    def _sizes(self, bottom: Shape) -> list[Size]:
        """The tops' extents behind the channels."""
        raise NotImplementedError

    def parameters(self, bottoms: Sequence[Shape]) -> list[Parameter]:
        p, bottom = self.param.convolution_param, bottoms[0]
        channels, group = fixed(bottom[self._channel_axis(bottom)]), self._group(bottom)
        outputs = self._outputs(bottom)
        for what, n in (("channels", channels), ("num_output", outputs)):
            self.check(group > 0 and n % group == 0, f"group {group} does not divide {what} {n}")
        ends = self._kernel_shape(channels, outputs, group)
        shape = (*ends, *(w.kernel for w in self._windows(bottom)))
        weight = Parameter("weight", shape, p.weight_filler)
        return [weight, *([Parameter("bias", (outputs,), p.bias_filler)] if p.bias_term else [])]

    def reshape(self, bottoms: Sequence[Shape]) -> list[Shape]:
        bottom, axis = bottoms[0], self._channel_axis(bottoms[0])
        for name, other in zip(self.param.bottom, bottoms, strict=True):
            self.check(other == bottom, f"'{name}' is {other}, '{self.param.bottom[0]}' is {bottom}")
        if self.blobs:
            want, have = self.parameters(bottoms)[0].shape, self.blobs[0].shape
            channels = f"a bottom with {bottom[axis]} channels on axis {axis}"
            self.check(want == have, f"its weights are {have}, {channels} needs {want}")
        return [(*bottom[:axis], self._outputs(bottom), *self._sizes(bottom))] * len(bottoms)

    def to_onnx(self, g: Builder, bottoms: Sequence[Value]) -> list[str]:
        shape = bottoms[0].shape
        axis, windows = self._channel_axis(shape), self._windows(shape)
        if fixed(shape[axis]) == 0:  # onnxruntime's Conv over no channels never ends
            return [self._bias_alone(g, top) for top in self.reshape([b.shape for b in bottoms])]
        # ONNX wants one axis before the channels and one behind them
        usual, one = axis == 1 and len(windows) > 0, () if windows else (1,)
        weight = self.weights[0]
        learned = [g.param(self.blobs[0], "weight", weight.reshape(*weight.shape, *one))]
        learned += [g.param(blob, "bias") for blob in self.blobs[1:]]
        attributes: dict[str, Any] = {**slides(windows or [Window(1)]), "pads": self._pads(shape) or [0, 0]}
        tops = []
        for bottom, top in zip(bottoms, self.reshape([b.shape for b in bottoms]), strict=True):
            x = bottom if usual else g.reshape(bottom, (product(shape[:axis]), *shape[axis:], *one))
            y = g.op(self.op, x, *learned, group=self._group(shape), **attributes)
            tops.append(y if usual else g.reshape(y, top))
        return tops

    def _bias_alone(self, g: Builder, top: Shape) -> str:
        """What is left where there is nothing to multiply."""
        nothing = g.fill(top, 0)
        if len(self.blobs) < 2:
            return nothing
        bias = self.weights[1]
        each = bias.reshape(-1, *(1,) * (len(top) - self._channel_axis(top) - 1))
        return g.op("Add", nothing, g.param(self.blobs[1], "bias", each))

    def _apply(self, kernel: Callable[..., Array], bottoms: Sequence[Array]) -> list[Array]:
        """Run `conv` or `deconv` of numeric on each bottom, all axes before the channels taken as one."""
        shape = bottoms[0].shape
        axis, windows, sizes = self._channel_axis(shape), self._windows(shape), self._sizes(shape)
        weight, bias = (*self.weights, None)[:2]
        flat = [x.reshape(prod(shape[:axis]), *shape[axis:]) for x in bottoms]
        tops = [kernel(x, weight, bias, self._group(shape), windows, sizes) for x in flat]
        return [top.reshape(*shape[:axis], *top.shape[1:]) for top in tops]


class Convolution(_Filter):
    """Products of num_output kernels with windows of the bottom, over all channels of a group at once.

    Bottoms: (N, C, *sizes), any number of axes behind the channels, which are on `axis`; all of one shape.
    Tops: one for each bottom, (N, num_output, *counts). The padding is 0. Weights: (num_output, C / group,
    *kernel).
    """

    op = "Conv"

    def _kernel_shape(self, channels: int, outputs: int, group: int) -> tuple[int, int]:
        return outputs, channels // group

    def _sizes(self, bottom: Shape) -> list[Size]:
        return self._counts(bottom)

    def forward(self, bottoms: Sequence[Array]) -> list[Array]:
        return self._apply(conv, bottoms)

    def macs(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> Size:
        return sum((product(top) for top in tops), 0) * prod(self.blobs[0].shape[1:])


def slides(windows: Sequence[Window]) -> dict[str, Any]:
    """ONNX's attributes of sliding windows, all but the pads."""
    return {
        "kernel_shape": [w.kernel for w in windows],
        "strides": [w.stride for w in windows],
        "dilations": [w.dilation for w in windows],
    }


def _short(window: Window, size: Size) -> Size:
    """How many elements the first window reads beyond the end."""
    return window.reach - (size + 2 * window.pad)


def _by(values: Sequence[int]) -> str:
    return " x ".join(map(str, values))
