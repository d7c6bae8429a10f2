"""Old nets in today's form: what Caffe's own tool made of them, and what it loses or refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from caffe_fcn.errors import CaffeWarning, PrototxtError
from caffe_fcn.formats import caffe_pb2
from caffe_fcn.formats.fork_types import LATER_TYPES
from caffe_fcn.formats.prototxt import parse, read_net
from caffe_fcn.formats.upgrade import V0_TYPES, V1_TYPES, upgrade
from caffe_fcn.layers import LAYERS
from tests.conftest import REFERENCE

OLD = [path for path in sorted((REFERENCE / "upgrade").iterdir()) if ".upgraded." not in path.name]
BOTH = "input_shape { dim: 1 } input_dim: [1, 2, 3, 4, 5, 6, 7, 8]"
DIMS = "input: 'x' input_dim: 1 input_dim: 3 input_dim: 9 input_dim: 9 "


def net(text: str) -> Any:
    return read_net("net", text=text).net


@pytest.mark.parametrize("path", OLD, ids=lambda path: path.stem)
def test_equals_what_caffe_made(path: Path) -> None:
    expected = parse(path.with_name(f"{path.stem}.upgraded.prototxt").read_text(), caffe_pb2.NetParameter)
    read = read_net(path)
    assert read.net == expected
    assert len(read.origins) == len(read.net.layer)
    assert upgrade(read.net, read.origins) == (read.net, read.origins)


def test_there_are_cases() -> None:
    assert len(OLD) == 7


def test_v1_types_are_those_of_the_schema() -> None:
    enum = caffe_pb2.V1LayerParameter.DESCRIPTOR.enum_types_by_name["LayerType"]
    assert set(V1_TYPES) == set(enum.values_by_name)
    assert len(V0_TYPES) == 24
    assert set(V0_TYPES.values()) <= set(V1_TYPES.values())


def test_every_field_of_v1_has_its_place_today() -> None:
    old, new = (
        message.DESCRIPTOR.fields_by_name
        for message in (caffe_pb2.V1LayerParameter, caffe_pb2.LayerParameter)
    )
    moved = {"layer", "blobs_lr", "weight_decay", "blob_share_mode", "param", "type"}
    for name in set(old) - moved:
        assert old[name].message_type is new[name].message_type, name
        assert old[name].type == new[name].type, name


# Lines and unknown fields follow their layers


def test_lines_follow_their_layers() -> None:
    read = read_net(
        "old.prototxt",
        text="""name: "v0"
        layers { layer { name: "pad" type: "padding" pad: 2 } bottom: "x" top: "p" }
        layers { layer { name: "conv" type: "conv" pad: 1 foo: 3 } bottom: "p" top: "c" bar: 4 }
        input_dim: 1 input_dim: 3 input_dim: 9 input_dim: 9
        input: "x"
        layers { layer { name: "relu" type: "relu" } bottom: "c" top: "c" }""",
    )
    assert [layer.name for layer in read.net.layer] == ["input", "conv", "relu"]
    assert [str(origin) for origin in read.origins] == ["old.prototxt:5", "old.prototxt:3", "old.prototxt:6"]
    assert [origin.fields for origin in read.origins] == [{}, {"foo": 3, "bar": 4}, {}]
    assert read.net.layer[1].bottom == ["x"]
    assert read.net.layer[1].convolution_param.pad == [2]


def test_a_type_that_only_a_fork_knows_keeps_its_parameters() -> None:
    read = read_net(
        "net",
        text="layers { type: CONVOLUTION } layers { type: UPSAMPLE bottom: 'a' upsample_param { scale: 2 } }",
    )
    assert [layer.type for layer in read.net.layer] == ["Convolution", "Upsample"]
    assert [origin.fields for origin in read.origins] == [{}, {}]
    assert read.net.layer[1].upsample_param.scale == 2


def test_the_types_of_forks_are_layers_here() -> None:
    known = set(LATER_TYPES) - {"DenseCRF", "EltwiseAccuracy", "MultiStageMeanfield"}
    assert known <= set(LAYERS)
    for name, v1 in (("ImageSegData", "IMAGE_SEG_DATA"), ("BN", "BN"), ("PReLU", "PRELU"), ("CROP", "CROP")):
        assert read_net("net", text=f"layers {{ type: {v1} }}").net.layer[0].type == name


# Inputs


def test_several_inputs_become_one_layer_in_front() -> None:
    dims = "input: 'a' layer { name: 'l' } input: 'b' " + "input_dim: [1, 2, 3, 4, 5, 6, 7, 8, 9]"
    first, second = net(dims).layer
    assert (first.name, first.type, first.top, second.name) == ("input", "Input", ["a", "b"], "l")
    assert [list(shape.dim) for shape in first.input_param.shape] == [[1, 2, 3, 4], [5, 6, 7, 8]]


def test_shapes_go_before_dims() -> None:
    (layer,) = net(DIMS + "input_shape { dim: 7 }").layer
    assert [list(shape.dim) for shape in layer.input_param.shape] == [[7]]


def test_an_input_without_shape_that_a_layer_makes_is_dropped() -> None:
    with pytest.warns(CaffeWarning, match="net:1: input 'x' has no input_shape; a layer makes it"):
        read = read_net("net", text="input: 'x' layer { name: 'l' type: 'Input' top: 'x' }")
    assert [layer.name for layer in read.net.layer] == ["l"]


def test_an_input_without_shape_is_an_input_all_the_same() -> None:
    with pytest.warns(
        CaffeWarning, match="net:2: input 'x' has no input_shape; give it: --input-shape x:1,3"
    ):
        read = read_net("net", text="layer { name: 'l' }\ninput: 'x'")
    assert [(layer.name, list(layer.top)) for layer in read.net.layer] == [("input", ["x"]), ("l", [])]
    assert not read.net.layer[0].HasField("input_param")
    assert [origin.line for origin in read.origins] == [2, 1]
    assert not read.net.input


@pytest.mark.parametrize(
    "dims", ["input_dim: 1", "input_shape { dim: 1 }", "input_dim: [1, 2, 3, 4, 5, 6, 7]", BOTH]
)
def test_inputs_lacking_dims_are_refused(dims: str) -> None:
    with pytest.raises(PrototxtError, match=r"net:1: no dims are left for input '[ab]': 2 inputs, but "):
        net(f"input: 'a' input: 'b' {dims}")


# BatchNorm


def test_only_a_batch_norm_of_three_parameters_is_frozen() -> None:
    three = "param { lr_mult: 5 } param { name: 'v' } param { decay_mult: 1 }"
    frozen, other, five = net(
        f"layer {{ type: 'BatchNorm' {three} }} layer {{ type: 'Scale' {three} }}"
        f"layer {{ type: 'BatchNorm' {three} param {{ }} param {{ }} }}"
    ).layer
    assert all(p.HasField("lr_mult") and p.HasField("decay_mult") for p in frozen.param)
    assert [(p.name, p.lr_mult, p.decay_mult) for p in frozen.param] == [("", 0, 0), ("v", 0, 0), ("", 0, 0)]
    assert other.param[0].lr_mult == five.param[0].lr_mult == 5


# V1


def test_data_transforms_move_in_all_data_layers_or_in_none() -> None:
    plain = "layers { type: IMAGE_DATA } layers { type: RELU }"
    for layer in net(plain).layer:
        assert not layer.HasField("transform_param")
    moved = net("layers { type: WINDOW_DATA window_data_param { mirror: true crop_size: 5 } }" + plain).layer
    assert moved[0].transform_param == caffe_pb2.TransformationParameter(mirror=True, crop_size=5)
    assert moved[1].HasField("transform_param")
    assert moved[1].HasField("image_data_param")
    assert not moved[2].HasField("transform_param")


def test_today_s_data_layers_keep_what_v1_had() -> None:
    (layer,) = net("layer { type: 'Data' data_param { scale: 2 } }").layer
    assert layer.data_param.scale == 2
    assert not layer.HasField("transform_param")


def test_both_layer_and_layers_are_refused_with_both_lines() -> None:
    with pytest.raises(
        PrototxtError, match=r"net:2: the net has both `layer` and, at net:1, the older `layers`"
    ):
        net("layers { }\nlayer { }")


# V0


@pytest.mark.parametrize(
    ("v0", "today"),
    [
        (
            "type: 'images' source: 's' batchsize: 2 rand_skip: 3 shuffle_images: true new_height: 4"
            " new_width: 5 scale: 6 meanfile: 'm' cropsize: 7 mirror: true",
            "type: 'ImageData' image_data_param { source: 's' batch_size: 2 rand_skip: 3 shuffle: true"
            " new_height: 4 new_width: 5 }"
            " transform_param { scale: 6 mean_file: 'm' crop_size: 7 mirror: true }",
        ),
        (
            "type: 'window_data' source: 's' batchsize: 2 det_fg_threshold: 3 det_bg_threshold: 4"
            " det_fg_fraction: 5 det_context_pad: 6 det_crop_mode: 'square'",
            "type: 'WindowData' window_data_param { source: 's' batch_size: 2 fg_threshold: 3 bg_threshold: 4"
            " fg_fraction: 5 context_pad: 6 crop_mode: 'square' }",
        ),
        (
            "type: 'data' source: 's' batchsize: 2 rand_skip: 3",
            "type: 'Data' data_param { source: 's' batch_size: 2 rand_skip: 3 }",
        ),
        (
            "type: 'hdf5_data' source: 's' batchsize: 2",
            "type: 'HDF5Data' hdf5_data_param { source: 's' batch_size: 2 }",
        ),
        (
            "type: 'hdf5_output' hdf5_output_param { file_name: 'f' }",
            "type: 'HDF5Output' hdf5_output_param { file_name: 'f' }",
        ),
        ("type: 'infogain_loss' source: 's'", "type: 'InfogainLoss' infogain_loss_param { source: 's' }"),
        ("type: 'concat' concat_dim: 0", "type: 'Concat' concat_param { concat_dim: 0 }"),
        ("type: 'pool' pad: 1 pool: AVE", "type: 'Pooling' pooling_param { pad: 1 pool: AVE }"),
        ("type: 'lrn' k: 2", "type: 'LRN' lrn_param { k: 2 }"),
        (
            "type: 'accuracy' blobs { data: 2 } blobs_lr: 0 weight_decay: 1 weight_decay: 2",
            "type: 'Accuracy' blobs { data: 2 } param { lr_mult: 0 decay_mult: 1 } param { decay_mult: 2 }",
        ),
    ],
)
def test_v0_parameters(v0: str, today: str) -> None:
    assert net(f"layers {{ layer {{ name: 'a' {v0} }} }}") == net(f"layer {{ name: 'a' {today} }}")


def test_what_means_nothing_in_a_v0_layer_is_lost_with_a_warning() -> None:
    old = "layers { layer { name: 'r' type: 'relu' stride: 2 new_num: 1 hdf5_output_param { } } }"
    with pytest.warns(CaffeWarning) as caught:
        assert net(old) == net("layer { name: 'r' type: 'ReLU' }")
    lost = [str(warning.message).split(" is lost, as in Caffe")[0] for warning in caught]
    assert lost == [f"net:1: layer 'r': '{name}'" for name in ("stride", "new_num", "hdf5_output_param")]


def test_what_is_not_v0_in_a_v0_net_is_lost_with_a_warning() -> None:
    text = """layers { layer { type: "relu" } } layers { name: "v1" type: RELU top: "y" }
    layer { name: "new" } input_shape { dim: 1 } state { } debug_info: true force_backward: true"""
    with pytest.warns(CaffeWarning) as caught:
        read = read_net("net", text=text)
    assert [str(warning.message).split(" is lost, as in Caffe")[0] for warning in caught] == [
        *("net: 'layer'", "net: 'input_shape'", "net: 'state'", "net: 'debug_info'"),
        "net:1: layer 'v1': all but bottom and top",
    ]
    assert read.net == parse(
        "layer { type: 'ReLU' } layer { top: 'y' } force_backward: true", caffe_pb2.NetParameter
    )
    assert len(read.origins) == 2


@pytest.mark.parametrize(
    ("layers", "problem"),
    [
        (
            "layers { layer { name: 'c' type: 'convv' } }",
            "net:1: layer 'c': no V0 layer has the type 'convv'\n  did you",
        ),
        (
            "layers { layer { name: 'c' type: 'conv' } bottom: 'q' }",
            "layer 'c': no layer before it makes its bottom 'q'",
        ),
        (
            "layers { layer { name: 'c' type: 'relu' } bottom: 'p' }",
            "layer 'c': reads the padding layer 'pad'",
        ),
        (
            "layers { layer { name: 'c' type: 'padding' } bottom: 'p' }",
            "layer 'c': reads the padding layer 'pad'",
        ),
        (
            "layers { layer { name: 'c' type: 'conv' } bottom: 'p' bottom: 'x' }",
            "layer 'c': reads the padding layer",
        ),
    ],
)
def test_v0_nets_that_caffe_refuses(layers: str, problem: str) -> None:
    pad = "layers { layer { name: 'pad' type: 'padding' pad: 1 } bottom: 'x' top: 'p' } "
    with pytest.raises(PrototxtError) as caught:
        net(DIMS + pad + layers)
    assert problem in str(caught.value)


def test_padding_of_two_blobs_is_refused() -> None:
    with pytest.raises(PrototxtError, match="layer 'pad': padding takes one bottom and makes one top"):
        net(
            DIMS + "layers { layer { name: 'pad' type: 'padding' } bottom: ['x', 'x'] top: 'p' }"
            "layers { layer { type: 'pool' } bottom: 'p' }"
        )
