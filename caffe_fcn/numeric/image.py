"""Pixels: the arithmetic of OpenCV on 8-bit images, (channels, height, width) uint8."""

from __future__ import annotations

import numpy as np

_BITS = 11  # of the fixed-point weights in OpenCV's resize


def _taps(size: int, out: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """For each output position: the two input positions it lies between, and their weights out of 2048."""
    scale = size / out
    at = ((np.arange(out) + 0.5) * scale - 0.5).astype(np.float32)
    first = np.floor(at).astype(np.int64)
    part = at - first.astype(np.float32)
    left, right = (np.rint(weight * np.float32(1 << _BITS)).astype(np.int64) for weight in (1 - part, part))
    return first.clip(0, size - 1), (first + 1).clip(0, size - 1), left, right


def resize_linear(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """cv::resize with INTER_LINEAR: pixel centres aligned, edges repeated, no smoothing when it shrinks."""
    if image.shape[1:] == (height, width):
        return image
    x = image.astype(np.int64)
    a, b, left, right = _taps(image.shape[2], width)
    x = x[:, :, a] * left + x[:, :, b] * right
    a, b, upper, lower = _taps(image.shape[1], height)
    upper, lower = upper[:, None], lower[:, None]
    x = ((upper * (x[:, a] >> 4)) >> 16) + ((lower * (x[:, b] >> 4)) >> 16)
    return ((x + 2) >> 2).astype(np.uint8)
