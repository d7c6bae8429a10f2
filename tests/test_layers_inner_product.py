"""InnerProduct and Embed: settings, shapes and errors, in NumPy and as ONNX."""

from __future__ import annotations

import numpy as np
import pytest

from caffe_fcn.errors import LayerError
from caffe_fcn.export.exporter import export
from tests.layer_nets import build, draw, misaligned, nodes, run, to_session
from tests.reference_cases import assert_close

# --- InnerProduct


def inner(setting, shape):
    net = build(f'type: "InnerProduct" inner_product_param {{ num_output: 5 {setting} }}', shape)
    for blob in net.params["layer"]:
        blob.share(misaligned(draw(*blob.shape, seed=len(blob.shape))))
    return net


@pytest.mark.parametrize("transpose", ["", "transpose: true"])
@pytest.mark.parametrize("bias", ["", "bias_term: false"])
@pytest.mark.parametrize(
    ("axis", "shape"),
    [(1, (2, 3)), (1, (2, 3, 4, 5)), (0, (2, 3)), (2, (2, 3, 4, 5)), (-1, (2, 3, 4)), (0, (7,))],
)
def test_inner_product(axis, shape, transpose, bias):
    net = inner(f"axis: {axis} {transpose} {bias}", shape)
    x, (weight, *more) = draw(*shape), (blob.data for blob in net.params["layer"])
    outer = shape[: axis % len(shape)]
    flat = x.reshape(*outer, -1).astype(np.float64)
    want = flat @ (weight if transpose else weight.T) + (more[0] if more else 0)
    assert_close(run(net, x), want.astype(np.float32), "top")


def test_a_fully_connected_layer_leaves_the_batch_open():
    net = inner("", (2, 3, 4, 5))
    found = export(net)
    assert set(found.fixed) == {"H", "W"}
    assert [node.op for node in found.graph.nodes] == ["Flatten", "Gemm"]
    assert np.shares_memory(found.graph.constants["layer.weight"], net.params["layer"][0].data)
    session = to_session(net)
    for n in (1, 2, 7):
        run(net, draw(n, 3, 4, 5), session=session)


def test_inner_products_of_nothing():
    net = inner("", (0, 3, 4))
    assert net.forward(a=np.zeros((0, 3, 4), np.float32))["top"].shape == (0, 5)
    net = inner("", (2, 0))
    assert (net.forward(a=np.zeros((2, 0), np.float32))["top"] == net.params["layer"][1].data).all()


def test_inner_products_of_another_size():
    net = inner("", (2, 3, 4, 5))
    net.blobs["a"].reshape(2, 3, 4, 6)
    with pytest.raises(
        LayerError, match=r"are for 60 elements, \(2, 3, 4, 6\) has 72 from axis 1 on\n.*Convolution"
    ):
        net.reshape()
    with pytest.raises(LayerError, match="num_output 0 must be positive"):
        build('type: "InnerProduct"', (2, 3))


# --- Embed


def embed(setting, *shape):
    net = build(f'type: "Embed" embed_param {{ num_output: 3 input_dim: 7 {setting} }}', shape)
    for blob in net.params["layer"]:
        blob.data[...] = draw(*blob.shape, seed=len(blob.shape))
    return net


@pytest.mark.parametrize("shape", [(6,), (2, 3), (2, 1, 3, 1), (0,)])
@pytest.mark.parametrize("bias", ["", "bias_term: false"])
def test_embed(shape, bias):
    net = embed(bias, *shape)
    rows = np.random.default_rng(0).integers(0, 7, shape)
    weight, *more = (blob.data for blob in net.params["layer"])
    fractions = rows + np.float32(0.75)  # cut off
    want = weight[rows] + (more[0] if more else np.float32(0))
    assert np.array_equal(run(net, fractions.astype(np.float32)), want)
    assert nodes(net) == ["Cast", "Gather", "Add"][: 2 + len(more)]


@pytest.mark.parametrize("wrong", [7, -1, np.nan, np.inf])
def test_rows_that_are_not_there(wrong):
    net = embed("", 3)
    with pytest.raises(LayerError, match=rf"bottom holds {wrong}.*, input_dim is 7"):
        net.forward(a=np.array([0, wrong, 1], np.float32))
    for setting, message in (("num_output: 3", "input_dim 0"), ("input_dim: 3", "num_output 0")):
        with pytest.raises(LayerError, match=f"{message} must be positive"):
            build(f'type: "Embed" embed_param {{ {setting} }}', (3,))
