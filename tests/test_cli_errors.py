"""Bad input: one or two lines that name the place, exit 1, nothing written, no traceback."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from caffe_fcn.cli import call
from caffe_fcn.formats.caffemodel import write

CONV = """
layer {{ name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param {{ num_output: 4 kernel_size: {kernel} }} }}
"""
INPUT = (
    'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 8 dim: 8 } } }\n'
)
GOOD = INPUT + CONV.format(kernel=3)


def weights(path: Path, channels: int = 4) -> Path:
    """A caffemodel that fits GOOD, or has another number of classes."""
    arrays = [np.ones((channels, 3, 3, 3), np.float32), np.zeros(channels, np.float32)]
    write(path, "net", [("conv", "Convolution", arrays)])
    return path


def failing(
    capfd, tmp_path: Path, prototxt: str, *more: str, model: Path | None = None, out: str = "x.onnx"
) -> str:
    """Convert, expect a refusal; returns the message."""
    text = tmp_path / "net.prototxt"
    text.write_text(prototxt)
    model = model or weights(tmp_path / "net.caffemodel")
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    code = call("convert", [str(text), str(model), str(tmp_path / out), *more], prog="convert-fcn")
    assert code == 1
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before, "something was written"
    message = capfd.readouterr().err
    assert message.startswith("convert-fcn: error: ")
    assert "Traceback" not in message
    assert len(message.strip().splitlines()) <= 4
    return message


def test_good_input_converts(tmp_path):
    text = tmp_path / "net.prototxt"
    text.write_text(GOOD)
    model = weights(tmp_path / "net.caffemodel")
    assert (
        call("convert", [str(text), str(model), str(tmp_path / "x.onnx"), "--quiet"], prog="convert-fcn") == 0
    )
    assert (tmp_path / "x.onnx").stat().st_size > 400


def test_truncated_caffemodel(capfd, tmp_path):
    model = weights(tmp_path / "cut.caffemodel")
    model.write_bytes(model.read_bytes()[:-100])
    message = failing(capfd, tmp_path, GOOD, model=model)
    assert "cut.caffemodel" in message
    assert "truncated" in message


def test_html_caffemodel(capfd, tmp_path):
    model = tmp_path / "page.caffemodel"
    model.write_text("<!DOCTYPE html><html><body>404</body></html>")
    assert "HTML" in failing(capfd, tmp_path, GOOD, model=model)


def test_missing_files(capfd, tmp_path):
    assert "none.caffemodel" in failing(capfd, tmp_path, GOOD, model=tmp_path / "none.caffemodel")


@pytest.mark.parametrize(
    ("prototxt", "says"),
    [
        (GOOD + "layer {", ["net.prototxt:", "{"]),
        (GOOD.replace('"Convolution"', '"Convolutoin"'), ["net.prototxt:3", "Convolutoin", "Convolution"]),
        (GOOD.replace('bottom: "data"', 'bottom: "dada"'), ["net.prototxt:3", "dada", "data"]),
        (
            GOOD + CONV.format(kernel=3).replace('"conv" type', '"conv2" type'),
            ["net.prototxt:6", "'conv'", "two layers"],
        ),
        (GOOD.replace("kernel_size: 3", "kernel_size: 9"), ["net.prototxt:3", "conv", "9", "8"]),
        (
            GOOD
            + 'layer { name: "cut" type: "Crop" bottom: "conv" bottom: "data" top: "cut" '
            + "crop_param { offset: 1 } }",
            ["net.prototxt:5", "cut", "offset 1", "6"],
        ),
    ],
    ids=[
        "unclosed brace",
        "unknown type",
        "unknown bottom",
        "two tops",
        "too small without pad",
        "crop does not fit",
    ],
)
def test_bad_prototxt(capfd, tmp_path, prototxt, says):
    message = failing(capfd, tmp_path, prototxt)
    for word in says:
        assert word in message


def test_wrong_number_of_classes(capfd, tmp_path):
    message = failing(capfd, tmp_path, GOOD, model=weights(tmp_path / "five.caffemodel", channels=5))
    assert "Cannot copy param 0 weights from layer 'conv'; shape mismatch" in message
    assert "5 3 3 3 (135)" in message
    assert "4 3 3 3 (108)" in message


def test_output_is_a_directory(capfd, tmp_path):
    (tmp_path / "folder").mkdir()
    assert "is a directory" in failing(capfd, tmp_path, GOOD, out="folder")


def test_output_in_no_folder(capfd, tmp_path):
    assert "no such folder" in failing(capfd, tmp_path, GOOD, out="nowhere/x.onnx")


def test_unwritable_output(capfd, tmp_path, monkeypatch):
    """As root nothing is unwritable: the system's refusal is played."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert "Permission denied" in failing(capfd, tmp_path, GOOD)


def test_wrong_channels(capfd, tmp_path):
    message = failing(capfd, tmp_path, GOOD, "--input-shape", "data:1,4,8,8")
    assert "3 channels" in message
    assert "4" in message


def test_unknown_input(capfd, tmp_path):
    assert "no input 'dat'" in failing(capfd, tmp_path, GOOD, "--input-shape", "dat:1,3,8,8")


def test_malformed_shape(capfd, tmp_path):
    assert "BLOB:N,C,H,W" in failing(capfd, tmp_path, GOOD, "--input-shape", "data=1x3")


def test_unknown_output(capfd, tmp_path):
    assert "no blob 'cov'" in failing(capfd, tmp_path, GOOD, "--output", "cov")


def test_missing_layer(capfd, tmp_path):
    more = GOOD + CONV.format(kernel=1).replace('"conv" type', '"conv2" type').replace(
        'top: "conv"', 'top: "more"'
    )
    message = failing(capfd, tmp_path, more)
    assert "conv2" in message
    assert "--init-missing" in message


def test_debug_shows_the_traceback(tmp_path):
    from caffe_fcn.errors import CaffeError

    text = tmp_path / "net.prototxt"
    text.write_text("layer {")
    with pytest.raises(CaffeError):
        call("convert", [str(text), "-", str(tmp_path / "x.onnx"), "--debug"], prog="convert-fcn")


def test_usage_exits_2(capfd):
    with pytest.raises(SystemExit) as stopped:
        call("convert", ["only-one"], prog="convert-fcn")
    assert stopped.value.code == 2
