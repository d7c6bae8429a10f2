"""How a parameter starts before anything is learned (filler.hpp)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from caffe_fcn.errors import CaffeError, nearest

Shape = tuple[int, ...]
_random = np.random.default_rng()


def seed(value: int) -> None:
    """Make what the fillers (and a training Dropout) draw repeatable."""
    global _random
    _random = np.random.default_rng(value)


def random() -> np.random.Generator:
    """The generator that everything random in a net draws from."""
    return _random


def fill(filler: Any, shape: Shape) -> np.ndarray:
    """An array of `shape` (float32) drawn as FillerParameter `filler` says.

    Raises:
        CaffeError: the type is unknown, or its numbers make no sense for this shape.
    """
    if filler.type not in FILLERS:
        raise CaffeError(f"unknown filler type '{filler.type}'", nearest(filler.type, FILLERS))
    return np.asarray(FILLERS[filler.type](filler, shape), np.float32)


def _constant(f: Any, shape: Shape) -> np.ndarray:
    return np.full(shape, f.value, np.float32)


def _uniform(f: Any, shape: Shape) -> np.ndarray:
    if not f.min <= f.max:
        raise CaffeError(f"uniform filler: min {f.min} > max {f.max}")
    return random().uniform(f.min, f.max, shape)


def _gaussian(f: Any, shape: Shape) -> np.ndarray:
    if not f.std >= 0:
        raise CaffeError(f"gaussian filler: std {f.std} is negative")
    data = random().normal(f.mean, f.std, shape)
    if f.sparse >= 0:  # `sparse` inputs of each output are not zero, in expectation
        data *= random().random(shape) < min(1.0, f.sparse / max(shape[0], 1))
    return data


def _positive_unitball(_: Any, shape: Shape) -> np.ndarray:
    data = random().random(shape)
    rows = data.reshape(shape[0], -1) if shape else data.reshape(1, -1)
    return (rows / rows.sum(axis=1, keepdims=True)).reshape(shape)


def _fan(f: Any, shape: Shape) -> float:
    count = int(np.prod(shape, dtype=np.int64))
    fan_in, fan_out = count / max(shape[0], 1), count / max(shape[1] if len(shape) > 1 else 1, 1)
    if f.variance_norm == f.AVERAGE:
        return (fan_in + fan_out) / 2
    return fan_out if f.variance_norm == f.FAN_OUT else fan_in


def _xavier(f: Any, shape: Shape) -> np.ndarray:
    scale = np.sqrt(3 / max(_fan(f, shape), 1e-30))
    return random().uniform(-scale, scale, shape)


def _msra(f: Any, shape: Shape) -> np.ndarray:
    return random().normal(0, np.sqrt(2 / max(_fan(f, shape), 1e-30)), shape)


def _bilinear(_: Any, shape: Shape) -> np.ndarray:
    if len(shape) != 4 or shape[2] != shape[3]:
        raise CaffeError(f"bilinear filler: needs a square kernel in 4 axes, got {shape}")
    return np.broadcast_to(bilinear(shape[2]), shape)


def bilinear(size: int) -> np.ndarray:
    """(size, size) kernel that interpolates linearly in a Deconvolution of stride (size + 1) // 2."""
    factor = (size + 1) // 2
    tent = 1 - np.abs(np.arange(size) - (size - 1) / 2) / factor
    return np.outer(tent, tent)


FILLERS: dict[str, Callable[[Any, Shape], np.ndarray]] = {
    "constant": _constant,
    "uniform": _uniform,
    "gaussian": _gaussian,
    "positive_unitball": _positive_unitball,
    "xavier": _xavier,
    "msra": _msra,
    "bilinear": _bilinear,
}
