"""Fillers: each type's distribution, as filler.hpp has it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from caffe_fcn import fillers
from caffe_fcn.errors import CaffeError
from caffe_fcn.formats import caffe_pb2

SHAPE = (40, 30, 8, 8)  # fan in 1920, fan out 2560


def drawn(shape=SHAPE, **settings) -> np.ndarray:
    fillers.seed(0)
    return fillers.fill(caffe_pb2.FillerParameter(**settings), shape)


def is_uniform(data: np.ndarray, low: float, high: float) -> None:
    """Kolmogorov and Smirnov's distance to the distribution, which 1.6 / sqrt(n) exceeds once in 100."""
    flat = np.sort(data.ravel().astype(np.float64))
    assert low <= flat[0] < flat[-1] <= high
    expected = (flat - low) / (high - low)
    assert np.abs(expected - np.arange(len(flat)) / len(flat)).max() < 1.6 / math.sqrt(len(flat))


def is_normal(data: np.ndarray, mean: float, std: float) -> None:
    flat = np.sort(data.ravel().astype(np.float64))
    expected = np.array([0.5 + 0.5 * math.erf((x - mean) / std / math.sqrt(2)) for x in flat[::7]])
    ranks = np.arange(0, len(flat), 7) / len(flat)
    assert np.abs(expected - ranks).max() < 1.6 / math.sqrt(len(flat))


def test_constant():
    assert (drawn(type="constant", value=2.5) == 2.5).all()
    assert not drawn().any(), "a filler without a type is constant, and zero"


def test_uniform():
    is_uniform(drawn(type="uniform", min=-3, max=5), -3, 5)
    is_uniform(drawn(type="uniform"), 0, 1)


def test_gaussian():
    is_normal(drawn(type="gaussian", mean=2, std=0.5), 2, 0.5)
    is_normal(drawn(type="gaussian"), 0, 1)


@pytest.mark.parametrize("sparse", [0, 10, 40])
def test_gaussian_with_few_inputs_that_are_not_zero(sparse):
    """The chance of each is sparse / shape[0], whatever the number of inputs."""
    data = drawn(type="gaussian", std=2, sparse=sparse)
    chance = sparse / 40
    spread = math.sqrt(chance * (1 - chance) / data.size)
    assert abs((data != 0).mean() - chance) <= 4 * spread
    if sparse:
        is_normal(data[data != 0], 0, 2)


def test_positive_unitball():
    data = drawn(type="positive_unitball")
    assert (data >= 0).all()
    np.testing.assert_allclose(data.reshape(40, -1).sum(axis=1), 1, rtol=1e-5)
    is_uniform(data / data.max(axis=(1, 2, 3), keepdims=True), 0, 1)


@pytest.mark.parametrize(("norm", "n"), [("FAN_IN", 1920), ("FAN_OUT", 2560), ("AVERAGE", 2240)])
def test_xavier_and_msra_go_by_the_fan(norm, n):
    scale = math.sqrt(3 / n)
    is_uniform(drawn(type="xavier", variance_norm=norm), -scale, scale)
    is_normal(drawn(type="msra", variance_norm=norm), 0, math.sqrt(2 / n))


def test_the_fan_of_a_blob_of_one_axis():
    """Each of its elements has one input; all of them count as outputs."""
    is_uniform(drawn((5000,), type="xavier"), -math.sqrt(3), math.sqrt(3))
    scale = math.sqrt(3 / 5000)
    is_uniform(drawn((5000,), type="xavier", variance_norm="FAN_OUT"), -scale, scale)


@pytest.mark.parametrize("size", range(1, 9))
def test_bilinear(size):
    factor = math.ceil(size / 2)
    centre = (size - 1) / (2 * factor)
    tent = [1 - abs(i / factor - centre) for i in range(size)]
    data = drawn((3, 2, size, size), type="bilinear")
    np.testing.assert_allclose(data, np.broadcast_to(np.outer(tent, tent), data.shape), rtol=1e-6)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"type": "xaver"}, "unknown filler type 'xaver'\n.*xavier"),
        ({"type": "uniform", "min": 2, "max": 1}, "min 2.0 > max 1.0"),
        ({"type": "gaussian", "std": -1}, "std -1.0 is negative"),
        ({"type": "gaussian", "sparse": -2}, "sparse -2"),
        ({"type": "xavier", "sparse": 3}, "only the gaussian filler knows `sparse`"),
    ],
)
def test_what_makes_no_sense(settings, told):
    with pytest.raises(CaffeError, match=told):
        drawn(**settings)


def test_bilinear_needs_a_square():
    with pytest.raises(CaffeError, match=r"square kernel in 4 axes, got \(1, 1, 2, 3\)"):
        drawn((1, 1, 2, 3), type="bilinear")


def test_a_seed_makes_it_repeatable_whenever_it_is_drawn():
    filler = caffe_pb2.FillerParameter(type="gaussian")
    found = []
    for first in (0, 1):
        fillers.seed(5)
        waiting = [fillers.later(filler), fillers.later(filler)]
        values = {i: waiting[i]((3, 4)) for i in (first, 1 - first)}
        found.append((values[0], values[1]))
    assert np.array_equal(found[0], found[1])
    assert not np.array_equal(found[0][0], found[0][1])
    assert found[0][0].dtype == np.float32
