"""Real trained models, converted as they are, against what stock Caffe computed."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from caffe_fcn.conversion import convert
from caffe_fcn.runtime import Session
from tests.conftest import SHARED

pytestmark = pytest.mark.shared

FOLDERS = sorted(p.parent for p in SHARED.glob("models/*/caffe_outputs.npz"))


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_model(folder, tmp_path):
    with np.load(folder / "caffe_outputs.npz") as data:
        stored = dict(data)
    shapes = {k.removeprefix("in:"): tuple(v) for k, v in stored.items() if k.startswith("in:")}
    told = (
        {"data": shapes["data"]} if folder.name == "cifar_resnet20" else {}
    )  # its data layer tells no shape
    path = tmp_path / "net.onnx"
    convert(folder / str(stored["prototxt"]), folder / str(stored["caffemodel"]), path, input_shapes=told)
    random = np.random.RandomState(zlib.crc32(folder.name.encode()))
    scale = float(stored["scale"])
    fed = {
        n: random.uniform(-1, 1, shape).astype(np.float32) * np.float32(scale) for n, shape in shapes.items()
    }
    got = Session(path, "cpu").run(fed)
    if folder.name == "cifar_resnet20":  # stock Caffe ran it with a Softmax for its loss
        got = {"prob": softmax(got["fc1"])}
    names = [k.removeprefix("shape:") for k in stored if k.startswith("shape:")]
    assert names
    for name in names:
        assert got[name].shape == tuple(stored[f"shape:{name}"])
        values, expected = got[name].reshape(-1)[stored[f"index:{name}"]], stored[f"value:{name}"]
        assert np.abs(values - expected).max() <= 1e-4 * np.abs(expected).max(), name


def test_half_precision_blobs(tmp_path):
    """NVCaffe's raw_data; no outputs of Caffe are stored, so the file is held against the reference pass."""
    folder = SHARED / "models" / "hyperlpr_HorizonalFinemapping"
    result = convert(
        folder / "HorizonalFinemapping.prototxt",
        folder / "HorizonalFinemapping.caffemodel",
        tmp_path / "x.onnx",
    )
    assert result.verified.worst[1] < 1e-4
