"""What the numbers of a weights blob look like."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

CHUNK = 1 << 18  # values looked at together: what fits a processor's cache
SAMPLE = 1 << 17  # values that the histogram of a larger blob is made from
BINS = 40


class Statistics(NamedTuple):
    """Of all values, but for the histogram of a blob with more than SAMPLE, which is of a regular sample."""

    least: float
    most: float
    mean: float
    norm: float  # square root of the sum of squares
    zeros: int
    odd: int  # neither finite nor counted above
    size: int
    histogram: list[int]  # of BINS equal steps from the least to the most


def statistics(values: np.ndarray) -> Statistics:
    """Look at every value once, in pieces, so that a mapped file need not fit into memory."""
    flat = values.reshape(-1)
    pieces = (flat[start : start + CHUNK] for start in range(0, flat.size, CHUNK))
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:  # the pages are read as fast as it goes
        looked = [
            part for part in (threads.map if flat.size > 4 * CHUNK else map)(_looked, pieces) if part[5]
        ]
    number = sum(part[5] for part in looked)
    odd = flat.size - number
    if not number:
        return Statistics(0, 0, 0, 0, 0, odd, flat.size, [])
    least, most = min(part[0] for part in looked), max(part[1] for part in looked)
    total, squares, zeros = sum(p[2] for p in looked), sum(p[3] for p in looked), sum(p[4] for p in looked)
    sample = flat[:: -(-flat.size // SAMPLE)]
    sample = sample[np.isfinite(sample)].astype(np.float64)  # in which bins between any two float32 differ
    bars = np.histogram(sample, BINS, (least, most))[0].tolist() if most > least else [len(sample)]
    return Statistics(least, most, total / number, squares**0.5, zeros, odd, flat.size, bars)


def _looked(piece: np.ndarray) -> tuple[float, float, float, float, int, int]:
    """Least, most, sum, sum of squares, zeros and number of the finite values."""
    with np.errstate(over="ignore", invalid="ignore"):
        square, total = (
            float(np.dot(piece, piece)),
            float(piece.sum()),
        )  # pairwise: off by 1e-6 of |x| at most
    if not np.isfinite(square + total):
        piece = piece[np.isfinite(piece)].astype(np.float64)
        square, total = float(np.dot(piece, piece)), float(piece.sum())
    if not piece.size:
        return 0.0, 0.0, 0.0, 0.0, 0, 0
    zeros = int(np.count_nonzero(piece == 0))
    return float(piece.min()), float(piece.max()), total, square, zeros, piece.size
