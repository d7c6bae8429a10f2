"""The arithmetic of one spatial axis: windows, output sizes, pads, counts. For numbers and for symbols.

Every formula here is written with `+ - * //` alone, so that it works on an `int` and on an `Extent` (see
`symbols.py`) alike. That is what lets `trace` print a formula in H and W and the exporter emit sizes
that are computed at run time, from the very line that gives NumPy its number.
"""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

import numpy as np

from caffe_fcn.symbols import Size, fixed


def ceil_div(a: Size, b: int) -> Size:
    """A / b rounded up."""
    return (a + b - 1) // b


class Window(NamedTuple):
    """A kernel that slides along one axis, as Convolution, Pooling and Im2col have it."""

    kernel: int
    stride: int = 1
    pad: int = 0  # on both ends
    dilation: int = 1

    @property
    def reach(self) -> int:
        """Elements from a window's first to its last (kernel_extent in base_conv_layer.cpp)."""
        return self.dilation * (self.kernel - 1) + 1

    def count(self, size: Size) -> Size:  # type: ignore[override]
        """How many windows fit (conv_layer.cpp)."""
        return (size + 2 * self.pad - self.reach) // self.stride + 1

    def span(self, count: Size) -> Size:
        """The inverse: what `count` windows cover, as Deconvolution has it (deconv_layer.cpp)."""
        return self.stride * (count - 1) + self.reach - 2 * self.pad


class PoolAxis(NamedTuple):
    """Caffe's pooling windows along one axis: the one fact that shape, NumPy and ONNX all read.

    Caffe rounds the number of windows up, then drops a last one that would start in the end padding, but
    looks for it only if it padded (pooling_layer.cpp). Both rules together are one: pad the end by `end` and
    round down. Rounding up is end = pad + stride - 1; the last start inside size + pad is end = kernel - 1;
    the smaller of the two is both.
    """

    size: Size  # input extent, pixels
    kernel: int
    stride: int
    pad: int
    ceil: bool

    @property
    def end(self) -> int:
        """Padding at the end with which rounding down gives Caffe's number of windows."""
        end = self.pad + self.stride - 1 if self.ceil else self.pad
        return min(end, self.kernel - 1) if self.pad else end

    @property
    def out(self) -> Size:
        """Number of windows."""
        return (self.size + self.pad + self.end - self.kernel) // self.stride + 1

    @property
    def empty(self) -> int:
        """Windows at the end that lie wholly beyond the input; Caffe keeps one if it did not pad."""
        if self.end < self.kernel:  # the last window then starts before the input ends, whatever the size
            return 0
        size = fixed(self.size)
        return max(0, fixed(self.out) - fixed(ceil_div(size + self.pad, self.stride)))

    @property
    def fit(self) -> int:
        """The same where no window is empty; always less than `kernel`, as ONNX wants it."""
        return min(self.end, self.kernel - 1)

    @property
    def counts(self) -> np.ndarray:
        """What AVE divides by, per window: its length cut at size + pad. (out,) int64; <= 0 if empty."""
        start = np.arange(fixed(self.out)) * self.stride - self.pad
        return np.minimum(start + self.kernel, fixed(self.size) + self.pad) - start

    @property
    def whole(self) -> bool:
        """Whether no window is cut at size + pad, whatever the size."""
        return self.fit <= self.pad


class AxisMap(NamedTuple):
    """Where a blob's coordinates lie in another's: there = scale * here + shift (coord_map.py)."""

    scale: Fraction = Fraction(1)
    shift: Fraction = Fraction(0)

    @classmethod
    def of(cls, window: Window) -> AxisMap:
        """From a window's bottom to its top."""
        inset = Fraction(window.reach - 1, 2)
        return cls(Fraction(1, window.stride), (window.pad - inset) / window.stride)

    def inverse(self) -> AxisMap:
        return AxisMap(1 / self.scale, -self.shift / self.scale)

    def after(self, first: AxisMap) -> AxisMap:
        """First `first`, then this one."""
        return AxisMap(self.scale * first.scale, self.scale * first.shift + self.shift)
