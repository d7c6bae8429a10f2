"""Train/val nets cut down to their deploy nets."""

from __future__ import annotations

import numpy as np
import pytest

import caffe_fcn
from caffe_fcn.cli import main
from caffe_fcn.conversion import convert
from caffe_fcn.deploy import to_deploy
from caffe_fcn.errors import LayerError
from caffe_fcn.formats.prototxt import read_net
from tests.conftest import HERE, SHARED

PROTOTXTS = HERE.parent / "prototxts"
TRAIN = """
name: "net"
layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TRAIN }
  transform_param { crop_size: 20 mean_value: 104 mean_value: 117 mean_value: 123 }
  data_param { source: "nowhere" batch_size: 64 backend: LMDB } }
layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TEST }
  transform_param { crop_size: 24 } data_param { source: "nowhere" batch_size: 50 backend: LMDB } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 4 kernel_size: 3 } }
layer { name: "pool_label" type: "Pooling" bottom: "label" top: "small"
  pooling_param { kernel_size: 2 stride: 2 } }
layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "ip" inner_product_param { num_output: 5 } }
layer { name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy"
  include { phase: TEST } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""


def test_data_becomes_input_and_losses_go():
    cut = to_deploy(read_net(TRAIN))
    assert [(layer.name, layer.type) for layer in cut.text.net.layer] == [
        ("data", "Input"),
        ("conv", "Convolution"),
        ("ip", "InnerProduct"),
    ]
    assert cut.outputs == ["ip"]
    assert set(cut.dropped) == {"pool_label", "accuracy", "loss"}
    net = caffe_fcn.Net(cut.text)
    assert net.blobs["data"].shape == (1, 3, 24, 24)
    assert net.outputs == ["ip"]


def test_shape_that_nobody_tells():
    text = TRAIN.replace("crop_size: 24", "")
    with pytest.raises(LayerError, match="--input-shape data:1,3,HEIGHT,WIDTH"):
        to_deploy(read_net(text))
    cut = to_deploy(read_net(text), {"data": (2, 1, 30, 40)})
    assert caffe_fcn.Net(cut.text).blobs["data"].shape == (2, 1, 30, 40)


def test_a_deploy_net_stays_as_it_is():
    text = read_net(PROTOTXTS / "voc-fcn8s" / "deploy.prototxt")
    cut = to_deploy(text)
    assert cut.text is text
    assert cut.dropped == []


def test_dummy_and_memory_data_tell_their_shapes():
    for layer, shape in (
        ('DummyData" dummy_data_param { shape { dim: 2 dim: 3 dim: 8 dim: 9 }', (2, 3, 8, 9)),
        ('MemoryData" memory_data_param { batch_size: 7 channels: 1 height: 8 width: 9', (1, 1, 8, 9)),
    ):
        text = f'layer {{ name: "d" type: "{layer} }} top: "data" }}' + (
            'layer { name: "c" type: "Convolution" bottom: "data" top: "c" '
            "convolution_param { num_output: 2 kernel_size: 3 } }"
        )
        cut = to_deploy(read_net(text))
        assert caffe_fcn.Net(cut.text).blobs["data"].shape == shape


@pytest.mark.parametrize("name", ["voc-fcn8s", "voc-fcn-alexnet", "siftflow-fcn8s", "pascalcontext-fcn16s"])
@pytest.mark.parametrize("phase", ["train", "val", "trainval", "test"])
def test_the_familys_train_nets_become_their_deploy_nets(name, phase):
    """Cut from the train net or taken from the deploy file: the same layers, blobs and shapes."""
    source = PROTOTXTS / name / f"{phase}.prototxt"
    if not source.exists():
        pytest.skip("this net has other phases")
    deploy = caffe_fcn.Net(PROTOTXTS / name / "deploy.prototxt")
    shape = deploy.blobs["data"].shape
    cut = caffe_fcn.Net(to_deploy(read_net(source), {"data": shape}).text)
    shapes = {n: b.shape for n, b in deploy.blobs.items() if "_split_" not in n}
    assert {n: b.shape for n, b in cut.blobs.items() if "_split_" not in n} == shapes
    assert cut.outputs == deploy.outputs


@pytest.mark.shared
def test_a_real_train_net():
    path = SHARED / "models" / "cifar_resnet20" / "test_ResNet_20.prototxt"
    cut = to_deploy(read_net(path), {"data": (1, 3, 32, 32)})
    assert cut.outputs == ["fc1"]
    assert cut.transform.scale == pytest.approx(1 / 256)


NO_DIMS = """
input: "image"
layer { name: "conv" type: "Convolution" bottom: "image" top: "conv"
  convolution_param { num_output: 4 kernel_size: 3 } }
"""


@pytest.mark.filterwarnings("ignore:.*has no input_shape")
def test_an_input_without_dims_takes_the_shape_that_is_given():
    cut = to_deploy(read_net(NO_DIMS), {"image": (1, 3, 8, 9)})
    assert caffe_fcn.Net(cut.text).blobs["conv"].shape == (1, 4, 6, 7)
    with pytest.raises(
        LayerError, match="does not tell the shape of 'image'\n  give it: --input-shape image:1,3"
    ):
        to_deploy(read_net(NO_DIMS))


def test_files_that_are_here_tell_their_shape(tmp_path, monkeypatch):
    h5py = pytest.importorskip("h5py")
    monkeypatch.chdir(tmp_path)
    with h5py.File("rows.h5", "w") as file:
        file["data"], file["label"] = np.zeros((6, 4), "f"), np.zeros((6, 1), "f")
    (tmp_path / "list.txt").write_text("rows.h5\n")
    text = """layer { name: "d" type: "HDF5Data" top: "data" top: "label"
      hdf5_data_param { source: "list.txt" batch_size: 3 } }
    layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
      inner_product_param { num_output: 2 } }"""
    assert caffe_fcn.Net(to_deploy(read_net(text)).text).blobs["data"].shape == (1, 4)
    (tmp_path / "list.txt").unlink()
    with pytest.raises(LayerError, match="--input-shape data:1,CHANNELS or 1,CHANNELS,HEIGHT,WIDTH"):
        to_deploy(read_net(text))


def test_a_train_net_without_its_files_is_traced_as_it_is_deployed(tmp_path, capsys):
    path = tmp_path / "train_val.prototxt"
    path.write_text(TRAIN)
    assert main(["trace", str(path)]) == 0
    told = capsys.readouterr()
    assert "nowhere: no such database; traced as --deploy does" in told.err
    assert "SoftmaxWithLoss" not in told.out
    assert main(["trace", str(path), "--input-shape", "data:2,3,30,30"]) == 0
    assert "traced as" not in capsys.readouterr().err
    path.write_text(NO_DIMS)
    assert main(["trace", str(path), "--input-shape", "image:1,3,8,9"]) == 0


def test_what_a_data_layer_lacks_is_told_once():
    with pytest.raises(LayerError) as caught:
        caffe_fcn.Net(TRAIN)
    assert str(caught.value).count("layer 'data' (Data)") == 1


def test_a_net_that_ends_in_silence_is_for_what_silence_reads(tmp_path):
    """As Colorful Image Colorization's: Caffe gives no output, and scripts read the blob by name."""
    path = tmp_path / "net.prototxt"
    path.write_text(
        'input: "data" input_shape { dim: [1, 2, 5, 5] }\n'
        'layer { name: "twice" type: "Power" bottom: "data" top: "ab" power_param { scale: 2 } }\n'
        'layer { name: "quiet" type: "Silence" bottom: "ab" }'
    )
    result = convert(path, None, tmp_path / "net.onnx")
    assert list(result.outputs) == ["ab"]
    assert result.dropped == ["quiet"]
    assert caffe_fcn.Net(path).outputs == []
