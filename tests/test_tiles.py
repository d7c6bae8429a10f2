"""Large images, a tile at a time."""

from __future__ import annotations

import io
import warnings
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from caffe_fcn import Net
from caffe_fcn.cli import call
from caffe_fcn.conversion import convert
from caffe_fcn.errors import CaffeError
from caffe_fcn.formats.png import write_strips
from caffe_fcn.segment import Segmenter
from caffe_fcn.tiles import GRID, label_tiled, large_images, strips
from tests.conftest import REFERENCE

# Its pools go by 4, and an element of the score sees 20 pixels around it or fewer.
SMALL = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 40 dim: 40 } } }
layer { name: "c1" type: "Convolution" bottom: "data" top: "c1"
  convolution_param { num_output: 4 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } } }
layer { name: "r1" type: "ReLU" bottom: "c1" top: "c1" }
layer { name: "p1" type: "Pooling" bottom: "c1" top: "p1"
  pooling_param { pool: MAX kernel_size: 2 stride: 2 } }
layer { name: "p2" type: "Pooling" bottom: "p1" top: "p2"
  pooling_param { pool: AVE kernel_size: 2 stride: 2 } }
layer { name: "up" type: "Deconvolution" bottom: "p2" top: "up" convolution_param {
  num_output: 4 group: 4 kernel_size: 8 stride: 4 pad: 2 bias_term: false
  weight_filler { type: "bilinear" } } }
layer { name: "s1" type: "Convolution" bottom: "up" top: "s1"
  convolution_param { num_output: 5 kernel_size: 1 weight_filler { type: "xavier" } } }
layer { name: "score" type: "Crop" bottom: "s1" bottom: "data" top: "score" crop_param { axis: 2 } }
"""
OTHER = """
layer { name: "s2" type: "Convolution" bottom: "data" top: "s2"
  convolution_param { num_output: 3 kernel_size: 1 weight_filler { type: "xavier" } } }
"""


def small(folder, more: str = "", **options) -> Segmenter:
    prototxt, weights = folder / "small.prototxt", folder / "small.caffemodel"
    prototxt.write_text(SMALL + more)
    if not weights.exists():
        net, rng = Net(prototxt), np.random.default_rng(3)
        for name in (name for name in net.params if name != "up"):
            weight = net.params[name][0].data
            weight[...] = rng.standard_normal(weight.shape) / np.sqrt(weight[0].size)
        net.save(weights)
    convert(prototxt, weights, folder / "small.onnx", verify=False, **options)
    return Segmenter(folder / "small.onnx", "cpu")


def pixels(height: int, width: int) -> np.ndarray:
    coarse = np.random.default_rng(0).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    return coarse.repeat(8, 0).repeat(8, 1)[:height, :width]


@pytest.fixture(autouse=True)
def limit(monkeypatch):
    """Pillow's, which `--tile` changes."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    with warnings.catch_warnings():
        yield


@given(st.integers(1, 3000), st.integers(1, 500), st.integers(0, 250), st.sampled_from([1, GRID]))
@settings(deadline=None)
def test_strips_cover_once(size, tile, overlap, grid):
    if 2 * overlap > tile or tile - overlap < 2 * grid - 1:
        with pytest.raises(CaffeError, match=f"tiles of {tile} pixels cannot overlap by {overlap}"):
            strips(size, tile, overlap, grid)
        return
    found = strips(size, tile, overlap, grid)
    weight = np.zeros(size)
    for strip in found:
        assert strip.start % grid == 0
        assert 0 <= strip.start <= strip.first < strip.last <= strip.stop <= size
        assert strip.stop - strip.start == found[0].stop
        assert min(size, tile) - grid < found[0].stop <= tile
        part = np.ones(strip.last - strip.first)
        part[: strip.before] *= (np.arange(strip.before) + 0.5) / max(1, strip.before)
        part[len(part) - strip.after :] *= ((np.arange(strip.after) + 0.5) / max(1, strip.after))[::-1]
        weight[strip.first : strip.last] += part
    np.testing.assert_allclose(weight, 1)
    assert all(a.stop - b.start >= overlap for a, b in pairwise(found))
    assert len(found) == 1 or size > tile
    assert len(found) <= 1 + -(-max(0, size - tile) // (tile - overlap - 2 * grid + 2))


@pytest.mark.parametrize("size", [(30, 40), (97, 64), (131, 203)], ids=str)
def test_tiles_give_the_whole_images_labels(tmp_path, size):
    """With an overlap of 4/3 of what the net sees, whatever the size."""
    segmenter, image = small(tmp_path, more=OTHER), pixels(*size)
    whole = segmenter(image)
    told = []
    tiled = label_tiled(segmenter, image, 96, 32, lambda *numbers: told.append(numbers))
    assert [x.output for x in tiled] == [x.output for x in whole]
    assert {x.output for x in tiled} == {"score", "s2"}
    for a, b in zip(tiled, whole, strict=True):
        assert a.labels.dtype == np.uint8
        assert (a.labels != b.labels).mean() < 1e-4  # where two classes are equal but for rounding
        assert len(np.unique(b.labels)) > 1
    number = len(strips(size[0], 96, 32)) * len(strips(size[1], 96, 32))
    assert told == [(i + 1, number) for i in range(number)]


def test_too_small_an_overlap_is_seen(tmp_path):
    """The test above can fail."""
    segmenter, image = small(tmp_path), pixels(131, 203)
    (whole,), (tiled,) = segmenter(image), label_tiled(segmenter, image, tile=96, overlap=0)
    assert (tiled.labels != whole.labels).any()


def test_scores_are_averaged(tmp_path, monkeypatch):
    """Of two tiles that disagree the one whose middle is nearer wins: weights cross half-way."""
    segmenter = small(tmp_path)
    calls = []

    def run(prepared):
        calls.append(prepared[0].shape[2:])
        scores = np.zeros((1, 2, *prepared[0].shape[2:]), np.float32)
        scores[0, len(calls) % 2] = 1
        return {"score": scores}

    monkeypatch.setattr(segmenter, "run", run)
    (found,) = label_tiled(segmenter, np.zeros((20, 160, 3), np.uint8), tile=96, overlap=32)
    assert calls == [(20, 96), (20, 96)]
    assert found.labels[0].tolist() == [1] * 80 + [0] * 80
    monkeypatch.setattr(segmenter, "run", lambda prepared: {"score": np.zeros((1, 2, 3, 3))})
    with pytest.raises(CaffeError, match="'score' is 3x3 for a tile of 20x96"):
        label_tiled(segmenter, np.zeros((20, 160, 3), np.uint8), tile=96, overlap=32)


def test_models_of_one_size(tmp_path):
    segmenter = small(tmp_path, input_shapes={"data": (1, 3, 40, 48)})
    image = pixels(90, 101)
    (tiled,) = label_tiled(segmenter, image, tile=1024, overlap=16)
    (whole,) = small(tmp_path)(image)
    assert (tiled.labels == whole.labels).mean() > 0.9  # tiles are narrower than what they see
    with pytest.raises(CaffeError, match="takes tiles of 40x48 only, the image is 39x48"):
        label_tiled(segmenter, pixels(39, 48))


def test_models_that_give_labels_are_refused(tmp_path, capsys):
    segmenter = small(tmp_path, argmax=True)
    with pytest.raises(CaffeError, match=r"gives labels.*\n.*without --argmax"):
        label_tiled(segmenter, pixels(64, 64))
    Image.fromarray(pixels(64, 64)).save(tmp_path / "x.png")
    words = [
        str(tmp_path / "small.onnx"),
        str(tmp_path / "x.png"),
        "-o",
        str(tmp_path),
        "--tile",
        "64",
        "--overlap",
        "16",
    ]
    assert call("segment", [*words, "--device", "cpu"], prog="caffe-fcn segment") == 1
    assert "without --argmax" in capsys.readouterr().err


def test_command(tmp_path):
    segmenter, image = small(tmp_path), pixels(131, 203)
    Image.fromarray(image).save(tmp_path / "x.png")
    words = [segmenter.path, str(tmp_path / "x.png"), "-o", str(tmp_path), "--tile", "96", "--overlap", "32"]
    assert call("segment", [*words, "--device", "cpu", "--quiet"], prog="caffe-fcn segment") == 0
    labels = np.asarray(Image.open(tmp_path / "x.label.png"))
    np.testing.assert_array_equal(labels, label_tiled(segmenter, image, 96, 32)[0].labels)


def header(width: int, height: int) -> bytes:
    """A PNG file that holds less than it says."""
    file = io.BytesIO()
    write_strips(file, (height, width), [])
    return file.getvalue()


def test_large_images_are_read_and_hostile_ones_refused(tmp_path, capsys, monkeypatch):
    """No more than there is memory for."""
    segmenter = small(tmp_path)
    monkeypatch.setattr("caffe_fcn.memory.free", lambda: 3 * 10**9)
    for width, told in ((60_000, "exceeds limit"), (13_000, "cannot be read as an image: image file is")):
        (tmp_path / "x.png").write_bytes(header(width, width))
        words = [
            segmenter.path,
            str(tmp_path / "x.png"),
            "-o",
            str(tmp_path),
            "--tile",
            "96",
            "--device",
            "cpu",
        ]
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 89_478_485)
        with warnings.catch_warnings(record=True) as said:
            assert call("segment", [*words, "--overlap", "32", "--quiet"], prog="caffe-fcn segment") == 1
        assert not said
        assert told in capsys.readouterr().err
    monkeypatch.setattr("caffe_fcn.memory.free", lambda: None)
    large_images()
    assert 10**9 < Image.MAX_IMAGE_PIXELS <= 2**31


@pytest.mark.slow
def test_memory_is_bounded(tmp_path, monkeypatch):
    """10,000 x 10,000 pixels through a thin FCN-8s, by the command, in 1.5 GB."""
    import subprocess
    import sys

    net = REFERENCE / "nets" / "fcn8s-thin.prototxt"
    convert(net, net.with_suffix(".caffemodel"), tmp_path / "net.onnx", verify=False)
    Image.fromarray(pixels(10_000, 10_000)).save(tmp_path / "large.png", compress_level=1)
    words = [str(tmp_path / "net.onnx"), str(tmp_path / "large.png"), "-o", str(tmp_path), "--tile", "1024"]
    script = (
        "import sys; from caffe_fcn.cli import call; assert not call('segment', sys.argv[1:], prog='');"
        "print(next(line.split()[1] for line in open('/proc/self/status') if 'VmHWM' in line))"
    )
    command = [sys.executable, "-c", script, *words, "--device", "cpu", "--quiet"]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert int(told.split()[-1]) < 1.5e6  # kB
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert Image.open(tmp_path / "large.label.png").size == (10_000, 10_000)
