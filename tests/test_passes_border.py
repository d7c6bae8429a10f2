"""The border pass: bit for bit the plain graph, at every size, wherever it joins."""

from __future__ import annotations

import re
from math import prod

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from caffe_fcn.errors import CaffeError
from caffe_fcn.export.exporter import export
from caffe_fcn.export.graph import Graph
from caffe_fcn.export.passes import border, border_plan
from caffe_fcn.export.write import to_model
from caffe_fcn.formats.prototxt import read_net
from caffe_fcn.net import TEST, Net
from caffe_fcn.runtime import Session
from tests.conftest import REFERENCE
from tests.reference_cases import assert_close, cases

ROOT = REFERENCE.parent.parent
FAMILY = sorted(path.parent.name for path in ROOT.glob("prototxts/*fcn*/deploy.prototxt"))
THIN = [case for case in cases("nets") if "fcn" in case.name]
#: The family at a quarter of its width: still whole blocks of onnxruntime's layout. What is none runs as
#: matrix products, which sum in an order that depends on the map's size.
NARROW = {64: 16, 96: 32, 128: 32, 256: 64, 384: 96, 512: 128, 4096: 16}
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


def split(graph: Graph) -> int:
    """The whole pass: with what does not depend on an input computed as on conversion."""
    changed = border.apply(graph)
    border.store(graph, compute)
    return changed


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
            np.testing.assert_allclose(got, expected, rtol=0, atol=1e-4 * scale, err_msg=f"{name} at {size}")


def pair(net: Net, **options) -> tuple[Graph, Graph]:
    """The plain graph, and the same to work on."""
    return export(net, **options).graph, export(net, **options).graph


def narrow(name: str, side: int = 500) -> Net:
    """A net of the family at the widths of NARROW, with random weights."""
    text = (ROOT / "prototxts" / name / "deploy.prototxt").read_text()
    text = re.sub(r"num_output: (\d+)", lambda m: f"num_output: {NARROW.get(int(m[1]), m[1])}", text)
    net = drawn(Net(read_net("net", text=text), TEST))
    for i in net.inputs:
        net.blobs[i].reshape(1, net.blobs[i].shape[1], side, side)
    net.reshape()
    return net


def drawn(net: Net) -> Net:
    """With random weights."""
    rng = np.random.default_rng(0)
    for blobs in net.params.values():
        for blob in blobs:
            blob.data[...] = rng.normal(0, 1 / np.sqrt(max(1, prod(blob.shape[1:]))), blob.shape)
    return net


@pytest.mark.parametrize("name", FAMILY)
def test_the_family(name, plan):
    """Bit for bit: batches, and sizes of many remainders.

    LRN is the exception: onnxruntime runs its sum of squares along the channels, where rounding adds up.
    """
    plain, graph = pair(narrow(name))
    assert split(graph) == (2 if "hha" in name and "color" in name else 1)
    a, b = session(plain), session(graph)
    for size in [(1, 1, 1), (2, 2, 7), (3, 31, 33), (1, 48, 80)]:
        agree(a, b, size, exact="alexnet" not in name)


@pytest.mark.parametrize("case", THIN, ids=lambda case: case.name)
def test_real_caffe(case, plan):
    """The thin nets' outputs are those of real Caffe."""
    graph = export(case.net()).graph
    assert split(graph) == (2 if "hha" in case.name else 1)
    for name, value in session(graph).run(case.group("in:")).items():
        assert_close(value, case.stored[f"out:{name}"], name)


def test_every_size_to_forty(plan):
    plain, graph = pair(narrow("voc-fcn8s"))
    assert split(graph) == 1
    a, b = session(plain), session(graph)
    for n in range(1, 41):
        agree(a, b, (1 + n % 3, n, n * 7 % 41 + 1))


@pytest.mark.parametrize("size", [(1, 1, 1), (1, 31, 45), (2, 40, 33)], ids=str)
def test_fixed_sizes_store_the_border(size, plan):
    """No canvas is left in the file, and the stored values are those that the plain graph computes."""
    net = narrow("voc-fcn8s")
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
    net = narrow("voc-fcn8s")
    plain, graph = pair(net)
    split(graph)
    made = {name for node in graph.nodes for name in node.outputs} | {"data"}
    assert set(graph.values) <= made & set(plain.values)
    assert {"pool3", "pool5", "score"} <= set(graph.values)
    names = [node.name for node in graph.nodes]
    assert len(set(names)) == len(names)


def test_an_output_on_the_way(plan):
    """A blob that is asked for is put together whole, and the chain goes on."""
    plain, graph = pair(narrow("voc-fcn8s"), outputs=["conv2_1", "pool3", "score_pool4c"])
    assert split(graph) == 1
    agree(session(plain), session(graph), (1, 23, 38))


def chain(text: str, channels: int = 16, size: int = 20) -> Net:
    """A net of an input `x` and the layers of `text`, with random weights."""
    dims = f"dim: [1, {channels}, {size}, {size}]"
    head = f'layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ {dims} }} }} }}'
    return drawn(Net(read_net("net", text=head + text), TEST))


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
        lambda i: layer("LRN", i, "lrn_param { local_size: 3 alpha: 1e-4 }"),
        lambda i: layer("Scale", i, "scale_param { bias_term: true }"),
        lambda i: layer("TanH", i, ""),
    ]
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
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
    try:
        net = chain(text)
    except CaffeError:  # the same, at the size that it is built with
        reject()
    outputs = [f"b{i + 1}" for i in sorted(shown) if i < len(inner)] + [f"b{len(inner) + 1}"]
    plain, graph = pair(net, outputs=outputs)
    with pytest.MonkeyPatch.context() as patch:  # a fixture would be one for all examples
        for name in ("MOVE", "JOIN", "WORTHWHILE"):
            patch.setattr(border_plan, name, 0)
        split(graph)
    a, b = session(plain), session(graph)
    for _ in range(3):
        h, w = data.draw(st.tuples(st.integers(1, 30), st.integers(1, 30)))
        try:
            a.run(pictures(a, 1, h, w))
        except CaffeError:  # an image too small for the net
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
    net = narrow("voc-fcn8s", side)
    plain, graph = pair(net, outputs=["pool5"], static=["data"])
    assert split(graph) == 1
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
    assert split(graph) == 0
    assert to_model(graph, 17) == to_model(plain, 17)
