"""Deconvolutions by channel, and without what is cropped: bit for bit the plain graph's output."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from caffe_fcn import surgery
from caffe_fcn.errors import CaffeError
from caffe_fcn.export.exporter import export
from caffe_fcn.export.passes import crop_in_deconvolution, group_deconvolution
from caffe_fcn.export.passes.crop_in_deconvolution import least
from caffe_fcn.export.write import to_model
from caffe_fcn.formats.prototxt import read_net
from caffe_fcn.net import TEST, Net
from caffe_fcn.runtime import Session
from caffe_fcn.symbols import Extent

INPUT = 'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 3 dim: 9 dim: 8 } } }\n'
UP = """layer {{ name: "up" type: "Deconvolution" bottom: "x" top: "up"
  convolution_param {{ num_output: 3 kernel_size: {k} stride: {s} pad: {p} bias_term: {bias}
    weight_filler {{ type: "gaussian" std: 1 }} bias_filler {{ type: "uniform" }} }} }}
"""
CROP = (
    'layer {{ name: "cut" type: "Crop" bottom: "{}" bottom: "x" top: "cut" crop_param {{ axis: 2 {} }} }}\n'
)


def up(k: int, s: int, p: int = 0, bias: bool = False) -> str:
    return UP.format(k=k, s=s, p=p, bias=str(bias).lower())


def crop(*offsets: int, of: str = "up") -> str:
    return CROP.format(of, " ".join(f"offset: {o}" for o in offsets))


def made(text: str, diagonal: bool = False) -> Net:
    net = Net(read_net("net", text=INPUT + text), TEST)
    if diagonal:
        surgery.interp(net, ["up"])
        weight = net.params["up"][0].data
        weight[~np.eye(3, dtype=bool)] = 0
    return net


def run(graph, h: int = 9, w: int = 8):
    x = np.random.default_rng(0).normal(0, 60, (1, 3, h, w)).astype(np.float32)
    return Session(to_model(graph, 17).SerializeToString(), "cpu").run({"x": x})


def same(plain, graph, h: int = 9, w: int = 8) -> None:
    got, expected = run(graph, h, w), run(plain, h, w)
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(got[name], value)


def the(graph, op: str):
    return [node for node in graph.nodes if node.op == op]


# --- by channel


@pytest.mark.parametrize("bias", [False, True])
def test_a_diagonal_kernel_is_grouped(bias):
    net = made(up(4, 2, bias=bias), diagonal=True)
    graph = export(net).graph
    assert group_deconvolution.apply(graph) == 1
    (node,) = the(graph, "ConvTranspose")
    assert node.attributes["group"] == 3
    assert graph.constants[node.inputs[1]].shape == (3, 1, 4, 4)
    assert sum(a.size for a in graph.constants.values()) == 48 + 3 * bias  # the dense kernel is gone
    same(export(net).graph, graph)


def test_one_small_weight_beside_the_diagonal_counts():
    net = made(up(4, 2), diagonal=True)
    net.params["up"][0].data[0, 2, 3, 3] = 1e-30
    graph = export(net).graph
    assert group_deconvolution.apply(graph) == 0
    assert to_model(graph, 17) == to_model(export(net).graph, 17)


def test_a_learned_kernel_stays():
    assert group_deconvolution.apply(export(made(up(4, 2))).graph) == 0


# --- without what is cropped


CUTS = [
    (up(4, 2) + crop(1), [1, 1, 1, 1], 1),
    (up(8, 4) + crop(2, 3), [2, 3, 2, 3], 1),
    (up(8, 4, 2) + crop(1, 0), [3, 2, 3, 2], 1),
    (up(4, 2) + crop(0, 1), [0, 1, 0, 1], 1),
    (up(3, 1) + crop(1), [1, 1, 1, 1], 0),  # as much at the end: no Slice is left
    (up(5, 1) + crop(1, 3), [1, 1, 1, 1], 1),
]


@pytest.mark.parametrize("fixed", [True, False])
@pytest.mark.parametrize(("text", "pads", "slices"), CUTS)
def test_a_crop_becomes_padding(text, pads, slices, fixed):
    """As much at both ends, whatever the size; a Slice takes the rest."""
    net = made(text)
    graph = export(net, static=["x"] * fixed).graph
    assert crop_in_deconvolution.apply(graph) == 1
    (node,) = the(graph, "ConvTranspose")
    assert node.attributes["pads"] == pads
    assert len(the(graph, "Slice")) == slices
    assert "up" not in graph.values
    for size in [(9, 8)] if fixed else [(9, 8), (1, 1), (2, 17), (30, 5)]:
        same(export(net, static=["x"] * fixed).graph, graph, *size)


def test_no_pad_beyond_the_kernel():
    net = made(up(8, 4) + crop(9))
    graph = export(net, static=["x"]).graph
    assert crop_in_deconvolution.apply(graph) == 1
    assert the(graph, "ConvTranspose")[0].attributes["pads"] == [7, 7, 7, 7]
    same(export(net, static=["x"]).graph, graph)


def test_only_what_every_image_loses():
    """Of an image of one row nothing may be left to cut behind: with open sizes nothing moves."""
    graph = export(made(up(8, 4) + crop(9))).graph
    assert crop_in_deconvolution.apply(graph) == 0


def test_nothing_to_move():
    """With offset 0 nothing is cut at the begin."""
    graph = export(made(up(4, 2) + crop(0))).graph
    assert crop_in_deconvolution.apply(graph) == 0


@pytest.mark.parametrize("more", ["read", "output"])
def test_a_deconvolution_that_is_read_elsewhere_stays(more):
    relu = 'layer { name: "r" type: "ReLU" bottom: "up" top: "r" }\n' if more == "read" else ""
    net = made(up(4, 2) + relu + crop(1))
    outputs = ["cut", "r" if relu else "up"]
    graph = export(net, outputs).graph
    assert crop_in_deconvolution.apply(graph) == 0
    same(export(net, outputs).graph, graph)


def test_a_crop_of_something_else_stays():
    assert crop_in_deconvolution.apply(export(made(up(4, 2) + crop(1, of="x").replace("1", "0"))).graph) == 0


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(1, 7), st.integers(1, 4), st.booleans())
def test_any_deconvolution_and_crop(data, k, s, fixed):
    """Both passes, at the size of the net and, where sizes are open, at others."""
    p = data.draw(st.integers(0, (k - 1) // 2))
    text = up(k, s, p, data.draw(st.booleans())) + crop(
        *data.draw(st.lists(st.integers(0, 9), min_size=1, max_size=2))
    )
    try:
        net = made(text, diagonal=True)
    except CaffeError:  # nothing is left to cut there
        reject()
    graph, plain = export(net, static=["x"] * fixed).graph, export(net, static=["x"] * fixed).graph
    group_deconvolution.apply(graph)
    crop_in_deconvolution.apply(graph)
    for size in [(9, 8)] if fixed else [(9, 8), (1, 1), (13, 2)]:
        try:
            run(plain, *size)
        except CaffeError:  # an image too small for the net
            continue
        same(plain, graph, *size)


# --- how small a size can get

H, W = (Extent.symbol(name, 500) for name in "HW")


def at(size, h: int):
    return size.at({"H": h}) if isinstance(size, Extent) else size


@given(st.integers(1, 40), st.integers(-50, 200), st.integers(1, 40), st.integers(-100, 100))
def test_least_is_a_bound(by, inside, factor, constant):
    """And sharp where a Deconvolution undoes a stride."""
    size = (H + inside) // by * factor + constant
    assert least(size) <= min(at(size, h) for h in range(1, 300))
    undone = (H + inside) // by * by - H + constant
    assert least(undone) == min(at(undone, h) for h in range(1, 300))


def test_least_of_what_may_shrink():
    assert least(7) == 7
    assert least(H + 3) == 4
    assert least(2 * W - H) == 0
    assert least(H * W - 5) == 0
    assert least(100 - H) == 0
