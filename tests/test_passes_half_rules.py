"""float16: which layers stay in float32, by themselves or on request, and that no label changes by it."""

from __future__ import annotations

import sys
from functools import cache

import numpy as np
import onnx
import pytest

from caffe_fcn.conversion import convert
from caffe_fcn.errors import CaffeError, CaffeWarning, VerifyError
from caffe_fcn.export import passes
from caffe_fcn.export.exporter import export
from caffe_fcn.export.graph import Graph
from caffe_fcn.export.passes import half
from caffe_fcn.export.write import to_model
from caffe_fcn.formats import caffemodel
from caffe_fcn.net import Net
from caffe_fcn.runtime import Session
from tests.conftest import REFERENCE
from tests.small_nets import net_of
from tests.test_layers_regions import PROPOSAL, PSROI, ROI, faster
from tests.test_layers_ssd import SSD

ROOT = REFERENCE.parent.parent
SHAPES = ROOT / "prototxts/shapes-fcn8s"
FLOAT, HALF = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16
sys.path.insert(0, str(ROOT / "tools"))
from draw_shapes import MEAN_BGR, draw  # noqa: E402


def halved(net: Net, keep=(), **options) -> Graph:
    graph = export(net, **options).graph
    passes.run(graph)
    half.apply(graph, keep)
    return graph


def precisions(graph: Graph) -> dict[str, set[int]]:
    """The float types that each layer's nodes make, casts aside; raises if a node's inputs do not fit."""
    model = onnx.shape_inference.infer_shapes(to_model(graph, 17), check_type=True, strict_mode=True)
    known = {v.name: v.type.tensor_type.elem_type for v in (*model.graph.value_info, *model.graph.output)}
    found: dict[str, set[int]] = {}
    for node in graph.nodes:
        if node.op != "Cast":
            types = {known.get(name) for name in node.outputs} & {FLOAT, HALF}
            found.setdefault(node.layer, set()).update(types)
    return found


def session(graph: Graph) -> Session:
    return Session(to_model(graph, 17).SerializeToString(), "cpu")


def drawn(net: Net, scale: float = 1.0) -> Net:
    """With random weights."""
    rng = np.random.default_rng(0)
    for blobs in net.params.values():
        for blob in blobs:
            blob.data[...] = rng.normal(0, scale / np.sqrt(max(1, np.prod(blob.shape[1:]))), blob.shape)
    return net


# --- what stays by itself


def test_a_detector():
    """Features and heads in float16; norms, priors, softmax and boxes in float32, as what moves these."""
    net = drawn(Net(SSD))
    net.params["norm"][0].data[...] = 3
    found = precisions(halved(net))
    for layer in ("conv1", "relu1", "dw", "conv2", "a_loc", "a_conf", "a_conf_perm", "loc", "conf"):
        assert found[layer] == {HALF}, layer
    for layer in ("norm", "prior", "softmax", "prob", "found"):
        assert found[layer] == {FLOAT}, layer
    exact, rounded = session(export(net).graph), session(halved(net))
    image = {"data": np.random.default_rng(1).normal(0, 60, (1, 3, 48, 64)).astype(np.float32)}
    a, b = (s.run(image)["found"][0, 0] for s in (exact, rounded))
    assert len(a) > 3
    for row in a[a[:, 2] > 0.3]:  # well above the threshold of 0.2
        assert np.abs(b[b[:, 1] == row[1]] - row).max(axis=1).min() < 0.02


@pytest.mark.parametrize("pool", [ROI, PSROI], ids=["ROIPooling", "PSROIPooling"])
def test_regions(pool):
    found = precisions(halved(drawn(Net(faster(PROPOSAL, pool)))))
    for layer in ("conv", "cls", "box", "rows"):
        assert found[layer] == {HALF}, layer
    assert HALF in found["fc"]  # its product; the Flatten before it moves what the regions' pooling gives
    for layer in ("prob", "back", "proposal", "pool", "score"):
        assert found[layer] == {FLOAT}, layer


DELICATE = {
    "LRN": "lrn_param { local_size: 5 alpha: 1 beta: 0.75 }",
    "LRN within": "lrn_param { local_size: 3 alpha: 1 norm_region: WITHIN_CHANNEL }",
    "MVN": "",
    "Normalize": "",
    "Power": "power_param { power: 2 }",
    "BatchNorm": "batch_norm_param { use_global_stats: false }",
    "Softmax": "",
    "Eltwise": "eltwise_param { operation: PROD }",
    "Reduction": "reduction_param { operation: SUMSQ axis: 1 }",
    "Interp": "interp_param { height: 9 width: 7 }",
    "Exp": "exp_param { scale: 1e-4 }",
    "Log": "log_param { shift: 1e5 }",
}


@pytest.mark.parametrize("kind", DELICATE)
def test_wide_features(kind):
    """Features of some 20 000: their squares and sums leave float16's range."""
    bottoms = "wide,wide" if kind == "Eltwise" else "wide"
    wide = "convolution_param { num_output: 4 kernel_size: 1 }"
    net = net_of(
        f"Convolution wide data {wide}", f"{kind.split()[0]} layer {bottoms} {DELICATE[kind]}", channels=3
    )
    drawn(net, 200)
    data = {"data": np.random.default_rng(1).normal(0, 60, (1, 3, 8, 8)).astype(np.float32)}
    graph = halved(net, ["wide", "layer"])
    ((name, expected),) = session(graph).run(data).items()
    graph = halved(net)
    assert precisions(graph)["layer"] == {FLOAT}
    assert precisions(graph)["wide"] == {HALF}
    value = session(graph).run(data)[name]
    assert np.isfinite(value).all()
    assert np.abs(value - expected).max() <= (1 if kind == "Softmax" else 1e-2) * np.abs(expected).max()


def test_moves_follow_what_they_move():
    """What no product has touched keeps its digits: an input that is cut, joined and added to."""
    net = net_of(
        "Flatten flat data",
        "Power shifted flat power_param { shift: 3000 }",
        "Convolution conv data convolution_param { num_output: 1 kernel_size: 1 }",
        "Flatten features conv",
        "Concat joined features,features",
        "Concat mixed shifted,features",
    )
    found = precisions(halved(net))
    assert [found[n] for n in ("conv", "features", "joined")] == [{HALF}] * 3
    assert [found[n] for n in ("flat", "shifted", "mixed")] == [{FLOAT}] * 3


def test_a_gate_is_a_product_that_cannot_grow():
    """As in squeeze-and-excitation: a factor between 0 and 1."""
    conv = "convolution_param { num_output: 2 kernel_size: 1 }"
    net = net_of(
        f"Convolution x data {conv}",
        f"Convolution y x {conv}",
        "Sigmoid gate y",
        "Eltwise gated x,gate eltwise_param { operation: PROD }",
        "Eltwise product x,y eltwise_param { operation: PROD }",
    )
    found = precisions(halved(net))
    assert found["gated"] == found["gate"] == {HALF}
    assert found["product"] == {FLOAT}


# --- what does not fit


@pytest.mark.parametrize(("factor", "told"), [(1e6, "more than 65504"), (1e-7, "less than 6e-05")])
def test_weights_that_float16_cannot_hold(factor, told):
    conv = "convolution_param { num_output: 2 kernel_size: 3 bias_term: false }"
    net = drawn(net_of(f"Convolution a data {conv}", f"Convolution b a {conv}", f"Convolution c b {conv}"))
    net.params["b"][0].data[...] *= factor
    with pytest.warns(CaffeWarning, match=rf"layer 'b' stays in float32: .* 'b.weight' is .*, {told}"):
        found = precisions(halved(net))
    assert (found["a"], found["b"], found["c"]) == ({HALF}, {FLOAT}, {HALF})


def test_zeros_fit():
    net = net_of("Convolution a data convolution_param { num_output: 2 kernel_size: 3 }")
    assert precisions(halved(net))["a"] == {HALF}


def test_a_variance_beyond_float16():
    """It goes into the factors, which fit."""
    conv = "convolution_param { num_output: 2 kernel_size: 1 bias_term: false }"
    net = drawn(net_of(f"Convolution conv data {conv}", "BatchNorm norm conv"))
    mean, variance, factor = (blob.data for blob in net.params["norm"])
    mean[...], variance[...], factor[...] = [300, -2000], [3e6, 1e5], 1
    exact, graph = session(export(net).graph), halved(net)
    assert precisions(graph)["norm"] == {HALF}
    data = {"data": np.random.default_rng(1).normal(0, 3000, (1, 1, 8, 8)).astype(np.float32)}
    (expected,), (value,) = exact.run(data).values(), session(graph).run(data).values()
    assert np.abs(value - expected).max() < 5e-3 * np.abs(expected).max()
    kept = halved(net, ["norm"])
    assert precisions(kept)["norm"] == {FLOAT}
    assert any(3e6 in array for array in kept.constants.values())


def test_features_beyond_float16(tmp_path):
    """The weights do not tell; comparing does, and --keep-fp32 helps."""
    conv = "convolution_param { num_output: 2 kernel_size: 3 bias_term: false }"
    net = drawn(net_of(f"Convolution a data {conv}", f"Convolution b a {conv}"))
    net.params["a"][0].data[...] = 2000
    net.params["b"][0].data[...] *= 1e-3
    stored = [(n, net.layer_dict[n].type, [b.data for b in blobs]) for n, blobs in net.params.items()]
    weights, text, out = (tmp_path / f"net.{kind}" for kind in ("caffemodel", "prototxt", "onnx"))
    caffemodel.write(weights, "net", stored)
    dims = "dim: 1 dim: 1 dim: 8 dim: 8"
    head = f'layer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ {dims} }} }} }}\n'
    body = [
        f'layer {{ name: "{n}" type: "Convolution" bottom: "{x}" top: "{n}" {conv} }}'
        for x, n in ("da", "ab")
    ]
    text.write_text(head.replace('"data"', '"d"') + "\n".join(body))
    with pytest.raises(VerifyError, match=r"'a' .*\n.*65504.*--keep-fp32"):
        convert(text, weights, out, fp16=True)
    assert convert(text, weights, out, fp16=True, keep_fp32=["a"]).verified.worst[1] < 1e-2


# --- labels


@cache
def pictures(count: int = 16, height: int = 96, width: int = 128) -> np.ndarray:
    return np.stack([draw(np.random.default_rng(900 + i), height, width)[0] for i in range(count)])


def labels(model: Session, bgr: bool = True) -> np.ndarray:
    """Of `pictures`, as many at a time as the model takes."""
    found = []
    ((name, info),) = model.inputs.items()
    for picture in pictures()[:, None]:
        data = (picture[..., ::-1] - np.float32(MEAN_BGR)).astype(np.float32).transpose(0, 3, 1, 2)
        ((top, value),) = model.run({name: picture if "uint8" in info.type else data}).items()
        found.append(value if top.endswith("_label") else value.argmax(1))
    return np.concatenate(found)


@pytest.fixture(scope="module")
def exact(tmp_path_factory):
    path = tmp_path_factory.mktemp("shapes") / "float.onnx"
    convert(SHAPES / "deploy.prototxt", SHAPES / "shapes-fcn8s.caffemodel", path, verify=False)
    return labels(Session(path, "cpu"))


FIXED = {"data": (1, 3, 96, 128)}


@pytest.mark.parametrize(
    "options",
    [
        {"verify": True},
        {"keep_fp32": ["conv1_1", "score_fr"]},
        {"skip_passes": ["all"]},
        *({"skip_passes": [each.NAME]} for each in passes.PASSES),
        {"preprocess": True, "argmax": True},
        {"preprocess": True, "scale": 1.0, "softmax": True, "opset": 18},
        {"input_shapes": FIXED, "opset": 19},
        {"input_shapes": FIXED, "preprocess": True, "argmax": True, "opset": 20},
        {"argmax": True, "opset": 20, "external_data": True},
    ],
    ids=str,
)
def test_labels_of_the_shapes_net(tmp_path, exact, options):
    """At least 99.9 % of the pixels keep their label, whatever else is asked for."""
    path, weights = tmp_path / "half.onnx", SHAPES / "shapes-fcn8s.caffemodel"
    done = convert(SHAPES / "deploy.prototxt", weights, path, **{"fp16": True, "verify": False, **options})
    assert done.bytes < 0.6 * weights.stat().st_size
    found = labels(Session(path, "cpu"))
    assert set(np.unique(exact)) == set(range(7))
    assert (found == exact).mean() >= 0.999


def test_no_such_layer():
    with pytest.raises(CaffeError, match="no layer 'conv_11'") as error:
        halved(Net(SHAPES / "deploy.prototxt"), ["conv_11"])
    assert "did you mean conv" in str(error.value)
    net = net_of(
        "Dropout drop6 data", "Convolution a drop6 convolution_param { num_output: 1 kernel_size: 1 }"
    )
    with pytest.raises(CaffeError, match=r"no layer 'drop6' .*\n.*merged"):
        halved(net, ["drop6"])
