"""convert(): what its options do to the file, and that it proves itself."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest

from caffe_fcn.conversion import convert
from caffe_fcn.errors import CaffeError, VerifyError
from caffe_fcn.runtime import Session
from tests.conftest import REFERENCE
from tests.reference_cases import Case, assert_close

CASE = Case(REFERENCE / "nets", "fcn8s-thin-1px")
SIZES = [(1, 1, 1), (1, 31, 500), (3, 37, 45), (2, 64, 33)]


def made(tmp_path, case: Case = CASE, **options):
    """The converted case, not verified unless asked for."""
    path = tmp_path / "net.onnx"
    return path, convert(case.prototxt, case.caffemodel, path, **{"verify": False, **options})


def picture(n: int, h: int, w: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(h * w).normal(0, 60, (n, channels, h, w)).astype(np.float32)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_one_file_for_every_size(tmp_path, size):
    """The reference pass and the file agree at sizes that no prototxt names."""
    path, _ = made(tmp_path)
    net = CASE.net()
    data = picture(*size)
    net.blobs["data"].reshape(*data.shape)
    expected = net.forward(data=data)["score"]
    assert_close(Session(path, "cpu").run({"data": data})["score"], expected, "score")


def test_dims_are_named_alike(tmp_path):
    path, result = made(tmp_path)
    assert result.inputs == {"data": ["N", 3, "H", "W"]}
    assert result.outputs == {"score": ["N", 21, "H", "W"]}
    model = onnx.load(path)
    assert [d.dim_param for d in model.graph.output[0].type.tensor_type.shape.dim if d.dim_param] == [
        "N",
        "H",
        "W",
    ]


TWO = """
layer {{ name: "a" type: "Input" top: "a" input_param {{ shape {{ dim: 1 dim: 3 dim: 9 dim: 8 }} }} }}
layer {{ name: "b" type: "Input" top: "b" input_param {{ shape {{ dim: 1 dim: 3 dim: 9 dim: 8 }} }} }}
layer {{ name: "conv" type: "Convolution" bottom: "a" top: "conv"
  convolution_param {{ num_output: 3 kernel_size: 3 pad: 1 }} }}
{}
"""


def two(tmp_path, last: str):
    path = tmp_path / "net.prototxt"
    path.write_text(TWO.format(last))
    return convert(path, None, tmp_path / "net.onnx")


def test_two_inputs_that_must_agree_share_their_symbols(tmp_path):
    """What is added has one H and one W, whichever input it comes from."""
    result = two(tmp_path, 'layer { name: "sum" type: "Eltwise" bottom: "conv" bottom: "b" top: "sum" }')
    assert set(map(tuple, result.inputs.values())) == {("N", 3, "H", "W")}


def test_two_inputs_that_need_not_agree_have_their_own(tmp_path):
    """A Crop takes its size from the second, which may be smaller."""
    crop = 'layer { name: "cut" type: "Crop" bottom: "conv" bottom: "b" top: "cut" crop_param { offset: 0 } }'
    result = two(tmp_path, crop)
    assert result.inputs["a"][2:] == ["H", "W"]
    assert result.inputs["b"][2:] == ["H_b", "W_b"]
    assert result.outputs["cut"][2:] == ["H_b", "W_b"]
    data = {"a": picture(1, 20, 30), "b": picture(1, 7, 11)}
    assert Session(tmp_path / "net.onnx", "cpu").run(data)["cut"].shape == (1, 3, 7, 11)


def test_inner_product_keeps_its_size_and_says_so(tmp_path):
    _, result = made(tmp_path, Case(REFERENCE / "layers", "innerproduct_0"))
    (shape,) = result.inputs.values()
    assert shape[0] == "N"
    assert all(isinstance(n, int) for n in shape[1:])
    assert set(result.fixed.values()) == {"innerproduct"}


def test_input_shape_makes_constants(tmp_path):
    path, result = made(tmp_path, input_shapes={"data": (1, 3, 40, 56)})
    assert result.outputs == {"score": [1, 21, 40, 56]}
    assert not [node.op_type for node in onnx.load(path).graph.node if node.op_type == "Shape"]


def test_output_stops_early(tmp_path):
    path, result = made(tmp_path, outputs=["score_fr", "pool3"])
    assert list(result.outputs) == ["score_fr", "pool3"]
    assert "upscore8" not in {node.name for node in onnx.load(path).graph.node}
    assert "upscore8" in result.dropped


def test_names_are_caffes(tmp_path):
    path, _ = made(tmp_path, skip_passes=["all"])
    graph = onnx.load(path).graph
    layers = {
        layer.name for layer in CASE.net().layers if layer.param.type not in ("Split", "Input", "Dropout")
    }
    assert layers <= {node.name for node in graph.node}
    assert graph.input[0].name == "data"
    assert graph.output[0].name == "score"


def test_every_name_in_the_file_is_there_once(tmp_path):
    path, _ = made(tmp_path)
    graph = onnx.load(path).graph
    names = [node.name for node in graph.node]
    assert len(set(names)) == len(names)
    onnx.checker.check_model(onnx.load(path), full_check=True)


@pytest.mark.parametrize("opset", [17, 18, 19, 20])
def test_opsets(tmp_path, opset):
    path, _ = made(tmp_path, opset=opset)
    model = onnx.load(path)
    assert [o.version for o in model.opset_import] == [opset]
    assert model.ir_version <= 10
    data = picture(1, 33, 40)
    assert Session(path, "cpu").run({"data": data})["score"].shape == (1, 21, 33, 40)


def test_unknown_opset(tmp_path):
    with pytest.raises(CaffeError, match="opset 28"):
        made(tmp_path, opset=28)


def test_softmax_and_argmax(tmp_path):
    data = picture(2, 20, 30)
    plain, _ = made(tmp_path)
    score = Session(plain, "cpu").run({"data": data})["score"]
    path, result = made(tmp_path, softmax=True)
    prob = Session(path, "cpu").run({"data": data})["score_prob"]
    exact = np.exp(score.astype(np.float64) - score.max(axis=1, keepdims=True))
    assert_close(prob, exact / exact.sum(axis=1, keepdims=True), "prob")
    path, result = made(tmp_path, argmax=True)
    label = Session(path, "cpu").run({"data": data})["score_label"]
    assert label.dtype == np.uint8
    assert result.outputs == {"score_label": ["N", "H", "W"]}
    np.testing.assert_array_equal(label, score.argmax(axis=1))


def test_preprocess_takes_bytes(tmp_path):
    """uint8 RGB rows in; the same numbers as a caller who does BGR, mean and layout himself."""
    rgb = np.random.default_rng(0).integers(0, 256, (1, 31, 44, 3), dtype=np.uint8)
    plain, _ = made(tmp_path)
    mean = np.float32([104.00698793, 116.66876762, 122.67891434])
    bgr = (rgb[..., ::-1].astype(np.float32) - mean).transpose(0, 3, 1, 2)
    expected = Session(plain, "cpu").run({"data": bgr})["score"]
    path, result = made(tmp_path, preprocess=True, argmax=True)
    assert result.inputs == {"image": ["N", "H", "W", 3]}
    label = Session(path, "cpu").run({"image": rgb})["score_label"]
    assert (label == expected.argmax(axis=1)).mean() > 0.999


def test_what_stands_around_the_net_is_verified_too(tmp_path):
    _, result = made(tmp_path, preprocess=True, argmax=True, softmax=True, verify=True)
    assert {"data", "score", "score_prob", "score_prob_label"} <= set(result.verified.differences)
    assert result.verified.inputs == {"image": (1, 37, 45, 3)}


def test_preprocess_refuses_other_nets(tmp_path):
    with pytest.raises(CaffeError, match="3 channels"):
        made(tmp_path, Case(REFERENCE / "nets", "nyud-fcn32s-color-d-thin"), preprocess=True)


def test_external_data(tmp_path):
    inside, whole = made(tmp_path)
    data = picture(1, 9, 9)
    expected = Session(inside, "cpu").run({"data": data})["score"]
    path, result = made(tmp_path, external_data=True)
    assert (tmp_path / "net.onnx.data").stat().st_size > whole.bytes / 2
    assert path.stat().st_size < whole.bytes / 2
    assert result.bytes == path.stat().st_size + (tmp_path / "net.onnx.data").stat().st_size
    np.testing.assert_array_equal(Session(path, "cpu").run({"data": data})["score"], expected)


def test_metadata(tmp_path):
    path, _ = made(tmp_path)
    meta = Session(path, "cpu").metadata
    assert meta["caffemodel"] == CASE.caffemodel.name
    assert len(meta["prototxt_sha256"]) == 64
    assert json.loads(meta["mean"])[0] == pytest.approx(104.00698793)
    assert json.loads(meta["classes"])["score"][15] == "person"
    assert meta["channel_order"] == "BGR"


def test_verification_compares_every_blob(tmp_path):
    _, result = made(tmp_path, verify=True)
    assert {"conv1_1", "pool5", "score_fr", "score"} <= set(result.verified.differences)
    assert result.verified.worst[1] < 1e-4


def test_a_wrong_file_is_rejected_and_kept(tmp_path, monkeypatch):
    """A lowering that computes something else never gets the name that was asked for."""
    from caffe_fcn.layers.neuron import ReLU

    monkeypatch.setattr(ReLU, "to_onnx", lambda self, g, bottoms: [g.op("Abs", bottoms[0])])
    path = tmp_path / "net.onnx"
    with pytest.raises(VerifyError, match="differs from the reference"):
        convert(CASE.prototxt, CASE.caffemodel, path)
    assert not path.exists()
    assert (tmp_path / "net.onnx.rejected").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.onnx.rejected"]


def test_a_rejected_file_leaves_the_old_one_alone(tmp_path, monkeypatch):
    path = tmp_path / "net.onnx"
    path.write_bytes(b"older")
    with pytest.raises(CaffeError):
        convert(CASE.prototxt, CASE.prototxt, path)
    assert path.read_bytes() == b"older"


def test_frozen_deconvolution_is_filled(tmp_path):
    """fcn32s's file lacks `upscore`; what fills it is said, and real Caffe's score comes out."""
    case = Case(REFERENCE / "nets", "fcn32s-thin")
    path, result = made(tmp_path, case)
    assert any("upscore" in line and "bilinear" in line for line in result.filled)
    got = Session(path, "cpu").run(case.group("in:"))
    assert_close(got["score"], case.stored["out:score"], "score")


def test_without_weights(tmp_path):
    """`-`: the net starts at its fillers."""
    path = tmp_path / "net.onnx"
    convert(REFERENCE / "nets" / "fcn8s-thin-1px.prototxt", None, path)
    assert Session(path, "cpu").run({"data": picture(1, 5, 7)})["score"].shape == (1, 21, 5, 7)


def test_layers_that_no_output_needs_are_dropped(tmp_path):
    """A Python layer beside the way does not stop a conversion that ends before it."""
    text = CASE.prototxt.read_text() + (
        'layer { name: "look" type: "Python" bottom: "score" top: "looked" '
        'python_param { module: "m" layer: "L" } }'
    )
    prototxt = tmp_path / "net.prototxt"
    prototxt.write_text(text)
    result = convert(prototxt, CASE.caffemodel, tmp_path / "x.onnx", outputs=["score"], verify=False)
    assert "look" in result.dropped


def test_few_images_are_verified_whatever_the_prototxt_says(tmp_path):
    prototxt = tmp_path / "net.prototxt"
    prototxt.write_text("""input: "data" input_dim: 500 input_dim: 1 input_dim: 6 input_dim: 5
    layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
      inner_product_param { num_output: 2 } }""")
    result = convert(prototxt, None, tmp_path / "net.onnx")
    assert result.verified.inputs == {"data": (2, 1, 6, 5)}


def test_a_net_that_takes_no_small_image_is_verified_at_its_own_size(tmp_path):
    prototxt = tmp_path / "net.prototxt"
    prototxt.write_text("""input: "data" input_dim: 1 input_dim: 1 input_dim: 450 input_dim: 470
    layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
      convolution_param { num_output: 1 kernel_size: 3 dilation: 210 } }""")
    result = convert(prototxt, None, tmp_path / "net.onnx", init_missing=True)
    assert result.verified.inputs == {"data": (1, 1, 450, 470)}


def test_a_reshape_to_numbers_keeps_the_number_of_elements(tmp_path):
    prototxt = tmp_path / "net.prototxt"
    prototxt.write_text(
        """input: "data" input_dim: 10 input_dim: 1 input_dim: 1 input_dim: 8
    layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 4 } }
    layer { name: "rows" type: "Reshape" bottom: "ip" top: "rows" reshape_param { shape { DIMS } } }
    """.replace("DIMS", "dim: 10 dim: 1 dim: 4")
    )
    result = convert(prototxt, None, tmp_path / "net.onnx")
    assert result.inputs == {"data": [10, 1, 1, 8]}
    assert result.fixed["N"] == "rows"
    prototxt.write_text(prototxt.read_text().replace("dim: 10 dim: 1", "dim: 0 dim: 1"))
    assert convert(prototxt, None, tmp_path / "net.onnx").inputs == {"data": ["N", 1, 1, 8]}
