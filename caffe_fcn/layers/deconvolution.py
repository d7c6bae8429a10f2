"""Deconvolution. Semantics: src/caffe/layers/deconv_layer.cpp."""

from __future__ import annotations

from math import prod

from caffe_fcn.layers.base import Array, CoordMap, Sequence, Shape, Size, Window, product
from caffe_fcn.layers.convolution import _Filter
from caffe_fcn.numeric.deconv import deconv


class Deconvolution(_Filter):
    """Each element of the bottom spreads a weighted kernel over the top, where these add up.

    Bottoms: (N, C, *counts), any number of axes behind the channels, which are on `axis`; all of one shape.
    Tops: one for each bottom, (N, num_output, *sizes): the bottom of a Convolution that gives `counts`
    windows; the padding is cut off. Weights: (C, num_output / group, *kernel).
    """

    op = "ConvTranspose"

    def _kernel_shape(self, channels: int, outputs: int, group: int) -> tuple[int, int]:
        return channels, outputs // group

    def _sizes(self, bottom: Shape) -> list[Size]:
        windows = self._windows(bottom)
        return [self._span(w, n) for w, n in zip(windows, bottom[len(bottom) - len(windows) :], strict=True)]

    def _span(self, window: Window, count: Size) -> Size:
        size, (_, stride, pad, _) = window.span(count), window
        self.check(
            size > 0,
            f"its top would have a size {stride} * ({count} - 1) + {window.reach} - 2 * pad {pad} = {size}",
            "give a larger input, or pad less",
        )
        return size

    def _pads(self, bottom: Shape) -> list[int]:
        return [w.pad for w in self._windows(bottom)] * 2

    def forward(self, bottoms: Sequence[Array]) -> list[Array]:
        return self._apply(deconv, bottoms)

    def coord_map(self) -> CoordMap | None:
        found = super().coord_map()
        return found and CoordMap(found.axis, [m.inverse() for m in found.maps])

    def macs(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> Size:
        return sum((product(bottom) for bottom in bottoms), 0) * prod(self.blobs[0].shape[1:])
