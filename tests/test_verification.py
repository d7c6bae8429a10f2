"""verify: what is compared, and the command."""

from __future__ import annotations

import json

import numpy as np
import pytest

from caffe_fcn import verification
from caffe_fcn.cli import call
from caffe_fcn.conversion import convert
from caffe_fcn.errors import VerifyError
from caffe_fcn.net import Net
from caffe_fcn.verification import difference, random_inputs
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


DETECTOR = """
layer { name: "loc" type: "Input" top: "loc" input_param { shape { dim: 1 dim: 16 } } }
layer { name: "conf" type: "Input" top: "conf" input_param { shape { dim: 1 dim: 8 } } }
layer { name: "priors" type: "Input" top: "priors" input_param { shape { dim: 1 dim: 2 dim: 16 } } }
layer { name: "shift" type: "Power" bottom: "conf" top: "conf" power_param { shift: 0.5 } }
layer { name: "twice" type: "Power" bottom: "conf" top: "twice" power_param { scale: 2 } }
layer { name: "found" type: "DetectionOutput" bottom: "loc" bottom: "conf" bottom: "priors" top: "found"
        detection_output_param { num_classes: 2 code_type: CORNER } }
"""


@pytest.mark.parametrize(("changed", "passes"), [("found", True), ("twice", False)])
def test_rewriting_may_choose_other_boxes_and_no_more(changed, passes, tmp_path, monkeypatch):
    """onnxruntime's rewriting changes last bits, and these choose; what nothing chose has to stay.

    The input that a layer in place changes is there again when layers are compared one by one.
    """
    real = verification.Session

    class Rewritten(real):
        def __init__(self, path, device, *, optimize=True):
            super().__init__(path, device, optimize=optimize)
            self.rewrites = optimize

        def run(self, *args):
            got = super().run(*args)
            return {**got, changed: got[changed][..., ::-1] + 1} if self.rewrites else got

    monkeypatch.setattr(verification, "Session", Rewritten)
    (tmp_path / "net.prototxt").write_text(DETECTOR)
    if passes:
        report = convert(tmp_path / "net.prototxt", None, tmp_path / "net.onnx").verified
        assert report.grown > 0.1
        assert report.worst[1] < 1e-4
        return
    with pytest.raises(VerifyError, match="rewriting changes 'twice' by"):
        convert(tmp_path / "net.prototxt", None, tmp_path / "net.onnx")


def test_what_a_layer_can_take_is_found_through_a_reshape():
    """Markers of a sequence are 0 or 1, also where they come as one row (LRCN)."""
    net = Net("""
    layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 4 dim: 2 dim: 3 } } }
    layer { name: "cont" type: "Input" top: "cont" input_param { shape { dim: 8 } } }
    layer { name: "r" type: "Reshape" bottom: "cont" top: "r" reshape_param { shape { dim: 4 dim: 2 } } }
    layer { name: "lstm" type: "LSTM" bottom: "x" bottom: "r" top: "h" recurrent_param { num_output: 2 } }
    """)
    cont = random_inputs(net)["cont"]
    assert cont.shape == (8,)
    assert set(cont) <= {0.0, 1.0}
