"""What the server tells of models that label no pixels."""

from __future__ import annotations

import base64
import io
import json
from importlib.util import find_spec

import numpy as np
import pytest
from PIL import Image

from caffe_fcn import Net
from caffe_fcn.cli import call
from caffe_fcn.conversion import convert
from caffe_fcn.errors import CaffeError
from caffe_fcn.segment import Segmenter
from caffe_fcn.serve_model import Model, model_of
from tests.small_nets import NETS

RGB = np.random.default_rng(0).integers(0, 256, (24, 30, 3), dtype=np.uint8)


def model(folder, *layers: str, channels: int = 3, size: int = 16, names=(), **options):
    """What answers for a net of layers written as TYPE NAME BOTTOM [fields]."""
    dims = f"dim: 1 dim: {channels} dim: {size} dim: {size}"
    text = [f'layer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ {dims} }} }} }}']
    for layer in layers:
        kind, name, bottom, *fields = layer.split(maxsplit=3)
        text.append(
            f'layer {{ name: "{name}" type: "{kind}" bottom: "{bottom}" top: "{name}" {" ".join(fields)} }}'
        )
    (folder / "net.prototxt").write_text("\n".join(text))
    net, rng = Net(folder / "net.prototxt"), np.random.default_rng(0)
    for blobs in net.params.values():
        for blob in blobs:
            blob.data[...] = rng.standard_normal(blob.shape) / 9
    net.save(folder / "net.caffemodel")
    weights = folder / "net.caffemodel" if net.params else None
    convert(folder / "net.prototxt", weights, folder / "net.onnx", verify=False, **options)
    return model_of(folder / "net.onnx", "cpu", names), net


def opened(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


def test_the_best_classes(tmp_path):
    """Of a classifier of one size: the image is made to fit."""
    names = [f"kind {i}" for i in range(9)]
    fc = "InnerProduct fc data inner_product_param { num_output: 9 }"
    found, net = model(tmp_path, fc, names=names, mean=[1, 2, 3], scale=0.01)
    assert isinstance(found, Model)
    image = RGB[:20, :20]
    (answer,) = found.answers(image)
    small = np.asarray(Image.fromarray(image).resize((16, 16), Image.Resampling.BICUBIC)).astype(np.float32)
    data = (small[:, :, ::-1] - np.array([1, 2, 3], np.float32)) * 0.01
    scores = net.forward(data=data.transpose(2, 0, 1)[None])["fc"][0]
    order = np.argsort(-scores)[:5]
    assert [c["label"] for c in answer["classes"]] == order.tolist()
    assert [c["name"] for c in answer["classes"]] == [f"kind {i}" for i in order]
    assert [c["score"] for c in answer["classes"]] == pytest.approx(scores[order].tolist(), rel=1e-3)
    share = np.exp(scores - scores.max())
    assert answer["classes"][0]["share"] == pytest.approx(share.max() / share.sum(), rel=1e-3)
    assert (answer["kind"], answer["of"]) == ("top", 9)
    json.dumps(found.answers(RGB), allow_nan=False)  # of another shape, cut to a square


def test_a_softmax_is_taken_as_it_is(tmp_path):
    layers = ("InnerProduct fc data inner_product_param { num_output: 4 }", "Softmax prob fc")
    found, _ = model(tmp_path, *layers, scale=0.001)
    (answer,) = found.answers(RGB)
    assert [c["share"] for c in answer["classes"]] == pytest.approx(
        [c["score"] for c in answer["classes"]], rel=1e-4
    )
    assert answer["classes"][0]["name"].startswith("class ")


@pytest.mark.parametrize("preprocess", [False, True])
def test_a_picture(tmp_path, preprocess):
    """A net that passes on what it gets shows the image."""
    found, _ = model(tmp_path, "Power out data", preprocess=preprocess)
    (answer,) = found.answers(RGB)
    assert (answer["kind"], answer["size"], answer["told"]) == ("picture", [24, 30], "")
    assert abs(opened(answer["picture"]).astype(int) - RGB).max() <= 1


def test_a_grey_picture(tmp_path):
    up = "convolution_param { num_output: 1 kernel_size: 2 stride: 2 bias_term: false }"
    _, net = model(tmp_path, f"Deconvolution out data {up}", channels=1)
    net.params["out"][0].data[...] = 1
    net.save(tmp_path / "net.caffemodel")
    convert(tmp_path / "net.prototxt", tmp_path / "net.caffemodel", tmp_path / "net.onnx", verify=False)
    (answer,) = model_of(tmp_path / "net.onnx", "cpu").answers(RGB)
    grey = np.asarray(Image.fromarray(RGB).convert("L")).astype(int)
    assert answer["size"] == [48, 60]
    assert abs(opened(answer["picture"]) - grey.repeat(2, 0).repeat(2, 1)).max() <= 1


def test_what_is_no_picture_is_stretched(tmp_path):
    found, _ = model(tmp_path, "Power out data power_param { scale: 1e-6 }", mean=[0, 0, 0])
    (answer,) = found.answers(RGB)
    assert answer["told"].startswith("stretched, from 0 to 0.000255")
    assert opened(answer["picture"]).max() == 255


def test_numbers(tmp_path):
    found, _ = model(tmp_path, "Reduction sum data reduction_param { operation: SUM }", mean=[0, 0, 0])
    (answer,) = found.answers(RGB)
    assert answer["kind"] == "numbers"
    assert answer["first"] == pytest.approx([RGB.sum()], rel=1e-5)


def test_models_that_label_pixels_are_segmenters(tmp_path):
    net = NETS / "siftflow-fcn8s-thin.prototxt"  # one of its outputs has three channels, with names
    convert(net, net.with_suffix(".caffemodel"), tmp_path / "net.onnx", verify=False)
    assert isinstance(model_of(tmp_path / "net.onnx", "cpu"), Segmenter)
    assert isinstance(
        model(tmp_path, "Convolution c data convolution_param { num_output: 2 kernel_size: 1 }")[0], Segmenter
    )


def test_what_takes_no_image_is_refused(tmp_path):
    with pytest.raises(CaffeError, match=r"takes data .*an image is \(N, 3, H, W\)"):
        model(tmp_path, "ReLU out data", channels=5)


@pytest.mark.skipif(find_spec("starlette") is None, reason="Starlette is not installed")
def test_names_that_are_no_text_are_refused(tmp_path, capsys):
    (tmp_path / "names").write_bytes(b"\xff\xfe")
    words = [str(tmp_path / "net.onnx"), "--names", str(tmp_path / "names")]
    assert call("serve", words, prog="caffe-fcn serve") == 1
    assert "cannot be read as names of classes" in capsys.readouterr().err
