"""verify: what is compared, and the command."""

from __future__ import annotations

import json

import numpy as np
import pytest

from caffe_fcn.cli import call
from caffe_fcn.conversion import convert
from caffe_fcn.verification import difference
from tests.conftest import REFERENCE
from tests.reference_cases import Case

CASE = Case(REFERENCE / "nets", "fcn8s-thin-1px")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "net.onnx"
    convert(CASE.prototxt, CASE.caffemodel, path, verify=False)
    return path


def run(*words: object) -> int:
    return call("verify", [str(w) for w in words], prog="caffe-fcn verify")


def test_at_any_size(model, capsys):
    assert run(CASE.prototxt, CASE.caffemodel, model, "--input-shape", "data:2,3,50,41", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["inputs"] == {"data": [2, 3, 50, 41]}
    assert report["worst_difference"] < 1e-4
    assert {"pool3", "fuse_pool4", "score"} <= set(report["differences"])


def test_against_stored_blobs(model, capsys):
    """Real Caffe's own blobs, as pycaffe scripts save them."""
    assert run(CASE.prototxt, CASE.caffemodel, model, "--blobs", CASE.folder / f"{CASE.name}.npz") == 0
    assert "worst" in capsys.readouterr().out


def test_wrong_blobs_are_named(model, tmp_path, capsys):
    stored = {**CASE.group("in:"), **CASE.group("out:")}
    stored["score"] = stored["score"] * 1.01
    np.savez(tmp_path / "blobs.npz", **stored)
    assert run(CASE.prototxt, CASE.caffemodel, model, "--blobs", tmp_path / "blobs.npz") == 1
    assert "'score' differs" in capsys.readouterr().err


def test_other_weights_are_noticed(model, tmp_path, capsys):
    from caffe_fcn.formats.caffemodel import read, write

    changed = [
        (layer.name, layer.type, [b.data.copy() for b in layer.blobs]) for layer in read(CASE.caffemodel)
    ]
    next(blobs for name, _, blobs in changed if name == "conv3_2")[0][0, 0, 0, 0] += 5
    write(tmp_path / "other.caffemodel", "net", changed)
    assert run(CASE.prototxt, tmp_path / "other.caffemodel", model) == 1
    assert "conv3_2" in capsys.readouterr().err


def test_difference():
    one = np.float32([1, -2])
    assert difference(one, one) == 0
    assert difference(one, one[:1]) == float("inf")
    assert np.isnan(difference(one, np.float32([1, np.inf])))
    assert difference(np.float32([1, -2.2]), one) == pytest.approx(0.2 / 2.01, rel=1e-3)
