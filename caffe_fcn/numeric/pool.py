"""Pooling kernels on (N, C, H, W) float32 arrays."""

from __future__ import annotations

import numpy as np

from caffe_fcn.geometry import PoolAxis

FLT_MAX = float(np.finfo(np.float32).max)


def _taps(axis: PoolAxis, offset: int) -> tuple[slice, slice]:
    """Windows whose element `offset` lies inside the input, and where these elements lie."""
    first = max(0, -(-(axis.pad - offset) // axis.stride))
    last = min(axis.out, (axis.size - 1 + axis.pad - offset) // axis.stride + 1)
    last = max(first, last)
    start = first * axis.stride - axis.pad + offset
    return slice(first, last), slice(
        start, start + (last - first - 1) * axis.stride + 1 if last > first else start, axis.stride
    )


def _each_tap(h: PoolAxis, w: PoolAxis):
    """(index of windows, their elements), one pair for each of the kernel's positions in row order."""
    for i in range(h.kernel):
        top_h, bottom_h = _taps(h, i)
        for j in range(w.kernel):
            top_w, bottom_w = _taps(w, j)
            if top_h.stop > top_h.start and top_w.stop > top_w.start:
                yield (..., top_h, top_w), (..., bottom_h, bottom_w)


def pool_max(x: np.ndarray, h: PoolAxis, w: PoolAxis) -> np.ndarray:
    """Maximum of each window; -FLT_MAX where it holds nothing greater. NaN is ignored, as `>` does."""
    top = np.full((*x.shape[:2], h.out, w.out), -FLT_MAX, np.float32)
    for windows, elements in _each_tap(h, w):
        np.fmax(top[windows], x[elements], out=top[windows])
    return top


def pool_argmax(x: np.ndarray, h: PoolAxis, w: PoolAxis) -> tuple[np.ndarray, np.ndarray]:
    """Maximum of each window and its position in the channel, the first of equals; -1 where there is none."""
    top = np.full((*x.shape[:2], h.out, w.out), -FLT_MAX, np.float32)
    mask = np.full(top.shape, -1, np.float32)
    position = np.arange(x.shape[2] * x.shape[3], dtype=np.float32).reshape(x.shape[2:])
    for windows, elements in _each_tap(h, w):
        greater = x[elements] > top[windows]
        np.copyto(top[windows], x[elements], where=greater)
        np.copyto(mask[windows], position[elements[1:]], where=greater)
    return top, mask


def pool_sum(x: np.ndarray, h: PoolAxis, w: PoolAxis) -> np.ndarray:
    """Sum of each window, 0 where it is empty."""
    top = np.zeros((*x.shape[:2], h.out, w.out), np.float32)
    for windows, elements in _each_tap(h, w):
        top[windows] += x[elements]
    return top
