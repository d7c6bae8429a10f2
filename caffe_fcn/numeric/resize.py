"""Resampling of the last two axes of float32 arrays, (N, C, H, W)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Taps(NamedTuple):
    """For each output position along an axis: the two input positions it is mixed from, and their weights."""

    first: np.ndarray
    second: np.ndarray
    weight_first: np.ndarray
    weight_second: np.ndarray


def aligned(size: int, out: int) -> Taps:
    """The first and the last positions lie on each other (interp.cpp of DeepLab)."""
    step = np.float32(size - 1) / np.float32(out - 1) if out > 1 else np.float32(0)
    at = step * np.arange(out, dtype=np.float32)
    first = at.astype(np.int64)
    part = at - first.astype(np.float32)
    return Taps(first, np.minimum(first + 1, size - 1), 1 - part, part)


def centred(size: int, out: int) -> Taps:
    """Pixel centres lie on each other and the edge is repeated, as in cv::resize on floats."""
    at = ((np.arange(out) + 0.5) * (size / out) - 0.5).astype(np.float32)
    first = np.floor(at).astype(np.int64)
    part = at - first.astype(np.float32)
    return Taps(first.clip(0, size - 1), (first + 1).clip(0, size - 1), 1 - part, part)


def cornered(size: int, out: int) -> Taps:
    """The first positions lie on each other; beyond the last are zeros (util_img.cpp of caffe-windows)."""
    at = np.arange(out, dtype=np.float32) * (np.float32(size) / np.float32(out))
    first = np.minimum(np.floor(at).astype(np.int64), size - 1)
    part = at - first.astype(np.float32)
    inside = first + 1 < size
    return Taps(first, np.where(inside, first + 1, first), 1 - part, np.where(inside, part, np.float32(0)))


def linear(x: np.ndarray, height: int, width: int, taps: Callable[[int, int], Taps]) -> np.ndarray:
    """Bilinear interpolation to (N, C, height, width); `taps` says what lies on what."""
    w, h = taps(x.shape[3], width), taps(x.shape[2], height)
    rows = x[..., w.first] * w.weight_first + x[..., w.second] * w.weight_second
    upper, lower = h.weight_first[:, None], h.weight_second[:, None]
    return rows[:, :, h.first] * upper + rows[:, :, h.second] * lower


def matrix(taps: Taps, size: int) -> np.ndarray:
    """Taps as a matrix (out, size) to multiply a column of `size` elements with."""
    out = np.arange(len(taps.first))
    weights = np.zeros((len(out), size), np.float32)
    np.add.at(weights, (out, taps.first), taps.weight_first)
    np.add.at(weights, (out, taps.second), taps.weight_second)
    return weights


def nearest(size: int, out: int) -> np.ndarray:
    """The element that each output position takes, as in cv::resize with INTER_NEAREST. (out,) int64."""
    return np.floor(np.arange(out) * (1 / (out / size))).astype(np.int64).clip(0, size - 1)


def unpool(x: np.ndarray, positions: np.ndarray, height: int, width: int) -> np.ndarray:
    """Elements at `positions`, h * width + w in each channel, of planes of zeros.

    Of several elements at one position the last stays. The positions must lie inside (upsample_layer.cpp of
    SegNet).
    """
    n, c = x.shape[:2]
    top = np.zeros((n, c, height * width), np.float32)
    channels = np.arange(n * c).repeat(x.shape[2] * x.shape[3])
    top.reshape(n * c, -1)[channels, positions.reshape(-1).astype(np.int64)] = x.reshape(-1)
    return top.reshape(n, c, height, width)
