"""Commands that have no test file of their own: what they write, print and return."""

from __future__ import annotations

import json

import numpy as np
import pytest

import caffe_fcn
from caffe_fcn.cli import call
from caffe_fcn.formats import caffe_pb2
from caffe_fcn.formats.caffemodel import read
from caffe_fcn.formats.prototxt import read_net
from tests.conftest import HERE, REFERENCE

NETS = REFERENCE / "nets"


def run(command: str, *words: object) -> int:
    return call(command, [str(w) for w in words], prog=f"caffe-fcn {command}")


@pytest.mark.parametrize(
    "pair", sorted((REFERENCE / "upgrade").glob("*.upgraded.prototxt")), ids=lambda p: p.name
)
def test_upgrade_text(pair, tmp_path):
    """Equal as messages to what Caffe's own tool made."""
    out = tmp_path / "new.prototxt"
    assert run("upgrade", str(pair).replace(".upgraded", ""), out) == 0
    assert read_net(out).net == read_net(pair).net


@pytest.mark.parametrize("name", ["legacy-v0", "legacy-v1"])
def test_upgrade_binary(name, tmp_path):
    """A caffemodel of 2013 or 2014 in today's form: the same weights under today's types."""
    out = tmp_path / "new.caffemodel"
    assert run("upgrade", NETS / f"{name}.caffemodel", out) == 0
    message = caffe_pb2.NetParameter.FromString(out.read_bytes())
    assert not message.layers
    old, new = (
        {layer.name: layer for layer in read(p) if layer.blobs} for p in (NETS / f"{name}.caffemodel", out)
    )
    assert list(new) == list(old)
    for layer in new.values():
        assert layer.type in ("Convolution", "InnerProduct")
        for a, b in zip(layer.blobs, old[layer.name].blobs, strict=True):
            np.testing.assert_array_equal(a.data, b.data)


def test_upgrade_of_neither(tmp_path, capsys):
    source = tmp_path / "x.bin"
    source.write_bytes(b"\x00\x01\x02 neither")
    assert run("upgrade", source, tmp_path / "out") == 1
    assert "x.bin" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_deploy(tmp_path):
    out = tmp_path / "deploy.prototxt"
    val = HERE.parent / "prototxts" / "voc-fcn16s" / "val.prototxt"
    assert run("deploy", val, out, "--input-shape", "data:1,3,500,500") == 0
    net = caffe_fcn.Net(out)
    assert net.inputs == ["data"]
    assert net.outputs == ["score"]
    assert "label" not in net.blobs


def test_weights(capsys):
    assert run("weights", NETS / "fcn32s-thin.caffemodel", "--stats", "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows[0]["layer"] == "conv1_1"
    assert rows[0]["shape"][1:] == [3, 3, 3]
    assert rows[0]["min"] < rows[0]["mean"] < rows[0]["max"]
    assert run("weights", NETS / "fcn32s-thin.caffemodel") == 0
    assert "parameters" in capsys.readouterr().out


def test_convert_json(tmp_path, capsys):
    net = NETS / "fcn8s-thin-1px"
    out = tmp_path / "x.onnx"
    assert run("convert", f"{net}.prototxt", f"{net}.caffemodel", out, "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["outputs"] == {"score": ["N", 21, "H", "W"]}
    assert summary["verified"]["worst_difference"] < 1e-4
    assert summary["bytes"] == out.stat().st_size


def test_list_passes(capsys):
    with pytest.raises(SystemExit) as stopped:
        run("convert", "--list-passes")
    assert stopped.value.code == 0
    assert "group-deconvolution" in capsys.readouterr().out


def test_unknown_pass(tmp_path, capsys):
    net = NETS / "fcn8s-thin-1px"
    assert run("convert", f"{net}.prototxt", "-", tmp_path / "x.onnx", "--no-pass", "group-deconv") == 1
    assert "did you mean group-deconvolution" in capsys.readouterr().err


def test_mean_file(tmp_path):
    """A mean.binaryproto is averaged per channel into the file."""
    from caffe_fcn.formats.binaryproto import write_blob
    from caffe_fcn.runtime import Session

    write_blob(tmp_path / "mean.binaryproto", np.arange(12, dtype=np.float32).reshape(1, 3, 2, 2))
    net, out = NETS / "fcn8s-thin-1px", tmp_path / "x.onnx"
    words = ("--preprocess", "--mean", tmp_path / "mean.binaryproto", "--scale", "0.5", "--quiet")
    assert run("convert", f"{net}.prototxt", f"{net}.caffemodel", out, *words) == 0
    meta = Session(out, "cpu").metadata
    assert json.loads(meta["mean"]) == [1.5, 5.5, 9.5]
    assert json.loads(meta["scale"]) == 0.5
