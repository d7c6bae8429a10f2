"""What the numbers of a weights blob look like."""

from __future__ import annotations

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
    least, most, total, squares, zeros, odd = np.inf, -np.inf, 0.0, 0.0, 0, 0
    for start in range(0, flat.size, CHUNK):
        piece = flat[start : start + CHUNK]
        with np.errstate(over="ignore"):
            square = float(np.dot(piece, piece))
        if not np.isfinite(square):
            fine = piece[np.isfinite(piece)].astype(np.float64)
            odd += piece.size - fine.size
            piece, square = fine, float(np.dot(fine, fine))
        if piece.size:
            least, most = min(least, float(piece.min())), max(most, float(piece.max()))
        total += float(piece.sum(dtype=np.float64))
        squares += square
        zeros += piece.size - int(np.count_nonzero(piece))
    number = flat.size - odd
    if not number:
        return Statistics(0, 0, 0, 0, 0, odd, flat.size, [])
    sample = flat[:: -(-flat.size // SAMPLE)]
    sample = sample[np.isfinite(sample)].astype(np.float64)  # in which bins between any two float32 differ
    bars = np.histogram(sample, BINS, (least, most))[0].tolist() if most > least else [len(sample)]
    return Statistics(least, most, total / number, squares**0.5, zeros, odd, flat.size, bars)
