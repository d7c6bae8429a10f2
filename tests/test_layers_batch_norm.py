"""BatchNorm: stored and batch statistics, and the forms that forks give its blobs."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from caffe_fcn.errors import CaffeError
from caffe_fcn.export.exporter import export
from caffe_fcn.export.write import to_model
from caffe_fcn.formats.caffemodel import StoredBlob, StoredLayer
from caffe_fcn.net import TEST, TRAIN, Net
from caffe_fcn.runtime import Session
from tests.conftest import SHARED
from tests.layer_nets import IMAGE, build, draw, run
from tests.reference_cases import assert_close


def batch_norm(x, mean, variance, eps=1e-5):
    each = (-1, *(1,) * (x.ndim - 2))
    return (x - np.reshape(mean, each)) / np.sqrt(np.reshape(variance, each) + eps)


@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 5), (2, 3, 4, 5), (2, 3, 2, 2, 3)])
@pytest.mark.parametrize("factor", [1, 4, 0])
def test_stored_statistics_are_over_the_factor(shape, factor):
    net = build('type: "BatchNorm" batch_norm_param { eps: 0.01 }', shape)
    mean, variance = draw(3, seed=1), draw(3, seed=2) ** 2
    for blob, value in zip(net.params["layer"], (mean, variance, factor), strict=True):
        blob.data[...] = value
    over = 1 / factor if factor else 0
    x = draw(*shape)
    for opset in (17, 20):
        assert_close(
            run(net, x, opset=opset), batch_norm(x, mean * over, variance * over, 0.01), "batch norm"
        )


@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 4, 5), (1, 3)])
@pytest.mark.parametrize(
    ("phase", "setting"), [(TRAIN, ""), (TEST, "batch_norm_param { use_global_stats: false }")]
)
def test_the_statistics_of_a_batch_are_used_and_kept(shape, phase, setting):
    x = draw(*shape)
    count, axes = x.size // 3, (0, *range(2, x.ndim))
    mean, variance = x.mean(axes), x.var(axes)
    net = build(f'type: "BatchNorm" {setting}', shape, phase=phase)
    before = [draw(3, seed=1), draw(3, seed=2), np.float32(5)]
    for blob, value in zip(net.params["layer"], before, strict=True):
        blob.data[...] = value
    graph = export(net, opset=18).graph
    assert_close(net.forward(a=x)["top"], batch_norm(x, mean, variance), "top")
    unbiased = variance * (count / (count - 1) if count > 1 else 1)
    after = [0.999 * old + new for old, new in zip(before, (mean, unbiased, 1), strict=True)]
    for blob, value in zip(net.params["layer"], after, strict=True):
        assert_close(blob.data, np.broadcast_to(value, blob.shape), "moving statistics")
    got = Session(to_model(graph, 18).SerializeToString(), "cpu").run({"a": x})
    assert_close(got["top"], batch_norm(x, mean, variance), "ONNX")


def test_training_with_global_stats_leaves_them():
    net = build('type: "BatchNorm" batch_norm_param { use_global_stats: true }', IMAGE, phase=TRAIN)
    net.forward(a=draw(*IMAGE))
    assert [blob.data.sum() for blob in net.params["layer"]] == [0, 0, 0]


PARTS = {
    "mean": draw(3, seed=1),
    "variance": draw(3, seed=2) ** 2,
    "scale": draw(3, seed=3),
    "bias": draw(3, seed=4),
}
FORMS = {
    # blobs, prototxt, what mean and variance are over, the fork's name
    "xilinx": (
        "scale bias mean variance 7",
        "scale_filler { value: 1 } bias_filler { value: 0 }",
        1,
        "caffe-xilinx",
    ),
    "xilinx, plain prototxt": ("scale bias mean variance 0", "", 1, "caffe-xilinx"),
    "nvcaffe, 2016": ("scale bias mean variance 1", "scale_filler { value: 1 }", 1, "caffe-xilinx"),
    "nvcaffe": ("mean variance 1 scale bias", "scale_bias: true", 1, "NVCaffe"),
    "nvcaffe, unread counter": ("mean variance 4 scale bias", "scale_bias: true", 1, "NVCaffe"),
    "nvcaffe, 0.16": ("mean variance 0 scale bias", "", 1, "NVCaffe"),
    "nvcaffe, fillers": ("mean variance 1 scale bias", "scale_filler { value: 1 }", 1, "NVCaffe"),
    "intel": ("mean variance 4 scale bias", "", 4, "Intel Caffe"),
    "intel, fields": ("mean variance 4 scale bias", "filler { value: 1 } bias_filler {}", 4, "Intel Caffe"),
}


def stored(blobs: str, ones=(1, 1, 1, 1)) -> list[StoredLayer]:
    """A weights file with one layer; its arrays have the four axes that forks give them."""
    arrays = [
        PARTS[n].reshape(1, 3, 1, 1) if n in PARTS else np.full(ones, int(n), np.float32)
        for n in blobs.split()
    ]
    return [StoredLayer("layer", "BatchNorm", [StoredBlob(array, False) for array in arrays])]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 4, 5)])
def test_forks_with_five_blobs_are_told_apart_by_the_file(form, shape):
    blobs, setting, over, fork = FORMS[form]
    x = draw(*shape)
    each = (-1, *(1,) * (x.ndim - 2))
    normal = batch_norm(x, PARTS["mean"] / over, PARTS["variance"] / over)
    wanted = normal * PARTS["scale"].reshape(each) + PARTS["bias"].reshape(each)
    net = build(f'type: "BatchNorm" batch_norm_param {{ {setting} }}', shape)
    net.copy_from(stored(blobs))
    assert net.layer_dict["layer"].form.fork == fork
    assert_close(run(net, x), wanted, form)
    assert net.params["layer"] is net.layer_dict["layer"].blobs
    assert len(net.params["layer"]) == 5


@pytest.mark.parametrize("setting", ["", "bias_term: false"])
@pytest.mark.parametrize("batch", [False, True])
def test_four_blobs_have_no_bias(setting, batch):
    x, each = draw(2, 3, 4, 5), (3, 1, 1)
    own = f"use_global_stats: {str(not batch).lower()} {setting}"
    net = build(f'type: "BatchNorm" batch_norm_param {{ {own} }}', x.shape)
    net.copy_from(stored("mean variance 4 scale"))
    assert net.layer_dict["layer"].variant == "Intel Caffe's BatchNorm of 4 blobs"
    mean, variance = (
        (x.mean((0, 2, 3)), x.var((0, 2, 3))) if batch else (PARTS["mean"] / 4, PARTS["variance"] / 4)
    )
    assert_close(run(net, x), batch_norm(x, mean, variance) * PARTS["scale"].reshape(each), "four")


def test_nvcaffe_tests_with_stored_statistics_whatever_the_prototxt_says():
    x, each = draw(2, 3, 4, 5), (3, 1, 1)
    net = build('type: "BatchNorm" batch_norm_param { use_global_stats: false }', x.shape)
    net.copy_from(stored("mean variance 1 scale bias"))
    normal = batch_norm(x, PARTS["mean"], PARTS["variance"])
    assert_close(run(net, x), normal * PARTS["scale"].reshape(each) + PARTS["bias"].reshape(each), "stored")


def test_a_fork_with_the_statistics_of_a_batch():
    x, each = draw(2, 3, 4, 5), (3, 1, 1)
    net = build('type: "BatchNorm" batch_norm_param { use_global_stats: false }', x.shape)
    net.copy_from(stored("scale bias mean variance 0"))
    normal = batch_norm(x, x.mean((0, 2, 3)), x.var((0, 2, 3)))
    wanted = normal * PARTS["scale"].reshape(each) + PARTS["bias"].reshape(each)
    assert_close(run(net, x), wanted, "batch statistics")
    assert np.array_equal(net.params["layer"][2].data, PARTS["mean"])


def test_one_channel_leaves_the_prototxt_to_tell():
    ones = [StoredBlob(np.full(1, v, np.float32), False) for v in (2, 4, 1, 5, 6)]
    for setting, wanted in (("scale_bias: true", (2, 4, 5, 6)), ("", (1, 5, 2, 4))):
        net = build(f'type: "BatchNorm" batch_norm_param {{ eps: 0 {setting} }}', (1, 1))
        net.copy_from([StoredLayer("layer", "BatchNorm", ones)])
        mean, variance, scale, bias = wanted
        assert_close(
            run(net, np.full((1, 1), 3, np.float32)).ravel(),
            np.asarray([(3 - mean) / variance**0.5 * scale + bias]),
            setting,
        )


def test_a_forks_prototxt_with_a_stock_file():
    net = build('type: "BatchNorm" param {} param {} param {} param {}', (2, 3))
    assert len(net.params["layer"]) == 5
    assert net.params["layer"][0].data.tolist() == [1, 1, 1]
    x = draw(2, 3)
    assert_close(run(net, x), batch_norm(x, 0, 0), "untrained")
    blobs = [StoredBlob(a, False) for a in (PARTS["mean"], PARTS["variance"], np.ones(1, np.float32))]
    net.copy_from([StoredLayer("layer", "BatchNorm", blobs)])
    assert net.layer_dict["layer"].form.fork == ""
    assert len(net.params["layer"]) == 3
    assert_close(run(net, x), batch_norm(x, PARTS["mean"], PARTS["variance"]), "stock")


@pytest.mark.parametrize("n", [1, 2, 4])
def test_another_number_of_blobs_is_refused(n):
    blobs = [StoredBlob(np.ones(3, np.float32), False)] * n
    with pytest.raises(CaffeError, match=rf"incompatible number of blobs for layer 'layer': {n} in the file"):
        build('type: "BatchNorm"', (2, 3)).copy_from([StoredLayer("layer", "BatchNorm", blobs)])


def test_a_forks_blobs_of_another_size_are_refused():
    with pytest.raises(CaffeError, match="Cannot copy param 0 weights from layer 'layer'; shape mismatch"):
        build('type: "BatchNorm"', (2, 4)).copy_from(stored("scale bias mean variance 0"))


@pytest.mark.shared
def test_the_real_net_of_a_fork():
    folder = SHARED / "models" / "xilinx_espnet"
    net = Net(folder / "deploy.prototxt", TEST, weights=folder / "float.caffemodel")
    with np.load(folder / "caffe_outputs.npz") as kept:
        (name,) = (key[3:] for key in kept if key.startswith("in:"))
        shape = tuple(kept[f"in:{name}"])
        rng = np.random.RandomState(zlib.crc32(folder.name.encode()))
        x = rng.uniform(-1, 1, shape).astype(np.float32) * np.float32(kept["scale"])
        net.blobs[name].reshape(*shape)
        got = net.forward(**{name: x})
        for key in (key[6:] for key in kept if key.startswith("value:")):
            value = kept[f"value:{key}"]
            off = np.abs(got[key].ravel()[kept[f"index:{key}"]] - value).max()
            assert off <= 1e-4 * np.abs(value).max(), key
