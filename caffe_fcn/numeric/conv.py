"""Convolution of (N, C, *sizes) float32 arrays: im2col and BLAS, in bounded memory."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from caffe_fcn.geometry import Window
from caffe_fcn.numeric.blas import BUFFER, pieces, settled
from caffe_fcn.numeric.im2col import boxes, extent, im2col, last

Array = np.ndarray
ALONE = Window(1)


def conv(
    x: Array,
    weight: Array,
    bias: Array | None,
    group: int,
    windows: Sequence[Window],
    counts: Sequence[int],
) -> Array:
    """Correlate x with the weights at `counts` windows along each axis; beyond x, on any side, lie zeros.

    x: (N, C, *sizes); weight: (O, C / group, *kernel); bias: (O,). Returns (N, O, *counts).
    Semantics: forward_cpu_gemm and forward_cpu_bias in base_conv_layer.cpp.
    """
    per_group = weight.shape[0] // group
    weight = settled(weight).reshape(group, per_group, prod(weight.shape[1:]))
    top = np.empty((x.shape[0], group * per_group, *counts), np.float32)
    start = np.zeros(top.shape[1], np.float32) if bias is None else bias
    start = start.reshape(group, per_group, *(1,) * len(counts))
    out = top.reshape(len(x), group, per_group, *counts)
    if x.shape[1] == 0 or top.size == 0:
        out[...] = start
    elif all(w.reach == 1 and w.stride == 1 and w.pad == 0 for w in windows):
        for image, values in zip(x, out, strict=True):
            _pixels(image, weight, start, values)
    else:  # the batch is one more axis to slide over, so that small images share a product
        _columns(np.moveaxis(x, 0, 1), weight, start[:, :, None], [ALONE, *windows], np.moveaxis(out, 0, 2))
    return top


def _pixels(x: Array, weight: Array, bias: Array, out: Array) -> None:
    """A 1x1 kernel: x is its own matrix of columns."""
    columns = x.reshape(out.shape[0], -1, prod(out.shape[2:]))
    flat = out.reshape(*out.shape[:2], -1)
    for part, some in pieces(weight, axis=1):
        np.matmul(some, columns, out=flat[:, part])
    out += bias


def _columns(x: Array, weight: Array, bias: Array, windows: Sequence[Window], out: Array) -> None:
    """The general way: columns of a box of windows, times the weights."""
    kernel = tuple(w.kernel for w in windows)
    group, outputs, length = weight.shape
    parts = list(boxes(out.shape[2:], BUFFER // (4 * group * (length + outputs))))
    space = np.empty(group * length * prod(extent(parts[0])), np.float32)  # no box is larger than the first
    for box in parts:
        shape = (*x.shape[:1], *kernel, *extent(box))
        columns = im2col(x, windows, box, space[: prod(shape)].reshape(shape)).reshape(group, length, -1)
        for part, some in pieces(weight, axis=1):
            values = np.matmul(some, columns).reshape(group, -1, *extent(box))
            np.add(values, bias[:, part], out=out[:, part][last(*box)])
