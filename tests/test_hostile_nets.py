"""Hostile nets: changed real ones, random ones, and by name what a net may try."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caffe_fcn.blob import LARGEST
from caffe_fcn.conversion import convert
from caffe_fcn.errors import CaffeError, LayerError
from caffe_fcn.formats.prototxt import read_net
from caffe_fcn.net import Net
from caffe_fcn.tracing import trace
from tests.hostile import Chosen, net, refused, text_file
from tests.hostile_changes import changed, seeds
from tests.hostile_nets import random_net
from tests.layer_nets import build
from tests.small_nets import conv, net_of, pool

quick = settings(deadline=None, derandomize=True, database=None)


@given(st.randoms(use_true_random=True))
@settings(quick, max_examples=60)
def test_changed_nets(tmp_path_factory, rng):
    content = changed(rng.choice(seeds("prototxt")), rng, "prototxt")
    refused(text_file, content, tmp_path_factory.getbasetemp())


@given(st.binary(max_size=300))
@settings(quick, max_examples=60)
def test_random_nets(tmp_path_factory, choices):
    folder = tmp_path_factory.getbasetemp()
    refused(text_file, random_net(Chosen(choices), str(folder)).encode(), folder)


@given(st.integers(0, 2**32))
@settings(quick, max_examples=30)
def test_random_nets_of_sane_numbers(tmp_path_factory, seed):
    """Most of these are built; what is refused is refused before anything is written."""
    folder = tmp_path_factory.getbasetemp()
    refused(text_file, random_net(Random(seed), str(folder), 0.0).encode(), folder)
    assert not list(folder.glob("*.onnx*"))


def test_most_random_nets_are_built(tmp_path):
    """Else the properties above would say little."""
    nets = (random_net(Random(i), str(tmp_path), 0.0).encode() for i in range(30))
    assert sum(not refused(text_file, each, tmp_path) for each in nets) >= 10


# What a net may try

INPUT = 'layer { name: "data" type: "Input" top: "data" input_param { shape { %s } } }\n'
FOUR = INPUT % "dim: 1 dim: 4 dim: 8 dim: 8"


def layer(type_: str, name: str, bottoms: str, tops: str, fields: str = "") -> str:
    wires = [*(f'bottom: "{b}"' for b in bottoms.split()), *(f'top: "{t}"' for t in tops.split())]
    return f'layer {{ name: "{name}" type: "{type_}" {" ".join(wires)} {fields} }}\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (layer("ReLU", "a", "y", "x") + layer("ReLU", "b", "x", "y"), "unknown bottom blob 'y'"),
        (FOUR + layer("Eltwise", "a", "data a", "a"), "unknown bottom blob 'a'"),
        (layer("ReLU", "a", "a", "a"), "unknown bottom blob 'a'"),
        (layer("Eltwise", "a", "b c", "x") + layer("Split", "s", "x", "b c"), "unknown bottom blob 'b'"),
    ],
    ids=["two layers", "itself", "in place on nothing", "through a Split"],
)
def test_cycles(text, message):
    with pytest.raises(LayerError, match=message):
        Net(text)


@pytest.mark.parametrize(
    "dims",
    [
        "dim: 1024 dim: 1024 dim: 1024 dim: 1024",
        "dim: 1099511627776",
        "dim: 9223372036854775807 dim: 9223372036854775807",
        "dim: 2147483648",
        "dim: 0 dim: 9223372036854775807",
        "dim: 65536 dim: 65536",
    ],
)
def test_blobs_of_more_elements_than_caffe_counts(dims):
    with pytest.raises(CaffeError, match=str(LARGEST)):
        Net(INPUT % dims + layer("ReLU", "r", "data", "r"))


@pytest.mark.parametrize(
    "fields",
    [
        "Tile t data tile_param { axis: 1 tiles: 2147483647 }",
        "InnerProduct t data inner_product_param { num_output: 4294967295 }",
        "Convolution t data convolution_param { num_output: 4294967295 kernel_size: 1 }",
        "Convolution t data convolution_param { num_output: 1 kernel_size: 3 pad: 2147483647 }",
        "Deconvolution t data convolution_param { num_output: 1 kernel_size: 3 stride: 2147483647 }",
        "Deconvolution t data convolution_param { num_output: 1 kernel_size: 4294967295 }",
        "Embed t data embed_param { num_output: 2147483647 input_dim: 2147483647 }",
        "Reshape t data reshape_param { shape { dim: 9223372036854775807 dim: -1 } }",
        "Pooling t data pooling_param { kernel_size: 4294967295 pad: 4294967294 }",
        "Im2col t data convolution_param { kernel_size: 3 pad: 1000000000 }",
        "SPP t data spp_param { pyramid_height: 4294967295 }",
        "Interp t data interp_param { height: 2147483647 width: 2147483647 }",
        "Upsample t data upsample_param { scale: 2147483647 }",
    ],
    ids=lambda fields: fields.split("{", 1)[1].replace(" ", ""),
)
def test_sizes_that_a_word_blows_up(fields):
    """Refused by their number, or never taken: in no case is the memory asked for."""
    with pytest.raises(CaffeError):
        net_of(fields, channels=4).forward()


@pytest.mark.parametrize(
    "dims", ["dim: -1", "dim: 1 dim: -3 dim: 8 dim: 8", "dim: -2147483648 dim: -1", "dim: 1 dim: 0 dim: -1"]
)
def test_negative_sizes(dims):
    with pytest.raises(CaffeError, match="-"):
        Net(INPUT % dims + layer("ReLU", "r", "data", "r"))


@pytest.mark.parametrize("axis", [-5, 4, 2**31 - 1, -(2**31)])
@pytest.mark.parametrize("type_", ["Softmax", "Flatten", "InnerProduct", "Concat", "Slice", "ArgMax", "Tile"])
def test_axes_that_do_not_exist(type_, axis):
    more = {"InnerProduct": "num_output: 1", "Tile": "tiles: 2"}.get(type_, "")
    name = {"InnerProduct": "inner_product", "ArgMax": "argmax"}.get(type_, type_.lower())
    with pytest.raises(CaffeError, match="ax"):
        net_of(f"{type_} t data {name}_param {{ axis: {axis} {more} }}")


ZEROS = [
    *(f"{kind} t data {conv(fields)}" for kind in ("Convolution", "Deconvolution") for fields in (
        "kernel_size: 0", "kernel_size: 3 stride: 0", "kernel_h: 0 kernel_w: 3", "kernel_size: 3 dilation: 0",
        "kernel_size: 1 group: 0", "", "kernel_size: 3 stride_h: 0 stride_w: 1",
    )),
    *(f"Pooling t data {pool(fields)}" for fields in (
        "kernel_size: 0", "kernel_size: 2 stride: 0", "", "kernel_size: 2 pad: 2", "kernel_h: 2",
        "kernel_size: 2 stride_h: 0 stride_w: 1", "global_pooling: true kernel_size: 2",
    )),
    "Im2col t data convolution_param { kernel_size: 0 }",
    "LRN t data lrn_param { local_size: 0 }",
    "LRN t data lrn_param { local_size: 2 }",
    "Tile t data tile_param { tiles: 0 }",
    "InnerProduct t data inner_product_param { num_output: 0 }",
    "Interp t data interp_param { zoom_factor: 0 }",
    "ShuffleChannel t data shuffle_channel_param { group: 0 }",
]  # fmt: skip


@pytest.mark.parametrize("fields", ZEROS, ids=lambda f: "".join(f.split()[::2])[:60])
def test_kernels_strides_and_groups_of_zero(fields):
    with pytest.raises(LayerError) as caught:
        net_of(fields, channels=4)
    assert "'t'" in str(caught.value)


@pytest.mark.parametrize("group", [3, 5, 2**32 - 1])
@pytest.mark.parametrize("type_", ["Convolution", "Deconvolution"])
def test_groups_that_do_not_divide(type_, group):
    fields = f"convolution_param {{ num_output: 4 kernel_size: 1 group: {group} }}"
    with pytest.raises(LayerError, match=f"{group}"):
        net_of(f"{type_} t data {fields}", channels=4)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "3.4e38", "1e-45", "-0.0"])
def test_fillers_and_parameters_that_are_no_numbers(value, tmp_path):
    """They go through to NumPy and to ONNX as they are, or are refused; shapes never depend on them."""
    fillers = [f"type: 'constant' value: {value}", f"type: 'uniform' min: {value} max: {value}",
               f"type: 'gaussian' mean: {value} std: {value}"]  # fmt: skip
    shape = "num_output: 2 kernel_size: 1"
    layers = [f"Convolution {name} data convolution_param {{ {shape} weight_filler {{ {f} }} }}"
              for name, f in zip("abc", fillers, strict=True)]  # fmt: skip
    layers += [
        f"ReLU r a relu_param {{ negative_slope: {value} }}", f"ELU e a elu_param {{ alpha: {value} }}",
        f"Power p a power_param {{ power: {value} scale: {value} shift: {value} }}",
        f"LRN l a lrn_param {{ alpha: {value} beta: {value} k: {value} }}",
        f"Exp x a exp_param {{ base: {value} }}", f"Log g a log_param {{ base: {value} }}",
        f"Eltwise s a,b eltwise_param {{ coeff: {value} coeff: 1 }}",
        f"BatchNorm n a batch_norm_param {{ eps: {value} moving_average_fraction: {value} }}",
        f"Threshold h a threshold_param {{ threshold: {value} }}",
        f"Dropout d a dropout_param {{ dropout_ratio: {value} }}",
        f"Clip c a clip_param {{ min: {value} max: {value} }}",
        f"Resize z a resize_param {{ height_scale: {value} width_scale: {value} }}",
    ]  # fmt: skip
    for each in layers[2:]:
        refused(text_file, net_text(*layers[:2], each).encode(), tmp_path)


def net_text(*layers: str) -> str:
    found = [FOUR]
    for each in layers:
        kind, name, bottoms, fields = each.split(maxsplit=3)
        found.append(layer(kind, name, bottoms.replace(",", " "), name, fields))
    return "".join(found)


def test_duplicate_layer_names(tmp_path):
    """Caffe builds such a net, and finds the last of them by name; its weights are one layer's."""
    three = conv("kernel_size: 3")
    text = FOUR + layer("ReLU", "a", "data", "x") + layer("Convolution", "a", "x", "y", three)
    built = Net(text + layer("Convolution", "a", "y", "z", three))
    assert built.layer_names == ["data", "a", "a", "a"]
    net(read_net("net", text=text), tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        FOUR + layer("ReLU", "a", "data", "x") + layer("ReLU", "b", "data", "x"),
        FOUR + layer("Split", "s", "data", "x x"),
        FOUR + layer("Slice", "s", "data", "data data"),
        FOUR + FOUR.replace('name: "data"', 'name: "again"'),
        FOUR + layer("ReLU", "a", "data", "x") + layer("Split", "s", "x", "y x"),
    ],
    ids=["by two layers", "by one layer", "in place and again", "by two Inputs", "in place at another index"],
)
def test_a_top_used_twice(text):
    with pytest.raises(LayerError, match=r"top blob '(x|data)' is made by two layers|does not work in place"):
        Net(text)


@pytest.mark.parametrize("text", ["", "name: 'n'", "# nothing", "state { phase: TEST }"])
def test_nets_of_nothing(text, tmp_path):
    net_ = read_net("net", text=text)
    built = Net(net_)
    assert built.forward() == {}
    assert trace(built).rows == []
    with pytest.raises(CaffeError, match=r"no outputs|is empty"):
        net(net_, tmp_path)


def test_an_in_place_layer_on_an_input_is_converted(tmp_path):
    """ONNX takes no output of an input's name; the file is verified all the same."""
    (tmp_path / "net.prototxt").write_text(FOUR + layer("ReLU", "r", "data", "data"))
    result = convert(tmp_path / "net.prototxt", None, tmp_path / "net.onnx")
    assert list(result.inputs) == ["data"]
    assert list(result.outputs) == ["data_2"]
    assert list(result.verified.differences) == ["data_2"]


@pytest.mark.parametrize("option", ["softmax", "argmax"])
def test_outputs_without_classes(option, tmp_path):
    (tmp_path / "net.prototxt").write_text(FOUR + layer("Reduction", "r", "data", "r"))
    with pytest.raises(CaffeError, match=f"--{option} needs outputs of at least 2 axes; 'r' is"):
        convert(tmp_path / "net.prototxt", None, tmp_path / "net.onnx", **{option: True})


@pytest.mark.parametrize(
    "shapes",
    [
        ((1, 8), (1, 4), (1, 1, 8)),
        ((1, 8), (1, 4), (1, 2, 8), (1, 9), (1, 8)),
        ((1, 8), (1, 4), (1, 2, 8), (1, 4), (2, 8)),
    ],
)
def test_boxes_that_do_not_fit_their_priors(shapes):
    with pytest.raises(LayerError, match=r"'[cde]' is .*prior"):
        build('type: "DetectionOutput" detection_output_param { num_classes: 2 }', *shapes)


@pytest.mark.parametrize("value", [np.nan, np.inf, -1, 64, 1e30])
def test_positions_of_a_mask_that_lie_nowhere(value):
    net_ = build('type: "Upsample" upsample_param { scale: 2 }', (1, 1, 2, 2), (1, 1, 2, 2))
    with pytest.raises(LayerError, match=r"position .* of its mask lies outside of 4 x 4"):
        net_.forward(a=np.ones((1, 1, 2, 2)), b=np.full((1, 1, 2, 2), value))
