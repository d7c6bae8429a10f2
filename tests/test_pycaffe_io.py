"""caffe.io, Classifier, Detector and draw: what pycaffe left to scikit-image has that library's numbers."""

from __future__ import annotations

import builtins
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from caffe_fcn import pycaffe as caffe
from caffe_fcn.formats.binaryproto import write_blob
from caffe_fcn.pycaffe import draw, io
from caffe_fcn.pycaffe.proto import caffe_pb2

FLOATS = st.floats(-1e6, 1e6, width=32)
SOME = arrays.arrays(np.float32, arrays.array_shapes(min_dims=0, max_dims=5, max_side=4), elements=FLOATS)


# --- messages


@given(SOME)
def test_arrays_go_through_blobprotos(array):
    proto = io.array_to_blobproto(array, -array)
    assert np.array_equal(io.blobproto_to_array(proto), array)
    assert np.array_equal(io.blobproto_to_array(proto, return_diff=True), -array)


@given(st.lists(SOME, max_size=3))
def test_lists_of_arrays_go_through_bytes(many):
    found = io.blobprotovector_str_to_arraylist(io.arraylist_to_blobprotovector_str(many))
    assert len(found) == len(many)
    assert all(np.array_equal(a, b) for a, b in zip(found, many, strict=True))


def test_blobprotos_of_four_axes_and_of_none(tmp_path):
    old = caffe_pb2.BlobProto(num=1, channels=2, height=1, width=2, data=[1, 2, 3, 4])
    assert io.blobproto_to_array(old).tolist() == [[[[1, 2]], [[3, 4]]]]
    assert io.blobproto_to_array(caffe_pb2.BlobProto(data=[123])) == 123
    with pytest.raises(ValueError, match="reshape"):
        io.blobproto_to_array(caffe_pb2.BlobProto(data=[1, 2]))
    write_blob(tmp_path / "mean.binaryproto", np.ones((1, 3, 2, 2), np.float32))
    read = caffe_pb2.BlobProto.FromString((tmp_path / "mean.binaryproto").read_bytes())
    assert io.blobproto_to_array(read).shape == (1, 3, 2, 2)


@pytest.mark.parametrize("dtype", [np.uint8, np.float64])
def test_arrays_go_through_datums(dtype):
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    datum = io.array_to_datum(array, 7)
    assert (datum.channels, datum.height, datum.width, datum.label) == (2, 3, 4, 7)
    assert bool(datum.data) == (dtype is np.uint8)
    found = io.datum_to_array(datum)
    assert found.dtype == dtype
    assert np.array_equal(found, array)
    assert not io.array_to_datum(array).HasField("label")
    with pytest.raises(ValueError, match=r"\(2, 3\)"):
        io.array_to_datum(array[:, :, 0])


# --- images


def saved(tmp_path, pixels, mode=None):
    path = tmp_path / "image.png"
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path)
    return str(path)


RGB = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [51, 102, 153]]], np.uint8)


def test_colours_are_loaded_as_they_are(tmp_path):
    found = io.load_image(saved(tmp_path, RGB))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, RGB / 255, rtol=1e-6)
    gray = io.load_image(saved(tmp_path, RGB), color=False)
    assert gray.shape == (2, 2, 1)
    np.testing.assert_allclose(gray[0, :, 0], [0.2125, 0.7154], rtol=1e-6)


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA"])
def test_every_kind_of_image_has_three_colours(tmp_path, mode):
    assert io.load_image(saved(tmp_path, RGB, mode)).shape == (2, 2, 3)
    assert io.load_image(saved(tmp_path, RGB, mode), color=False).shape == (2, 2, 1)


def test_sixteen_bits_are_whole(tmp_path):
    found = io.load_image(saved(tmp_path, np.array([[0, 65535], [13107, 1]], np.uint16)))
    np.testing.assert_allclose(found[:, :, 0], [[0, 1], [0.2, 1 / 65535]], rtol=1e-5)


def test_what_is_no_image_is_said(tmp_path):
    (tmp_path / "a.jpg").write_text("not an image")
    with pytest.raises(caffe.CaffeError, match=r"a\.jpg: cannot be read as an image"):
        io.load_image(tmp_path / "a.jpg")
    with pytest.raises(caffe.CaffeError, match=r"none\.jpg"):
        io.load_image(tmp_path / "none.jpg")


def row(*values, channels=1):
    return np.repeat(np.array(values, np.float32)[None, :, None], channels, axis=2)


def test_resizing_aligns_pixel_centres_and_is_dark_beyond_the_edge():
    assert io.resize_image(row(0, 1), (1, 4))[0, :, 0].tolist() == [0, 0.25, 0.75, 0.75]
    assert io.resize_image(row(1, 2), (1, 4))[0, :, 0].tolist() == [1, 1.25, 1.75, 1.75]
    assert io.resize_image(row(0, 4, 8, 12), (1, 2))[0, :, 0].tolist() == [2, 10]


def test_resizing_other_channels_keeps_the_corners():
    found = io.resize_image(row(0, 3, channels=4), (1, 4))
    np.testing.assert_allclose(found[0, :, 2], [0, 1, 2, 3], atol=1e-6)


def test_the_nearest_pixel_and_no_cubic():
    assert io.resize_image(row(0, 4, 8, 12), (1, 8), 0)[0, :, 0].tolist() == [0, 0, 4, 4, 8, 8, 12, 12]
    with pytest.raises(caffe.CaffeError, match="interp_order 3"):
        io.resize_image(row(0, 1), (1, 4), 3)


@given(
    arrays.arrays(
        np.float32, st.tuples(*[st.integers(1, 5)] * 2, st.sampled_from([1, 3, 5])), elements=FLOATS
    ),
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
)
def test_resizing_stays_within_the_values(image, size):
    found = io.resize_image(image, size)
    assert found.shape == (*size, image.shape[2])
    slack = 1e-3 + 1e-6 * np.abs(image).max()
    assert found.min() >= image.min() - slack
    assert found.max() <= image.max() + slack
    assert np.allclose(io.resize_image(image, image.shape[:2]), image, rtol=1e-5, atol=slack)


def test_crops_of_corners_and_centre_and_their_mirrors():
    image = np.arange(5 * 4, dtype=np.float32).reshape(5, 4, 1)
    crops = io.oversample([image, -image], (2, 3))
    assert crops.shape == (20, 2, 3, 1)
    starts = [(0, 0), (0, 1), (3, 0), (3, 1), (1, 0)]
    for i, (top, left) in enumerate(starts):
        cut = image[top : top + 2, left : left + 3]
        assert np.array_equal(crops[i], cut)
        assert np.array_equal(crops[i + 5], cut[:, ::-1])
        assert np.array_equal(crops[i + 10], -cut)


# --- Transformer


@pytest.fixture
def transformer():
    made = io.Transformer({"data": (1, 3, 4, 5)})
    made.set_transpose("data", (2, 0, 1))
    made.set_channel_swap("data", (2, 1, 0))
    made.set_raw_scale("data", 255)
    made.set_mean("data", np.array([1, 2, 3]))
    made.set_input_scale("data", 0.5)
    return made


def test_an_image_is_prepared_in_caffes_order(transformer):
    image = np.random.default_rng(0).random((4, 5, 3)).astype(np.float32)
    kept = image.copy()
    found = transformer.preprocess("data", image)
    assert found.dtype == np.float32
    expected = (image[:, :, ::-1] * 255 - [1, 2, 3]) * 0.5
    np.testing.assert_allclose(found, expected.transpose(2, 0, 1), rtol=1e-5)
    assert np.array_equal(image, kept), "the caller's image is not changed"
    np.testing.assert_allclose(transformer.deprocess("data", found[None]), image, atol=1e-6)
    assert transformer.preprocess("data", np.ones((8, 9, 3))).shape == (3, 4, 5)


def test_a_mean_image_is_brought_to_the_inputs_size(transformer):
    transformer.set_mean("data", np.full((3, 8, 8), 9.0))
    assert transformer.mean["data"].shape == (3, 4, 5)
    np.testing.assert_allclose(transformer.mean["data"], 9)
    exact = np.random.default_rng(0).random((3, 4, 5))
    transformer.set_mean("data", exact)
    assert transformer.mean["data"] is exact


@pytest.mark.parametrize(
    ("call", "error", "told"),
    [
        (lambda t: t.preprocess("image", np.ones((4, 5, 3))), caffe.CaffeError, "'image' is not one of"),
        (lambda t: t.set_transpose("data", (1, 0)), caffe.CaffeError, "transpose order.*2 entries.*needs 3"),
        (lambda t: t.set_channel_swap("data", (0, 1)), caffe.CaffeError, "channel swap.*needs 3"),
        (lambda t: t.set_mean("data", np.ones(4)), ValueError, "4 channels for the 3"),
        (lambda t: t.set_mean("data", np.ones((1, 3, 4, 5))), ValueError, "4 axes"),
    ],
)
def test_what_a_transformer_refuses(transformer, call, error, told):
    with pytest.raises(error, match=told):
        call(transformer)


# --- Classifier and Detector

MEAN_OF_EACH = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 4 dim: 3 dim: 6 dim: 6 } } }
layer { name: "pool" type: "Pooling" bottom: "data" top: "pool"
  pooling_param { pool: AVE global_pooling: true } }
layer { name: "prob" type: "InnerProduct" bottom: "pool" top: "prob"
  inner_product_param { num_output: 3 bias_term: false } }
"""


@pytest.fixture
def averaging(tmp_path):
    """A net whose output is the mean of each channel of its input."""
    (tmp_path / "net.prototxt").write_text(MEAN_OF_EACH)
    net = caffe.Net(str(tmp_path / "net.prototxt"), caffe.TEST)
    net.params["prob"][0].data[...] = np.eye(3)
    net.save(str(tmp_path / "net.caffemodel"))
    return str(tmp_path / "net.prototxt"), str(tmp_path / "net.caffemodel")


def test_a_classifier_averages_over_crops(averaging):
    image = np.zeros((12, 10, 3), np.float32)
    image[3:9, 2:8] = [0.1, 0.2, 0.3]
    classifier = caffe.Classifier(*averaging, image_dims=(12, 10), channel_swap=(2, 1, 0), raw_scale=10)
    centre = classifier.predict([image, 2 * image], oversample=False)
    np.testing.assert_allclose(centre, [[3, 2, 1], [6, 4, 2]], rtol=1e-5)
    covered = [crop[:, :, 0].mean() / 0.1 for crop in io.oversample([image], (6, 6))]
    np.testing.assert_allclose(
        classifier.predict([image]),
        [[3 * np.mean(covered), 2 * np.mean(covered), np.mean(covered)]],
        rtol=1e-4,
    )


def test_a_classifier_takes_the_inputs_size_unless_told(averaging):
    classifier = caffe.Classifier(*averaging, mean=np.array([1.0, 0, 0]), input_scale=2)
    found = classifier.predict([np.ones((30, 20, 3), np.float32)], oversample=False)
    np.testing.assert_allclose(found, [[0, 2, 2]], atol=1e-5)


def test_a_detector_scores_windows(averaging, tmp_path):
    pixels = np.zeros((30, 30, 3), np.uint8)
    pixels[5:17, 5:23] = [255, 0, 51]
    path = saved(tmp_path, pixels)
    detector = caffe.Detector(*averaging)
    windows = np.array([[5, 5, 17, 23], [17, 0, 30, 30]])
    found = detector.detect_windows([(path, windows)])
    assert [entry["filename"] for entry in found] == [path] * 2
    assert np.array_equal(found[0]["window"], windows[0])
    np.testing.assert_allclose([entry["prediction"] for entry in found], [[1, 0, 0.2], [0, 0, 0]], atol=1e-5)
    with pytest.raises(caffe.CaffeError, match="detect_windows"):
        detector.detect_selective_search([path])


def test_context_around_a_window_is_the_image_and_beyond_it_the_mean(averaging):
    detector = caffe.Detector(*averaging, mean=np.array([10.0, 20, 30]), raw_scale=100, context_pad=1)
    np.testing.assert_allclose(detector.crop_mean[0, 0], [0.1, 0.2, 0.3], rtol=1e-6)
    image = np.ones((40, 40, 3), np.float32)
    inside = detector.crop(image, [10, 10, 20, 20])
    assert inside.shape == (6, 6, 3)
    assert (inside == 1).all()
    corner = detector.crop(image, [0, 0, 10, 10])
    np.testing.assert_allclose(corner[0, 0], [0.1, 0.2, 0.3], rtol=1e-6)
    assert (corner[-1, -1] == 1).all()


# --- draw


@pytest.fixture
def message():
    text = """name: "drawn"
      layer { name: "data" type: "Data" top: "data" data_param { batch_size: 8 } }
      layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" param { lr_mult: 3 }
        convolution_param { num_output: 7 kernel_size: 5 pad: 2 } }
      layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" include { phase: TEST } }
      layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool" exclude { phase: TEST }
        pooling_param { pool: AVE kernel_size: 2 stride: 2 } }
      layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "ip"
        inner_product_param { num_output: 4 } }"""
    from google.protobuf import text_format

    return text_format.Merge(text, caffe_pb2.NetParameter())


def test_what_stands_in_the_boxes(message):
    data, conv, relu, pool, ip = message.layer
    assert draw.get_layer_label(conv, "TB") == '"conv (Convolution) kernel size: 5 stride: 1 pad: 2"'
    label = draw.get_layer_label(pool, "LR", display_lrm=True)
    assert label == r'"pool\n(Pooling AVE)\nkernel size: 2\nstride: 2\npad: 0"'
    assert draw.get_layer_label(conv, "LR", display_lrm=True).endswith(r'\nlr mult: 3.0, 1.0"')
    edges = [draw.get_edge_label(layer) for layer in (data, conv, relu, ip)]
    assert edges == ["Batch 8", "7", '""', "4"]
    assert draw.get_layer_lr_mult(ip) == (1, 1)
    with pytest.raises(ValueError, match="relu"):
        draw.get_layer_lr_mult(relu)


def test_a_graph_of_the_net(message):
    pytest.importorskip("pydot")
    text = draw.draw_net(message, "LR", "raw").decode()
    assert "digraph drawn" in text
    assert "#FF5050" in text
    assert "rankdir=LR" in text
    for phase, there in ((caffe.TRAIN, {"pool"}), (caffe.TEST, {"relu"})):
        names = {
            name
            for name in ("relu", "pool")
            if f"{name}\\n" in draw.draw_net(message, "LR", "raw", phase).decode()
        }
        assert names == there


@pytest.mark.skipif(not shutil.which("dot"), reason="Graphviz is not installed")
def test_a_drawing_in_a_file(message, tmp_path):
    pytest.importorskip("pydot")
    draw.draw_net_to_file(message, str(tmp_path / "net.png"))
    with Image.open(tmp_path / "net.png") as image:
        assert min(image.size) > 50


def test_what_drawing_needs_is_said(message, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **named):
        if name == "pydot":
            raise ImportError(name)
        return real(name, *args, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(caffe.CaffeError, match=r"pydot\n.*caffe-fcn\[draw\]"):
        draw.get_pydot_graph(message, "LR")
    monkeypatch.undo()
    pytest.importorskip("pydot")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(caffe.CaffeError, match="Graphviz"):
        draw.draw_net(message, "LR")
