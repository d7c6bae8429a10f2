"""float16: what is rounded, what stays, and that the labels do."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from caffe_fcn.conversion import convert
from caffe_fcn.export import passes, probe
from caffe_fcn.export.exporter import export
from caffe_fcn.export.passes import half
from caffe_fcn.export.write import to_model
from caffe_fcn.runtime import Session
from tests.conftest import REFERENCE
from tests.reference_cases import Case, cases

SHAPES = REFERENCE.parent.parent / "prototxts/shapes-fcn8s"
THIN = Case(REFERENCE / "nets", "fcn8s-thin-1px")
FLOAT, HALF = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16


def made(case: Case, keep=(), **options):
    graph = export(case.net(), **options).graph
    passes.run(graph)
    half.apply(graph, keep)
    return graph


def types(graph) -> dict[str, int]:
    """The type of each tensor, as onnx infers it; raises if two of a node's inputs do not fit."""
    model = onnx.shape_inference.infer_shapes(to_model(graph, 17), check_type=True, strict_mode=True)
    inside = [*model.graph.input, *model.graph.value_info, *model.graph.output]
    return {v.name: v.type.tensor_type.elem_type for v in inside}


@pytest.mark.parametrize("case", [c for c in cases("nets") + cases("layers") if "empty_window" not in c.name],
                         ids=lambda case: case.name)  # fmt: skip
def test_close_to_real_caffe(case):
    """Every reference case runs, and differs by rounding."""
    session = Session(to_model(made(case, static=case.net().inputs), 17).SerializeToString(), "cpu")
    fed = case.group("in:")
    for name, value in session.run({n: fed[n] for n in session.inputs}).items():
        expected = case.stored.get(f"out:{name}", fed.get(name))
        assert value.shape == expected.shape
        finite = np.isfinite(expected)
        np.testing.assert_array_equal(np.isfinite(value), finite)
        if finite.any():
            scale = np.abs(expected[finite]).max() + 1e-3
            assert np.abs(value[finite] - expected[finite]).max() <= 5e-3 * scale, name


def test_weights_and_arithmetic_are_half_inputs_and_outputs_are_not():
    graph = made(THIN)
    known = types(graph)
    assert known["data"] == known["score"] == FLOAT
    assert known["pool3"] == known["fc6"] == known["fuse_pool3"] == HALF
    weights = {n.inputs[1] for n in graph.nodes if n.op in ("Conv", "ConvTranspose")}
    assert weights <= graph.rounded
    assert [n.op for n in graph.nodes].count("Cast") == 2  # in and out
    assert graph.nbytes < 0.51 * sum(a.nbytes for a in graph.constants.values())


def test_layers_to_keep():
    graph = made(THIN, keep=["conv3_2", "score_fr"])
    known = types(graph)
    by_layer = {n.layer: n for n in graph.nodes if n.op == "Conv"}
    for name, kind in (("conv3_2", FLOAT), ("score_fr", FLOAT), ("conv3_1", HALF), ("fc7", HALF)):
        node = by_layer[name]
        assert known[node.outputs[0]] == kind
        assert (node.inputs[1] in graph.rounded) == (kind == HALF)


def test_a_constant_that_both_read():
    """It is there twice: rounded, and as it is."""
    shared = 'param { name: "w" } param { name: "b" } convolution_param { num_output: 2 kernel_size: 1 }'
    text = "".join(
        f'layer {{ name: "{n}" type: "Convolution" bottom: "x" top: "{n}" {shared} }}' for n in "ab"
    )
    from caffe_fcn.formats.prototxt import read_net
    from caffe_fcn.net import TEST, Net

    head = 'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: [1, 2, 3, 3] } } }'
    graph = export(Net(read_net("net", text=head + text), TEST)).graph
    half.apply(graph, ["a"])
    weights = {n.layer: n.inputs[1] for n in graph.nodes if n.op == "Conv"}
    assert weights["a"] != weights["b"]
    assert graph.constants[weights["a"]] is graph.constants[weights["b"]]
    assert (weights["a"] in graph.rounded, weights["b"] in graph.rounded) == (False, True)
    types(graph)


@pytest.mark.parametrize(
    "options", [{}, {"external_data": True}, {"argmax": True, "preprocess": True}], ids=str
)
def test_conversion(tmp_path, options):
    """Half the bytes, verified."""
    path = tmp_path / "net.onnx"
    whole = convert(THIN.prototxt, THIN.caffemodel, path, verify=False, **options).bytes
    result = convert(THIN.prototxt, THIN.caffemodel, path, fp16=True, keep_fp32=["conv1_1"], **options)
    assert result.bytes < 0.6 * whole
    assert result.verified.worst[1] < 5e-3
    session = Session(path, "cpu")
    assert {i.type for i in session.inputs.values()} <= {"tensor(float)", "tensor(uint8)"}


@pytest.mark.parametrize("external", [False, True])
def test_large_weights_are_compared_in_pieces(tmp_path, monkeypatch, external):
    """A probe of fewer numbers at a time gives every blob all the same."""
    path = tmp_path / "net.onnx"
    options = {"fp16": True, "external_data": external, "keep_fp32": ["conv2_1"], "verify": False}
    convert(THIN.prototxt, THIN.caffemodel, path, **options)
    blobs = []
    for piece in (probe.PIECE, 100):
        monkeypatch.setattr(probe, "PIECE", piece)
        names = probe.write_probe(path, tmp_path / f"{piece}.onnx")
        session = Session(tmp_path / f"{piece}.onnx", "cpu", optimize=False)
        blobs.append(session.run({"data": THIN.group("in:")["data"]}, [*session.outputs, *names]))
    nodes = onnx.load(tmp_path / "100.onnx", load_external_data=False).graph.node
    names = {node.name for node in nodes if node.op_type in ("Conv", "ConvTranspose")}
    assert {"fc6/0", "fc6/1", "conv2_1", "upscore2"} <= names
    for name, value in blobs[0].items():
        assert np.abs(blobs[1][name] - value).max() <= 2e-3 * np.abs(value).max(), name
