"""The full-width voc-fcn8s against real Caffe: 134 million weights, 538 MB."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import caffe_fcn
from caffe_fcn.conversion import convert
from caffe_fcn.runtime import Session
from tests.conftest import HERE, REFERENCE

pytestmark = pytest.mark.slow

DEPLOY = HERE.parent / "prototxts" / "voc-fcn8s" / "deploy.prototxt"
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    sys.path.insert(0, str(HERE.parent / "tools"))
    from recipe_weights import make

    path = tmp_path_factory.mktemp("full") / "recipe.caffemodel"
    make(DEPLOY, path)
    return path


@pytest.fixture(scope="module")
def stored():
    with np.load(REFERENCE / "full" / "fcn8s-334x500.npz") as data:
        return dict(data)


@pytest.fixture(scope="module")
def picture():
    return (np.random.RandomState(1).standard_normal((1, 3, 334, 500)) * 60).astype(np.float32)


def check_score(score: np.ndarray, stored: dict[str, np.ndarray]) -> None:
    assert (score.argmax(axis=1) == stored["label"]).mean() >= 0.9999
    sample = stored["score:stride5"]
    assert np.abs(score[:, :, ::5, ::5] - sample).max() <= TOLERANCE * np.abs(sample).max()


def test_numpy(weights, stored, picture):
    net = caffe_fcn.Net(DEPLOY, weights, caffe_fcn.TEST)
    net.blobs["data"].reshape(*picture.shape)
    net.forward(data=picture)
    for key, sample in stored.items():
        if key.startswith("sample:"):
            name = key.removeprefix("sample:")
            values = net.blobs[name].data.reshape(-1)[stored[f"index:{name}"]]
            largest = np.abs(stored[f"stats:{name}"][:2]).max()
            assert net.blobs[name].shape == tuple(stored[f"shape:{name}"])
            assert np.abs(values - sample).max() <= TOLERANCE * largest, name
    check_score(net.blobs["score"].data, stored)


def test_onnx(weights, stored, picture, tmp_path):
    convert(DEPLOY, weights, tmp_path / "fcn8s.onnx", verify=False)
    check_score(Session(tmp_path / "fcn8s.onnx", "cpu").run({"data": picture})["score"], stored)
