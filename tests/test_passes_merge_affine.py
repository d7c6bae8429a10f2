"""Arithmetic by channel as one node: which runs become one, and that the numbers stay."""

from __future__ import annotations

import numpy as np
import pytest

from caffe_fcn.export.exporter import export
from caffe_fcn.export.passes import merge_affine
from caffe_fcn.export.write import to_model
from caffe_fcn.formats.prototxt import read_net
from caffe_fcn.net import TEST, Net
from caffe_fcn.runtime import Session

INPUT = 'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 5 dim: 4 dim: 3 } } }\n'
FILLERS = 'filler { type: "uniform" min: 0.5 max: 2 } bias_filler { type: "uniform" min: -1 max: 1 }'


def layer(kind: str, bottom: str, top: str, more: str = "") -> str:
    return f'layer {{ name: "{top}" type: "{kind}" bottom: "{bottom}" top: "{top}" {more} }}\n'


def norm(bottom: str, top: str) -> str:
    return layer("BatchNorm", bottom, top)


def scale(bottom: str, top: str, more: str = "") -> str:
    return layer("Scale", bottom, top, f"scale_param {{ bias_term: true {FILLERS} {more} }}")


def bias(bottom: str, top: str) -> str:
    return layer("Bias", bottom, top, 'bias_param { filler { type: "uniform" min: -1 max: 1 } }')


def power(bottom: str, top: str, more: str = "scale: 0.5 shift: -3") -> str:
    return layer("Power", bottom, top, f"power_param {{ {more} }}")


def up(bottom: str, top: str) -> str:
    filler = 'weight_filler { type: "gaussian" std: 0.3 }'
    return layer(
        "Deconvolution",
        bottom,
        top,
        f"convolution_param {{ num_output: 5 kernel_size: 2 stride: 2 {filler} }}",
    )


def made(text: str) -> Net:
    net = Net(read_net("net", text=INPUT + text), TEST)
    rng = np.random.default_rng(0)
    for name, blobs in net.params.items():
        if net.layer_dict[name].param.type == "BatchNorm":
            blobs[0].data[...] = rng.normal(0, 2, 5)
            blobs[1].data[...] = rng.uniform(0.5, 3, 5)
            blobs[2].data[...] = 1
    return net


def merged(text: str, count: int, outputs=None):
    """The graph after the pass, which has changed `count` places and no number."""
    net = made(text)
    plain, graph = export(net, outputs).graph, export(net, outputs).graph
    assert merge_affine.apply(graph) == count
    if count == 0:
        assert to_model(graph, 17) == to_model(plain, 17)
    x = np.random.default_rng(1).normal(0, 60, (2, 5, 4, 3)).astype(np.float32)
    a, b = (Session(to_model(g, 17).SerializeToString(), "cpu").run({"x": x}) for g in (plain, graph))
    assert list(a) == list(b)
    for name, value in a.items():
        np.testing.assert_allclose(b[name], value, rtol=0, atol=1e-5 * np.abs(value).max())
    return graph


@pytest.mark.parametrize(
    "text",
    [
        norm("x", "n") + scale("n", "s"),
        scale("x", "s"),
        power("x", "p"),
        norm("x", "n") + scale("n", "s") + power("s", "p") + bias("p", "b"),
        bias("x", "b") + power("b", "p", "scale: -2"),
        up("x", "u") + bias("u", "b"),
        up("x", "u") + norm("u", "n") + scale("n", "s"),
    ],
    ids=[
        "norm scale",
        "scale",
        "power",
        "four",
        "bias power",
        "deconvolution bias",
        "deconvolution norm scale",
    ],
)
def test_one_run_becomes_one_node(text):
    graph = merged(text, 1)
    ops = [node.op for node in graph.nodes]
    assert (
        ops == ["ConvTranspose", "BatchNormalization"] if "Deconvolution" in text else ["BatchNormalization"]
    )
    assert graph.nodes[-1].outputs == [graph.outputs[0].name]


@pytest.mark.parametrize(
    "text",
    [
        norm("x", "n"),
        bias("x", "b"),
        up("x", "u") + norm("u", "n"),
        scale("x", "s", "axis: 1 num_axes: 3"),  # a factor for every element
        power("x", "p", "power: 2 scale: 0.5"),
        layer("InnerProduct", "x", "f", "inner_product_param { num_output: 4 }") + scale("f", "s"),
    ],
    ids=["norm", "bias", "folded anyway", "by element", "not affine", "no maps"],
)
def test_left_alone(text):
    merged(text, 0)


def test_a_run_ends_where_somebody_else_reads():
    """The norm's own top is an output too: the two layers stay two."""
    graph = merged(norm("x", "n") + scale("n", "s") + power("s", "p"), 1, ["n", "p"])
    assert [node.op for node in graph.nodes] == ["BatchNormalization", "BatchNormalization"]
    assert {"n", "p"} <= set(graph.values)
    assert "s" not in graph.values


def test_two_branches():
    text = scale("x", "a") + power("x", "b") + layer("Eltwise", "a", "c", 'bottom: "b"')
    assert [node.op for node in merged(text, 2).nodes] == ["BatchNormalization", "BatchNormalization", "Add"]


def test_constants_on_either_side():
    """Sub and Div, as no layer writes them."""
    from caffe_fcn.export.graph import Graph, Node, Value

    graph = Graph("g", [Value("x", (1, 2, 3, 3))], [Value("y", (1, 2, 3, 3))])
    graph.constants = {"c": np.float32([[[2]], [[4]]]), "d": np.float32(3)}
    steps = [("Sub", "d", "x", "a"), ("Div", "a", "c", "b"), ("Sub", "b", "d", "e"), ("Mul", "c", "e", "y")]
    graph.nodes = [Node(op, [p, q], [top], {}, top, top) for op, p, q, top in steps]
    graph.values = {"y": graph.outputs[0]}
    x = np.random.default_rng(0).normal(0, 1, (1, 2, 3, 3)).astype(np.float32)
    c = graph.constants["c"]
    expected = c * ((3 - x) / c - 3)
    assert merge_affine.apply(graph) == 1
    got = Session(to_model(graph, 17).SerializeToString(), "cpu").run({"x": x})["y"]
    np.testing.assert_allclose(got, expected, atol=1e-4)


def test_dividing_by_zero_stays():
    from caffe_fcn.export.graph import Graph, Node, Value

    graph = Graph("g", [Value("x", (1, 2, 3))], [Value("y", (1, 2, 3))])
    graph.constants = {"c": np.float32([[1], [0]])}
    graph.nodes = [Node("Div", ["x", "c"], ["a"], name="a"), Node("Add", ["a", "c"], ["y"], name="y")]
    assert merge_affine.apply(graph) == 0
