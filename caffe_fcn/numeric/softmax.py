"""Softmax along one axis."""

from __future__ import annotations

import numpy as np


def softmax(x: np.ndarray, axis: int) -> np.ndarray:
    """exp(x) over its sum along `axis`; the maximum is subtracted first, so that nothing overflows."""
    if x.size == 0:
        return x.copy()
    top = x - x.max(axis, keepdims=True)
    np.exp(top, out=top)
    top /= top.sum(axis, keepdims=True)
    return top
