"""Boxes of detectors: priors and anchors, what a net says of them, and what is left of those that overlap.

Boxes are (..., 4) float32 arrays of x1, y1, x2, y2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

F = np.float32


def prior_sizes(
    min_sizes: Sequence[float], max_sizes: Sequence[float], ratios: Sequence[float]
) -> np.ndarray:
    """(priors, 2) widths and heights in pixels at one cell (prior_box_layer.cpp of SSD).

    Sizes are cut to whole pixels, as there. `ratios` are those beside 1.
    """
    sizes: list[tuple[float, float]] = []
    for i, low in enumerate(map(int, min_sizes)):
        sizes.append((low, low))
        if len(max_sizes):
            sizes.append((np.sqrt(low * int(max_sizes[i])),) * 2)
        sizes += [(low * np.sqrt(ratio), low / np.sqrt(ratio)) for ratio in ratios]
    return np.asarray(sizes, F)


def prior_boxes(
    sizes: np.ndarray,
    places: np.ndarray,
    cells: tuple[int, int],
    image: tuple[float, float],
    step: tuple[float, float],
    offset: tuple[float, float],
) -> np.ndarray:
    """(H * W * priors, 4) boxes around a point of each cell, as shares of the image.

    Args:
        sizes, places: (priors, 2) widths and heights; x and y from that point. Pixels.
        cells, image, step, offset: (height, width); a step is in pixels, an offset in cells.
    """
    y, x = ((np.arange(n, dtype=F) + F(to)) * F(by) for n, to, by in zip(cells, offset, step, strict=True))
    half = sizes.astype(np.float64) / 2
    boxes = np.empty((*cells, len(sizes), 4))
    boxes[..., 0] = x[None, :, None] + places[:, 0] - half[:, 0]
    boxes[..., 1] = y[:, None, None] + places[:, 1] - half[:, 1]
    boxes[..., 2] = x[None, :, None] + places[:, 0] + half[:, 0]
    boxes[..., 3] = y[:, None, None] + places[:, 1] + half[:, 1]
    return (boxes / [image[1], image[0], image[1], image[0]]).reshape(-1, 4).astype(F)


def decode(priors: np.ndarray, variance: np.ndarray | None, code: str, moves: np.ndarray) -> np.ndarray:
    """The boxes that predictions `moves` make of the priors (DecodeBBox in bbox_util.cpp of SSD).

    Args:
        variance: what the predictions are multiplied by; None if it is in them already.
        code: CORNER (added to the corners), CORNER_SIZE (added in widths and heights of the prior) or
            CENTER_SIZE (the centre moves in these, the size grows by exp).
    """
    moves = moves if variance is None else moves * variance
    if code == "CORNER":
        return priors + moves
    size = priors[..., 2:] - priors[..., :2]
    if code == "CORNER_SIZE":
        return priors + moves * np.concatenate([size, size], axis=-1)
    centre = moves[..., :2] * size + (priors[..., :2] + priors[..., 2:]) / 2
    with np.errstate(over="ignore"):
        half = np.exp(moves[..., 2:]) * size / 2
    return np.concatenate([centre - half, centre + half], axis=-1)


def overlap(box: np.ndarray, others: np.ndarray, extra: float = 0) -> np.ndarray:
    """Intersection over union of one box with others; a box that is upside down meets nothing.

    `extra` is what sides are longer than the difference of their ends: 1 for boxes of pixels.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        width = np.minimum(box[2], others[:, 2]) - np.maximum(box[0], others[:, 0]) + F(extra)
        height = np.minimum(box[3], others[:, 3]) - np.maximum(box[1], others[:, 1]) + F(extra)
        common = np.where((width > 0) & (height > 0), width * height, F(0))
        share = common / (area(box, extra) + area(others, extra) - common)
    return np.where(common > 0, share, F(0))


def area(boxes: np.ndarray, extra: float = 0) -> Any:
    """Width times height."""
    return (boxes[..., 2] - boxes[..., 0] + F(extra)) * (boxes[..., 3] - boxes[..., 1] + F(extra))


def suppress(
    boxes: np.ndarray, order: np.ndarray, threshold: float, most: int = -1, eta: float = 1, extra: float = 0
) -> list[int]:
    """Of the boxes in `order`, best first, those that overlap no kept one by more than `threshold`.

    At most `most` of them. With `eta` below 1 the threshold is multiplied by it after each that is kept,
    while it is above 0.5 (ApplyNMSFast in bbox_util.cpp of SSD).
    """
    kept: list[int] = []
    limit = F(threshold)
    if eta >= 1:  # the threshold stays: each kept box strikes out all that follow at once
        while len(order) and len(kept) != most:
            best, order = int(order[0]), order[1:]
            kept.append(best)
            order = order[~(overlap(boxes[best], boxes[order], extra) > limit)]
        return kept
    for index in order:
        if len(kept) == most:
            break
        if not kept or not (overlap(boxes[index], boxes[kept], extra) > limit).any():
            kept.append(int(index))
            if limit > 0.5:
                limit *= F(eta)
    return kept


def descending(scores: np.ndarray) -> np.ndarray:
    """Indices of scores, the greatest first; the first of equals first."""
    return np.argsort(-scores, kind="stable")


def anchors(base: int, ratios: Sequence[float], scales: Sequence[float]) -> np.ndarray:
    """(ratios * scales, 4) boxes around a cell of `base` pixels (generate_anchors of Faster R-CNN)."""
    centre, made = (base - 1) / 2, []
    for ratio in ratios:
        width = np.floor(np.sqrt(base * base / ratio) + 0.5)
        height = np.floor(width * ratio + 0.5)
        for scale in scales:
            w, h = (width * scale - 1) / 2, (height * scale - 1) / 2
            made.append((centre - w, centre - h, centre + w, centre + h))
    return np.asarray(made, F)


def shifted(cell: np.ndarray, height: int, width: int, stride: int) -> np.ndarray:
    """(height * width * A, 4): the anchors (A, 4) of one cell at every cell."""
    y, x = np.mgrid[:height, :width].astype(F) * F(stride)
    shift = np.stack([x, y, x, y], axis=-1)[:, :, None]
    return (shift + cell).reshape(-1, 4)


def move(boxes: np.ndarray, moves: np.ndarray) -> np.ndarray:
    """Boxes of pixels (N, 4), moved by (dx, dy) of their size and grown by exp(dw, dh) (Faster R-CNN)."""
    size = boxes[:, 2:] - boxes[:, :2] + 1
    centre = moves[:, :2] * size + (boxes[:, :2] + size / 2)
    with np.errstate(over="ignore"):
        half = np.exp(moves[:, 2:]) * size / 2
    return np.concatenate([centre - half, centre + half], axis=1)
