"""Transposed convolution of (N, C, *sizes) float32 arrays: BLAS and col2im, in bounded memory."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from caffe_fcn.geometry import Window
from caffe_fcn.numeric.blas import BUFFER, pieces, settled
from caffe_fcn.numeric.im2col import boxes, col2im, extent, last, taps

LEAST = 256  # pixels of the bottom that make up for reading the weights once more


def deconv(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None,
    group: int,
    windows: Sequence[Window],
    sizes: Sequence[int],
) -> np.ndarray:
    """Spread each pixel of x over its window of the top, weighted, and add up.

    x: (N, C, *counts); weight: (C, O / group, *kernel); bias: (O,). Returns (N, O, *sizes).
    Semantics: backward_cpu_gemm and forward_cpu_bias in base_conv_layer.cpp.
    """
    if group == 1 and (diagonal := _diagonal(weight)) is not None:
        weight, group = diagonal, x.shape[1]
    per_group = weight.shape[1]
    weight = settled(weight).reshape(group, -1, *weight.shape[1:])
    top = np.zeros((x.shape[0], group * per_group, *sizes), np.float32)
    if top.size and x.size:
        kernel = _channels if x.shape[1] == group > 1 else _columns
        for image, out in zip(x, top, strict=True):
            grouped = image.reshape(group, -1, *x.shape[2:])
            kernel(grouped, weight, windows, out.reshape(group, per_group, *sizes))
    if bias is not None:
        top += bias.reshape(-1, *(1,) * len(sizes))
    return top


def _diagonal(weight: np.ndarray) -> np.ndarray | None:
    """(C, 1, *kernel) if each channel goes to its own alone, as in bilinear kernels; zeros add nothing."""
    channels = len(weight)
    if channels != weight.shape[1]:
        return None
    own = weight[np.arange(channels), np.arange(channels)][:, None]
    return own if np.count_nonzero(own) == np.count_nonzero(weight) else None


def _columns(x: np.ndarray, weight: np.ndarray, windows: Sequence[Window], out: np.ndarray) -> None:
    """The general way: the weights times a box of pixels, then each window added where it lies.

    x: (group, C / group, *counts); weight: (group, C / group, O / group, *kernel);
    out: (group, O / group, *sizes).
    """
    kernel = tuple(w.kernel for w in windows)
    group, channels, outputs = weight.shape[:3]
    column = 4 * group * prod(kernel)  # bytes that a pixel becomes, for one channel of the top
    step = min(outputs, max(1, BUFFER // (column * LEAST)))
    parts = list(boxes(x.shape[2:], max(1, BUFFER // (column * step))))
    space = np.empty(
        column // 4 * step * prod(extent(parts[0])), np.float32
    )  # no box is larger than the first
    for box in parts:
        pixels = x[last(*box)].reshape(group, channels, -1)
        for first in range(0, outputs, step):
            for part, some in pieces(weight[:, :, first : first + step], axis=2):
                matrix = some.reshape(group, channels, -1).transpose(0, 2, 1)
                shape = (group, matrix.shape[1], pixels.shape[2])
                columns = np.matmul(matrix, pixels, out=space[: prod(shape)].reshape(shape))
                columns = columns.reshape(group, -1, *kernel, *extent(box))
                col2im(columns, windows, box, out[:, first + part.start : first + part.stop])


def _channels(x: np.ndarray, weight: np.ndarray, windows: Sequence[Window], out: np.ndarray) -> None:
    """One channel a group, as in bilinear upsampling: add whole images times each element."""
    box = tuple(slice(0, n) for n in x.shape[2:])
    ones = (1,) * len(box)
    step = max(1, BUFFER // (8 * prod(out.shape[1:])))
    for first in range(0, len(x), step):
        part = slice(first, first + step)
        for element, inside, where in taps(windows, box, out.shape[2:]):
            factor = weight[part, 0][last(*element)].reshape(-1, out.shape[1], *ones)
            out[part][last(*where)] += factor * x[part][last(*inside)]
