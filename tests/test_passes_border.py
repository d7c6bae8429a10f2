"""The border pass: bit for bit the plain graph, at every size, wherever it joins."""

from __future__ import annotations

from math import prod

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from caffe_fcn import surgery
from caffe_fcn.export.exporter import export
from caffe_fcn.export.graph import Graph
from caffe_fcn.export.passes import border, border_plan
from caffe_fcn.export.write import to_model
from caffe_fcn.formats.prototxt import read_net
from caffe_fcn.net import TEST, Net
from caffe_fcn.runtime import Session
from tests.conftest import REFERENCE
from tests.reference_cases import Case, cases

NETS = [case for case in cases("nets") if "fcn" in case.name]
THIN = Case(REFERENCE / "nets", "fcn8s-thin-1px")
#: Its first layer sums 363 products in a matrix product, whose order depends on the map's size; with as many
#: channels as the real net has, onnxruntime's other kernel runs.
REORDERED = {"fcn-alexnet-thin"}
PLANS = {"everywhere": (0, 0), "where it pays": (border_plan.MOVE, 0)}


@pytest.fixture(params=PLANS)
def plan(request, monkeypatch):
    """Thin nets have little to win: leave out what a join costs."""
    monkeypatch.setattr(border_plan, "MOVE", PLANS[request.param][0])
    monkeypatch.setattr(border_plan, "JOIN", PLANS[request.param][1])
    monkeypatch.setattr(border_plan, "WORTHWHILE", 0.0)
    return request.param


def session(graph: Graph) -> Session:
    return Session(to_model(graph, 17).SerializeToString(), "cpu")


def compute(graph: Graph, inputs):
    return session(graph).run(inputs)


def pictures(model: Session, n: int, h: int, w: int):
    rng = np.random.default_rng(h * w)
    return {
        name: rng.normal(0, 60, (n, i.shape[1], h, w)).astype(np.float32) for name, i in model.inputs.items()
    }


def agree(plain: Session, split: Session, size: tuple[int, int, int], exact: bool = True) -> None:
    fed = pictures(plain, *size)
    for name, expected in plain.run(fed).items():
        got = split.run(fed)[name]
        if exact:
            np.testing.assert_array_equal(got, expected, err_msg=f"{name} at {size}")
        else:
            scale = np.abs(expected).max()
            np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6 * scale, err_msg=f"{name} at {size}")


def pair(net: Net, **options) -> tuple[Graph, Graph]:
    """The plain graph, and the same to work on."""
    return export(net, **options).graph, export(net, **options).graph


@pytest.mark.parametrize("case", NETS, ids=lambda case: case.name)
def test_the_family(case, plan):
    """Batches, sizes of every remainder, with one net of two inputs."""
    plain, graph = pair(case.net())
    assert border.apply(graph) == len(graph.inputs)
    a, b = session(plain), session(graph)
    exact = case.name not in REORDERED and not (plan == "everywhere" and "color-d" in case.name)
    for size in [(1, 1, 1), (2, 2, 7), (3, 31, 33), (1, 48, 80), (1, 99, 37), (1, 130, 61)]:
        agree(a, b, size, exact)


def test_every_size_to_forty(plan):
    plain, graph = pair(THIN.net())
    assert border.apply(graph) == 1
    a, b = session(plain), session(graph)
    for n in range(1, 41):
        agree(a, b, (1 + n % 3, n, n * 7 % 41 + 1))


@pytest.mark.parametrize("size", [(1, 1, 1), (1, 31, 45), (2, 40, 33)], ids=str)
def test_fixed_sizes_store_the_border(size, plan):
    """No canvas is left in the file, and the stored values are those that the plain graph computes."""
    net = THIN.net()
    net.blobs["data"].reshape(size[0], 3, *size[1:])
    net.reshape()
    plain, graph = pair(net, static=["data"])
    assert border.apply(graph) == 1
    assert any(node.name.startswith("conv1_2/border") for node in graph.nodes)
    border.store(graph, compute)
    assert not [
        n.name for n in graph.nodes if n.op in ("Conv", "MaxPool", "Relu") and n.name.endswith("/border")
    ]
    agree(session(plain), session(graph), size)


def test_parts_do_not_carry_a_blob_s_name(plan):
    """What is named after a blob is the whole of it."""
    net = THIN.net()
    plain, graph = pair(net)
    border.apply(graph)
    made = {name for node in graph.nodes for name in node.outputs} | {"data"}
    assert set(graph.values) <= made & set(plain.values)
    assert {"pool3", "pool5", "score"} <= set(graph.values)
    names = [node.name for node in graph.nodes]
    assert len(set(names)) == len(names)


def test_an_output_on_the_way(plan):
    """A blob that is asked for is put together whole, and the chain goes on."""
    plain, graph = pair(THIN.net(), outputs=["conv2_1", "pool3", "score_pool4c"])
    assert border.apply(graph) == 1
    agree(session(plain), session(graph), (1, 23, 38))


def chain(text: str, channels: int = 16, size: int = 20) -> Net:
    """A net of an input `x` and the layers of `text`, with random weights."""
    head = f'layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ dim: [1, {channels}, {size}, {size}] }} }} }}'
    net = Net(read_net("net", text=head + text), TEST)
    rng = np.random.default_rng(0)
    for blobs in net.params.values():
        for blob in blobs:
            blob.data[...] = rng.normal(0, 1 / np.sqrt(max(1, prod(blob.shape[1:]))), blob.shape)
    return net


def layer(kind: str, i: int, parameters: str) -> str:
    bottom = f"b{i}" if i else "x"
    return f'layer {{ name: "l{i}" type: "{kind}" bottom: "{bottom}" top: "b{i + 1}" {parameters} }}\n'


def conv(i: int, kernel: int, stride: int = 1, pad: int = 0, more: str = "") -> str:
    windows = f"kernel_size: {kernel} stride: {stride} pad: {pad} {more}"
    return layer("Convolution", i, f"convolution_param {{ num_output: 16 {windows} }}")


def pool(i: int, kernel: int, stride: int, pad: int = 0, how: str = "MAX") -> str:
    windows = f"kernel_size: {kernel} stride: {stride} pad: {pad} pool: {how}"
    return layer("Pooling", i, f"pooling_param {{ {windows} }}")


INNER = st.sampled_from(
    [
        lambda i: conv(i, 3, 1, 1),
        lambda i: conv(i, 3, 1, 0),
        lambda i: conv(i, 5, 1, 2, "group: 2"),
        lambda i: conv(i, 3, 1, 2, "dilation: 2"),
        lambda i: conv(i, 3, 2, 1),
        lambda i: conv(i, 2, 2, 0),
        lambda i: layer(
            "Convolution", i, "convolution_param { num_output: 16 kernel_h: 1 kernel_w: 3 pad_w: 1 pad_h: 0 }"
        ),
        lambda i: pool(i, 2, 2),
        lambda i: pool(i, 3, 2),
        lambda i: pool(i, 3, 2, 1),
        lambda i: pool(i, 3, 1, 1, "AVE"),
        lambda i: pool(i, 2, 2, 0, "AVE"),
        lambda i: layer("ReLU", i, ""),
        lambda i: layer("LRN", i, "lrn_param { local_size: 3 }"),
        lambda i: layer("Scale", i, "scale_param { bias_term: true }"),
        lambda i: layer("TanH", i, ""),
    ]
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from([(1, 1), (3, 1), (5, 2), (7, 3), (11, 4)]),
    st.integers(0, 9),
    st.lists(INNER, min_size=1, max_size=7),
    st.sets(st.integers(1, 6)),
    st.data(),
)
def test_any_chain(first, more, inner, shown, data):
    """Whatever stands behind the padding, and whichever of it is an output too."""
    kernel, stride = first
    text = conv(0, kernel, stride, kernel + more) + "".join(make(i) for i, make in enumerate(inner, 1))
    net = chain(text)
    outputs = [f"b{i + 1}" for i in sorted(shown) if i < len(inner)] + [f"b{len(inner) + 1}"]
    plain, graph = pair(net, outputs=outputs)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MOVE", "JOIN", "WORTHWHILE"):
            patch.setattr(border_plan, name, 0)
        border.apply(graph)
    a, b = session(plain), session(graph)
    for _ in range(3):
        h, w = data.draw(st.tuples(st.integers(1, 30), st.integers(1, 30)))
        try:
            net.infer({"x": (1, 16, h, w)})
        except Exception:  # noqa: BLE001 - an image too small for the net
            continue
        agree(a, b, (1, h, w), exact=False)


def products(graph: Graph) -> int:
    """Multiplications of a graph of fixed sizes."""
    model = onnx.shape_inference.infer_shapes(to_model(graph, 17))
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in model.graph.value_info}
    return sum(
        prod(shapes[node.outputs[0]][2:]) * graph.constants[node.inputs[1]].size
        for node in graph.nodes
        if node.op == "Conv"
    )


@pytest.mark.parametrize(("side", "left"), [(500, 0.68), (224, 0.5)])
def test_a_third_less_of_vgg(side, left):
    """Of conv1_1 to conv5_3 of the real nets."""
    path = REFERENCE.parent.parent / "prototxts/voc-fcn8s/deploy.prototxt"
    text = path.read_text().replace("num_output: 4096", "num_output: 16")
    net = Net(read_net("net", text=text), TEST)
    net.blobs["data"].reshape(1, 3, side, side)
    net.reshape()
    plain, graph = pair(net, outputs=["pool5"], static=["data"])
    assert border.apply(graph) == 1
    assert products(graph) < left * products(plain)


@pytest.mark.parametrize(
    "text",
    [
        conv(0, 3, 1, 2) + conv(1, 3, 1, 1) + pool(2, 2, 2),  # padded by less than its window
        pool(0, 2, 2) + conv(1, 3, 1, 1),
        conv(0, 3, 1, 8),  # nothing behind it that would be saved
        conv(0, 2, 3, 9) + conv(1, 3, 1, 1),  # a stride that skips pixels
    ],
    ids=["small pad", "no pad", "nothing behind", "gaps"],
)
def test_left_alone(text):
    plain, graph = pair(chain(text))
    assert border.apply(graph) == 0
    assert to_model(graph, 17) == to_model(plain, 17)


def test_learned_by_interp_is_not_touched():
    """The pass reads weights, and changes none."""
    net = THIN.net()
    surgery.interp(net, ["upscore8"])
    before = {name: blobs[0].data.copy() for name, blobs in net.params.items()}
    border.apply(export(net).graph)
    assert all(np.array_equal(before[name], blobs[0].data) for name, blobs in net.params.items())
