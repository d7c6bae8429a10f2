"""Im2col. Semantics: src/caffe/layers/im2col_layer.cpp."""

from __future__ import annotations

from math import prod

from caffe_fcn.layers.base import Array, Builder, Sequence, Shape, Value, fixed, np, product
from caffe_fcn.layers.convolution import _Windowed, slides
from caffe_fcn.numeric.im2col import im2col


class Im2col(_Windowed):
    """The elements of each window, stacked along the channels: what a Convolution multiplies by its weights.

    Bottom: (N, C, *sizes), the channels on `axis`. Top: (N, C * elements of a kernel, *counts): those of one
    channel's window together, rows first. The padding is 0.
    """

    def reshape(self, bottoms: Sequence[Shape]) -> list[Shape]:
        bottom, axis = bottoms[0], self._channel_axis(bottoms[0])
        self.check(
            axis + 1 < len(bottom), f"its bottom {bottom} has no axis behind the channels, axis {axis}"
        )
        elements = prod(w.kernel for w in self._windows(bottom))
        return [(*bottom[:axis], bottom[axis] * elements, *self._counts(bottom))]

    def forward(self, bottoms: Sequence[Array]) -> list[Array]:
        (x,), windows = bottoms, self._windows(bottoms[0].shape)
        counts = self._counts(x.shape)
        box = tuple(slice(0, n) for n in counts)
        lead = x.shape[: x.ndim - len(windows)]
        columns = im2col(
            x, windows, box, np.empty((*lead, *(w.kernel for w in windows), *counts), np.float32)
        )
        return [columns.reshape(self.reshape([x.shape])[0])]

    def to_onnx(self, g: Builder, bottoms: Sequence[Value]) -> list[str]:
        """A Conv that picks one element with each of its kernels."""
        (bottom,), shape = bottoms, bottoms[0].shape
        axis, windows = self._channel_axis(shape), self._windows(shape)
        channels, kernel = fixed(shape[axis]), [w.kernel for w in windows]
        picks = np.tile(np.eye(prod(kernel), dtype=np.float32), (channels, 1)).reshape(-1, 1, *kernel)
        x = bottom if axis == 1 else g.reshape(bottom, (product(shape[:axis]), *shape[axis:]))
        y = g.op("Conv", x, g.array(picks), group=channels, **slides(windows), pads=self._pads(shape))
        return [y if axis == 1 else g.reshape(y, self.reshape([shape])[0])]
