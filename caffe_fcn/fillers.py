"""How a parameter starts before anything is learned (filler.hpp)."""

from __future__ import annotations

import math
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


def fill(filler: Any, shape: Shape, rng: np.random.Generator | None = None) -> np.ndarray:
    """An array of `shape` (float32) as FillerParameter `filler` says, drawn from `rng`, else from `random()`.

    Raises:
        CaffeError: the type is unknown, or its numbers make no sense for this shape.
    """
    if filler.type not in FILLERS:
        raise CaffeError(f"unknown filler type '{filler.type}'", nearest(filler.type, FILLERS))
    if filler.type != "gaussian" and filler.sparse != -1:
        raise CaffeError(f"{filler.type} filler: only the gaussian filler knows `sparse` ({filler.sparse})")
    return np.asarray(FILLERS[filler.type](filler, shape, rng or random()), np.float32)


def later(filler: Any) -> Callable[[Shape], np.ndarray]:
    """`fill` for when the array is needed; what it draws depends on when this is called, not on when that is.

    So two nets built from the same seed start alike, whichever parameters are read first.
    """
    start = int(random().integers(2**63))
    return lambda shape: fill(filler, shape, np.random.default_rng(start))


def _constant(f: Any, shape: Shape, _: np.random.Generator) -> np.ndarray:
    return np.full(shape, f.value, np.float32)


def _between(low: float, high: float, shape: Shape, rng: np.random.Generator) -> np.ndarray:
    data = rng.random(shape, np.float32)
    data *= np.float32(high - low)
    data += np.float32(low)
    return data


def _uniform(f: Any, shape: Shape, rng: np.random.Generator) -> np.ndarray:
    if not f.min <= f.max:
        raise CaffeError(f"uniform filler: min {f.min} > max {f.max}")
    return _between(f.min, f.max, shape, rng)


def _normal(mean: float, std: float, shape: Shape, rng: np.random.Generator) -> np.ndarray:
    data = rng.standard_normal(shape, np.float32)
    data *= np.float32(std)
    data += np.float32(mean)
    return data


def _gaussian(f: Any, shape: Shape, rng: np.random.Generator) -> np.ndarray:
    if not f.std >= 0:
        raise CaffeError(f"gaussian filler: std {f.std} is negative")
    if f.sparse < -1:
        raise CaffeError(f"gaussian filler: sparse {f.sparse} is neither a number of inputs nor -1 (all)")
    data = _normal(f.mean, f.std, shape, rng)
    if f.sparse >= 0:
        # Of an output's inputs `sparse` are to be not zero; the chance that Caffe gives each is this one.
        data *= rng.random(shape, np.float32) < min(1.0, f.sparse / max(_outputs(shape), 1))
    return data


def _positive_unitball(_: Any, shape: Shape, rng: np.random.Generator) -> np.ndarray:
    data = rng.random(shape)
    rows = data.reshape(_outputs(shape), math.prod(shape[1:]))
    return (rows / rows.sum(axis=1, keepdims=True)).reshape(shape)


def _outputs(shape: Shape) -> int:
    """The extent of the first axis, 1 where there is none (Blob::LegacyShape)."""
    return shape[0] if shape else 1


def _fan(f: Any, shape: Shape) -> float:
    count = math.prod(shape)
    fan_in, fan_out = count / max(_outputs(shape), 1), count / max(shape[1] if len(shape) > 1 else 1, 1)
    if f.variance_norm == f.AVERAGE:
        return (fan_in + fan_out) / 2
    return fan_out if f.variance_norm == f.FAN_OUT else fan_in


def _xavier(f: Any, shape: Shape, rng: np.random.Generator) -> np.ndarray:
    scale = math.sqrt(3 / max(_fan(f, shape), 1e-30))
    return _between(-scale, scale, shape, rng)


def _msra(f: Any, shape: Shape, rng: np.random.Generator) -> np.ndarray:
    return _normal(0, math.sqrt(2 / max(_fan(f, shape), 1e-30)), shape, rng)


def _bilinear(_: Any, shape: Shape, __: np.random.Generator) -> np.ndarray:
    if len(shape) != 4 or shape[2] != shape[3]:
        raise CaffeError(f"bilinear filler: needs a square kernel in 4 axes, got {shape}")
    return np.broadcast_to(bilinear(shape[2]), shape)


def bilinear(size: int) -> np.ndarray:
    """(size, size) kernel that interpolates linearly in a Deconvolution of stride (size + 1) // 2."""
    factor = (size + 1) // 2
    tent = 1 - np.abs(np.arange(size) - (size - 1) / 2) / factor
    return np.outer(tent, tent)


FILLERS: dict[str, Callable[[Any, Shape, np.random.Generator], np.ndarray]] = {
    "constant": _constant,
    "uniform": _uniform,
    "gaussian": _gaussian,
    "positive_unitball": _positive_unitball,
    "xavier": _xavier,
    "msra": _msra,
    "bilinear": _bilinear,
}
