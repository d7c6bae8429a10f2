"""Sessions: the device asked for or an error, and messages that can be acted on."""

from __future__ import annotations

import json

import numpy as np
import pytest

from caffe_fcn.cli import call
from caffe_fcn.conversion import convert
from caffe_fcn.errors import CaffeError, DeviceError
from caffe_fcn.runtime import Session, cuda_driver
from tests.conftest import REFERENCE

NET = REFERENCE / "nets" / "fcn8s-thin-1px.prototxt"
without_gpu = pytest.mark.skipif(cuda_driver(), reason="an NVIDIA driver is here")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "net.onnx"
    convert(NET, NET.with_suffix(".caffemodel"), path, verify=False)
    return path


@without_gpu
def test_cuda_is_never_the_cpu_in_silence(model):
    with pytest.raises(DeviceError, match="CUDA was asked for"):
        Session(model, "cuda")


@without_gpu
def test_auto_says_what_it_took(model):
    assert Session(model, "auto").device == "cpu"


@pytest.mark.gpu
@pytest.mark.parametrize("size", [(1, 1), (37, 45), (334, 500)], ids=str)
def test_cuda_computes_what_the_cpu_does(model, size):
    """Outputs are compared, not only times: a Slice with run-time ends once came back uncut on CUDA."""
    data = np.random.default_rng(0).normal(0, 60, (2, 3, *size)).astype(np.float32)
    expected = Session(model, "cpu").run({"data": data})["score"]
    got = Session(model, "cuda").run({"data": data})["score"]
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() <= 1e-4 * np.abs(expected).max()


def test_garbage_is_no_model(tmp_path):
    path = tmp_path / "x.onnx"
    path.write_bytes(b"no model at all")
    with pytest.raises(CaffeError, match=r"x\.onnx"):
        Session(path, "cpu")


def test_wrong_inputs(model):
    session = Session(model, "cpu")
    with pytest.raises(CaffeError, match="data"):
        session.run({"image": np.zeros((1, 3, 8, 8), np.float32)})
    with pytest.raises(CaffeError):
        session.run({"data": np.zeros((1, 4, 8, 8), np.float32)})


def test_doctor(capsys):
    assert call("doctor", ["--json"], prog="caffe-fcn doctor") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["devices"]["cpu"] is None
    assert found["packages"]["numpy"]
    assert call("doctor", [], prog="caffe-fcn doctor") == 0
    assert "cpu: starts" in capsys.readouterr().out


def test_doctor_on_both_packages():
    from caffe_fcn.cli.doctor import _advice

    both = {"onnxruntime": "1", "onnxruntime-gpu": "1"}
    assert any("both installed" in line for line in _advice(both, {"cpu": None, "cuda": None}))
    assert any("no onnxruntime" in line for line in _advice(dict.fromkeys(both), {"cpu": None, "cuda": None}))
