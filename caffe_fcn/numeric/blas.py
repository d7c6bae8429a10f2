"""Weights as BLAS can read them, in bounded memory, wherever in a file they lie."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

#: Bytes that a kernel takes beside its operands: one column buffer, or one copied piece of the weights.
BUFFER = 32 << 20


def settled(weights: np.ndarray) -> np.ndarray:
    """The weights at an address that BLAS can read, unless this would copy more than BUFFER.

    Weights are views into a file, where they start at any byte; NumPy copies the whole of such an operand
    for every product.
    """
    return weights if weights.flags.aligned or weights.nbytes > BUFFER else weights.copy()


def pieces(weights: np.ndarray, axis: int) -> Iterator[tuple[slice, np.ndarray]]:
    """(where, part) of the weights along `axis`: all if BLAS can read them, else copies."""
    length = weights.shape[axis]
    if weights.flags.aligned:
        yield slice(0, length), weights
        return
    step = max(1, length * BUFFER // (2 * weights.nbytes))  # the last one is still held when the next is made
    for start in range(0, length, step):
        part = slice(start, min(start + step, length))
        yield part, weights[(*(slice(None),) * axis, part)].copy(order="K")


def inner_product(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Multiply x (M, K) by weight (K, N)."""
    top = np.empty((x.shape[0], weight.shape[1]), np.float32)
    for part, some in pieces(weight, axis=1):
        np.matmul(x, some, out=top[:, part])
    return top
