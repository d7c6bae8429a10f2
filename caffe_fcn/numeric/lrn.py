"""Local response normalisation on (N, C, H, W) float32 arrays: y = x * s ^ -beta."""

from __future__ import annotations

import numpy as np

from caffe_fcn.geometry import PoolAxis
from caffe_fcn.numeric.pool import pool_sum


def across_channels(x: np.ndarray, size: int, alpha: float, beta: float, k: float) -> np.ndarray:
    """With s = k + alpha / size * the sum of squares of `size` channels around; beyond the ends are zeros."""
    squares = np.square(x)
    scale = squares.copy()
    for d in range(1, min((size - 1) // 2, x.shape[1] - 1) + 1):
        scale[:, d:] += squares[:, :-d]
        scale[:, :-d] += squares[:, d:]
    scale *= np.float32(alpha / size)
    scale += np.float32(k)
    return _normalised(x, scale, beta)


def within_channel(x: np.ndarray, size: int, alpha: float, beta: float) -> np.ndarray:
    """With s = 1 + alpha * the mean of squares over size x size pixels, zeros around the image counted in."""
    h, w = (PoolAxis(n, size, 1, (size - 1) // 2, True) for n in x.shape[2:])
    scale = pool_sum(np.square(x), h, w)
    scale *= np.float32(alpha / size**2)
    scale += np.float32(1)
    return _normalised(x, scale, beta)


def _normalised(x: np.ndarray, scale: np.ndarray, beta: float) -> np.ndarray:
    np.power(scale, np.float32(-beta), out=scale)
    scale *= x
    return scale
