"""Images in, label images and overlays out."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from caffe_fcn.cli import call
from caffe_fcn.conversion import convert
from caffe_fcn.errors import CaffeError
from caffe_fcn.labels import VOC, palette
from caffe_fcn.segment import Labels, Segmenter, read_image
from tests.conftest import REFERENCE

NET = REFERENCE / "nets" / "fcn8s-thin-1px.prototxt"


def model(folder, **options):
    path = folder / "net.onnx"
    convert(NET, NET.with_suffix(".caffemodel"), path, verify=False, **options)
    return path


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return model(tmp_path_factory.mktemp("plain"))


@pytest.fixture
def picture(tmp_path):
    rgb = np.random.default_rng(0).integers(0, 256, (40, 53, 3), dtype=np.uint8)
    Image.fromarray(rgb).save(tmp_path / "picture.png")
    return tmp_path / "picture.png"


def run(*words: object) -> int:
    return call("segment", [str(w) for w in words], prog="caffe-fcn segment")


def test_files(plain, picture, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(plain, picture, "-o", out, "--device", "cpu") == 0
    label = Image.open(out / "picture.label.png")
    assert label.mode == "P"
    assert label.size == (53, 40)
    assert label.getpalette()[3:6] == [128, 0, 0]
    labels = np.asarray(label)
    assert labels.max() < 21
    expected = Segmenter(plain, "cpu")(read_image(picture))[0].labels
    np.testing.assert_array_equal(labels, expected)
    assert Image.open(out / "picture.overlay.png").height > 40
    assert VOC.classes[labels[0, 0]] in capsys.readouterr().out


@pytest.mark.parametrize(
    "options", [{"preprocess": True}, {"argmax": True}, {"preprocess": True, "argmax": True}]
)
def test_every_form_of_the_file_gives_the_same_labels(plain, picture, tmp_path, options):
    image = read_image(picture)
    expected = Segmenter(plain, "cpu")(image)[0]
    got = Segmenter(model(tmp_path, **options), "cpu")(image)[0]
    assert (got.labels == expected.labels).mean() > 0.999
    assert got.classes == expected.classes == list(VOC.classes)


def test_a_folder_goes_on_after_a_bad_file(plain, picture, tmp_path, capsys):
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 not a picture")
    assert run(plain, tmp_path, "-o", tmp_path / "out", "--device", "cpu", "--json") == 1
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert [row["image"] for row in found["images"]] == [str(picture)]
    assert "broken.jpg" in found["failed"][0]
    assert "1 of 2 images failed" in said.err
    assert (tmp_path / "out" / "picture.label.png").exists()


def test_fixed_size_refuses_others(picture, tmp_path):
    fixed = Segmenter(model(tmp_path, input_shapes={"data": (1, 3, 32, 32)}), "cpu")
    with pytest.raises(CaffeError, match="32x32 only"):
        fixed(read_image(picture))


def test_other_nets_are_refused(tmp_path):
    net = REFERENCE / "nets" / "nyud-fcn32s-color-d-thin.prototxt"
    convert(net, net.with_suffix(".caffemodel"), tmp_path / "x.onnx", verify=False)
    with pytest.raises(CaffeError, match="an image is"):
        Segmenter(tmp_path / "x.onnx", "cpu")


def test_missing_image(plain, tmp_path, capsys):
    assert run(plain, tmp_path / "none.png", "-o", tmp_path, "--device", "cpu") == 1
    assert "no such file" in capsys.readouterr().err


def test_palette_is_vocs():
    """The first colours of the VOC devkit's map."""
    assert palette(6).tolist() == [
        [0, 0, 0],
        [128, 0, 0],
        [0, 128, 0],
        [128, 128, 0],
        [0, 0, 128],
        [128, 0, 128],
    ]


def test_areas_and_legend():
    labels = Labels("score", np.array([[0, 0, 0, 15]]), list(VOC.classes))
    assert labels.areas() == {"background": 0.75, "person": 0.25}
    assert labels.overlay(np.zeros((1, 4, 3), np.uint8), legend=False).getpixel((0, 0)) == (0, 0, 0)
