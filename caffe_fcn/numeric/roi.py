"""Pooling of regions: boxes (R, 5) of [item, x1, y1, x2, y2] on maps (N, C, H, W), float32."""

from __future__ import annotations

import numpy as np


def round_away(x: np.ndarray) -> np.ndarray:
    """C's round: halves away from zero."""
    return np.copysign(np.floor(np.abs(x) + np.float32(0.5)), x)


def roi_pool(x: np.ndarray, rois: np.ndarray, pooled: tuple[int, int], scale: float) -> np.ndarray:
    """The maximum of each of pooled_h x pooled_w bins of every box; 0 of an empty one.

    Returns (R, C, pooled_h, pooled_w). The items must be inside the batch (roi_pooling_layer.cpp).
    """
    corners = round_away(rois[:, 1:5] * np.float32(scale)).astype(np.int64)
    top = np.zeros((len(rois), x.shape[1], *pooled), np.float32)
    for r, (x1, y1, x2, y2) in enumerate(corners):
        plane = x[int(rois[r, 0])]
        for i, (top_, bottom) in enumerate(_bins(y1, y2, pooled[0], x.shape[2])):
            rows = plane[:, top_:bottom]
            for j, (left, right) in enumerate(_bins(x1, x2, pooled[1], x.shape[3])):
                if bottom > top_ and right > left:
                    top[r, :, i, j] = rows[:, :, left:right].max(axis=(1, 2))
    return top


def _bins(start: int, stop: int, count: int, size: int) -> list[tuple[int, int]]:
    """(start, end) of each bin of start..stop, both included, cut at the map."""
    step = np.float32(max(stop - start + 1, 1)) / np.float32(count)
    each = np.arange(count + 1, dtype=np.float32)
    starts = np.floor(each[:-1] * step).astype(np.int64) + start
    ends = np.ceil(each[1:] * step).astype(np.int64) + start
    return list(zip(starts.clip(0, size), ends.clip(0, size), strict=True))


def psroi_bins(rois: np.ndarray, group: int, scale: float, sizes: tuple[int, int]) -> list[np.ndarray]:
    """Bounds of the bins of PSROIPooling: top, bottom, left, right, each (R, group) int64, cut at the map."""
    corners = round_away(rois[:, 1:5])
    start = corners[:, :2] * np.float32(scale)
    length = np.maximum((corners[:, 2:] + 1) * np.float32(scale) - start, np.float32(0.1))
    step, each = length / np.float32(group), np.arange(group + 1, dtype=np.float32)
    bounds = []
    for axis, size in ((1, sizes[0]), (0, sizes[1])):
        begin, by = start[:, axis, None], step[:, axis, None]
        bounds += [np.floor(each[:-1] * by + begin), np.ceil(each[1:] * by + begin)]
        bounds[-2:] = [b.astype(np.int64).clip(0, size) for b in bounds[-2:]]
    return bounds


def psroi_pool(x: np.ndarray, rois: np.ndarray, outputs: int, group: int, scale: float) -> np.ndarray:
    """The mean of each bin, bin (i, j) of output d in channel (d * group + i) * group + j; 0 of an empty one.

    Returns (R, outputs, group, group) (psroi_pooling_layer.cu of R-FCN).
    """
    maps = x.reshape(len(x), outputs, group, group, *x.shape[2:])
    tops, bottoms, lefts, rights = psroi_bins(rois, group, scale, (x.shape[2], x.shape[3]))
    top = np.zeros((len(rois), outputs, group, group), np.float32)
    for r, i, j in np.ndindex(len(rois), group, group):
        cut = maps[int(rois[r, 0]), :, i, j, tops[r, i] : bottoms[r, i], lefts[r, j] : rights[r, j]]
        if cut.size:
            top[r, :, i, j] = cut.mean(axis=(1, 2), dtype=np.float64)
    return top
