"""Recurrent kernels. T time steps of N independent streams; `cont` (T, N) is 0 where a new sequence begins.

Gates lie side by side in Caffe's order: input, forget, output, candidate (lstm_unit_layer.cpp).
"""

from __future__ import annotations

import numpy as np


def sigmoid(x: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # exp of a large number is inf, and 1 / inf the right answer
        return 1 / (1 + np.exp(-x))


def lstm_unit(c: np.ndarray, gates: np.ndarray, cont: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One step: cell (..., D), gates (..., 4 D) before their nonlinearity, cont (...) -> new cell, hidden."""
    i, f, o, candidate = np.split(gates, 4, axis=-1)
    forget = np.where(cont[..., None] == 0, np.float32(0), cont[..., None] * sigmoid(f))
    c = forget * c + sigmoid(i) * np.tanh(candidate)
    return c, sigmoid(o) * np.tanh(c)


def lstm(
    x: np.ndarray, cont: np.ndarray, w_hidden: np.ndarray, h: np.ndarray, c: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """From what the input adds to the gates, (T, N, 4 D), and h, c (N, D): hidden (T, N, D), last cell."""
    steps = np.empty((*x.shape[:2], h.shape[-1]), np.float32)
    for t, reset in enumerate(cont):
        c, h = lstm_unit(c, x[t] + (reset[:, None] * h) @ w_hidden.T, reset)
        steps[t] = h
    return steps, c


def rnn(x: np.ndarray, cont: np.ndarray, w_hidden: np.ndarray, h: np.ndarray) -> np.ndarray:
    """From what the input adds, (T, N, D), and h (N, D): hidden (T, N, D)."""
    steps = np.empty(x.shape, np.float32)
    for t, reset in enumerate(cont):
        h = np.tanh(x[t] + (reset[:, None] * h) @ w_hidden.T)
        steps[t] = h
    return steps
