"""Pictures of what a net computes."""

from __future__ import annotations

import json
import re
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from caffe_fcn import features as ft
from caffe_fcn.cli import call
from caffe_fcn.errors import CaffeError
from caffe_fcn.formats import caffemodel
from caffe_fcn.net import TEST, Net
from caffe_fcn.tracing import Axis
from tests.small_nets import NETS

NET = NETS / "fcn8s-thin.prototxt"
WEIGHTS = NET.with_suffix(".caffemodel")


@pytest.fixture
def picture(tmp_path):
    rgb = np.random.default_rng(0).integers(0, 256, (40, 53, 3), dtype=np.uint8)
    path = tmp_path / "picture.png"
    Image.fromarray(rgb).save(path)
    return path


def run(*words: object) -> int:
    return call("features", [str(w) for w in words], prog="caffe-fcn features")


def test_files(picture, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(NET, WEIGHTS, picture, "-o", out, "--heatmap", "cat", "3", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert all((out / name).exists() for name in ("index.html", "image.png", "conv1_1.png", "pool5.png"))
    assert len(said["files"]) == len(list(out.iterdir()))
    text = (out / "index.html").read_text(encoding="utf-8")
    shown = re.findall(r'<img src="([^"]+)"', text)
    assert {out / name for name in shown} == {path for path in out.iterdir() if path.suffix == ".png"}
    assert Image.open(out / "heat-score-8.png").size == (53, 40)
    assert "cat in score" in text
    assert Image.open(out / "heat-score-3.png").mode == "RGB"


def test_blobs_are_the_nets(picture):
    found = ft.features(NET, WEIGHTS, picture, blobs=["conv1_2", "score"], whole=True)
    assert [p.name for p in found.pictures] == ["filters-conv1_1", "conv1_2", "score"]
    net = Net(NET, WEIGHTS, TEST)
    bgr = np.asarray(Image.open(picture), np.float32)[:, :, ::-1] - (104.00698793, 116.66876762, 122.67891434)
    net.blobs["data"].reshape(1, 3, 40, 53)
    net.forward(data=bgr.transpose(2, 0, 1)[None])
    expected = ft.mosaic(net.blobs["conv1_2"].data[0])
    np.testing.assert_array_equal(found.pictures[1].image, expected)
    assert f"{net.blobs['conv1_2'].data.max():.4g}" in found.pictures[1].told


def test_padding_is_left_out(picture):
    plain = ft.features(NET, WEIGHTS, picture, blobs=["conv1_1"]).pictures[1]
    whole = ft.features(NET, WEIGHTS, picture, blobs=["conv1_1"], whole=True).pictures[1]
    assert "238 × 251" in plain.told
    assert "the 40 × 53 that lie over the image" in plain.told
    assert "over the image" not in whole.told
    assert plain.image.shape != whole.image.shape


def test_over_image():
    axis = Axis(3, Fraction(2), Fraction(-3))  # elements on -3, -1, 1, 3, ...
    assert ft.over_image((5, 8, 9), [axis, axis], (6, 4)) == (slice(None), slice(2, 5), slice(2, 4))
    assert ft.over_image((5,), [axis], (6, 4)) == slice(None)
    assert ft.over_image((5, 1, 1), [Axis(9, None, Fraction(4))] * 2, (6, 4)) == slice(None)


def test_a_net_of_one_size_gets_the_image_in_that_size(picture, tmp_path):
    text = """
    layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 8 dim: 10 } } }
    layer { name: "fc/1" type: "InnerProduct" bottom: "data" top: "fc/1" inner_product_param { num_output: 5
            weight_filler { type: "xavier" } } }"""
    path = tmp_path / "net.prototxt"
    path.write_text(text)
    weights = [np.ones((5, 240), np.float32), np.zeros(5, np.float32)]
    caffemodel.write(tmp_path / "net.caffemodel", "net", [("fc/1", "InnerProduct", weights)])
    found = ft.features(path, tmp_path / "net.caffemodel", picture)
    assert found.image.shape == (8, 10, 3)
    assert "8 x 10" in found.notes[0]
    assert [p.name for p in found.pictures] == ["fc_1"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--blob", "conv1_3"], "no blob 'conv1_3'"),
        (["--heatmap", "dragon"], "no class 'dragon'"),
        (["--heatmap", "21"], "21 classes, from 0 on"),
    ],
)
def test_unknown_names(picture, tmp_path, capsys, words, told):
    assert run(NET, WEIGHTS, picture, "-o", tmp_path, *words) == 1
    assert told in capsys.readouterr().err


def test_a_net_that_takes_no_image(picture):
    net = NETS / "nyud-fcn32s-color-d-thin.prototxt"
    with pytest.raises(CaffeError, match="takes 4 channels"):
        ft.features(net, net.with_suffix(".caffemodel"), picture)


@given(st.integers(1, 30), st.integers(1, 9), st.integers(1, 9))
def test_a_mosaic_holds_every_channel(c, h, w):
    maps = np.arange(c * h * w, dtype=np.float32).reshape(c, h, w)
    found = ft.mosaic(maps)
    assert found.dtype == np.uint8
    assert (found == 255).any() == (h * w > 1)
    assert max(found.shape) <= ft.WIDEST + 200


def test_mosaics_of_large_blobs_are_small():
    assert max(ft.mosaic(np.zeros((4096, 20, 20), np.float32)).shape) <= ft.WIDEST
    assert max(ft.mosaic(np.zeros((64, 700, 700), np.float32)).shape) <= ft.TILE * 9


def test_each_channel_is_stretched_on_its_own():
    assert ft.stretched(np.array([[1, 2], [3, 5]], np.float32)).tolist() == [[0, 64], [128, 255]]
    assert ft.stretched(np.full((2, 2), 7, np.float32)).tolist() == [[0, 0], [0, 0]]
    assert ft.stretched(np.array([[np.nan, 1], [2, np.inf]])).tolist() == [[0, 0], [255, 0]]


def test_filters_are_shown_in_rgb():
    weights = np.zeros((1, 3, 1, 2), np.float32)
    weights[0, 2, 0, 1] = 1  # the red of the right pixel
    assert (ft.filters(weights)[0, -1] == [255, 0, 0]).all()
    assert ft.filters(np.zeros((2, 5, 3, 3), np.float32)).ndim == 2


def test_a_heatmap_lies_where_the_net_looks():
    score = np.zeros((3, 3), np.float32)
    score[1, 2] = 1
    axes = [Axis(8, Fraction(8), Fraction(2)), Axis(8, Fraction(8), Fraction(-3))]
    found = ft.heatmap(score, axes, np.zeros((24, 24, 3), np.uint8)).astype(int)
    assert np.unravel_index(found.sum(axis=2).argmax(), (24, 24)) == (10, 13)
