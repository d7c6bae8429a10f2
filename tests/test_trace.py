"""What `caffe-fcn trace` tells of layers: shapes and formulas, cost, weights; and the command."""

from __future__ import annotations

import csv
import json
import math
import re
import resource
import subprocess
import sys
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest

import caffe_fcn
from caffe_fcn.cli import call
from caffe_fcn.errors import CaffeError, LayerError
from caffe_fcn.formats.caffemodel import write
from caffe_fcn.net import TEST, TRAIN, Net
from caffe_fcn.report import render
from caffe_fcn.symbols import Extent, hint
from caffe_fcn.tracing import trace
from caffe_fcn.tracing.sizes import at, numbers
from tests.conftest import REFERENCE
from tests.reference_cases import Case, cases
from tests.small_nets import NETS, PROTOTXTS, VOC8S, conv, net_of, row

# --- shapes and formulas


def test_voc_fcn8s_has_the_shapes_of_the_literature() -> None:
    with (REFERENCE / "seed_trace_334x500.csv").open() as file:
        seed = {
            r["layer"]: (1, *(int(r[k]) for k in ("channels", "height", "width")))
            for r in csv.DictReader(file)
        }
    found = trace(VOC8S, {"data": (1, 3, 334, 500)})
    shapes = {top: numbers(s) for r in found.rows for top, s in zip(r.tops, r.shapes, strict=True)}
    assert {name: shapes[name] for name in seed} == seed
    assert shapes.keys() == seed.keys()


@pytest.mark.parametrize(
    "case", [*cases("nets"), *cases("random"), *cases("layers")], ids=lambda case: case.name
)
def test_shapes_are_real_caffes(case: Case) -> None:
    """With the Splits shown, the blobs are Caffe's in name, order and shape."""
    found = trace(case.net(), splits=True)
    shapes = {top: numbers(s) for r in found.rows for top, s in zip(r.tops, r.shapes, strict=True)}
    assert list(shapes) == list(dict.fromkeys(case.order))
    for name, shape in case.group("shape:").items():
        assert shapes[name] == tuple(shape), name


@pytest.mark.parametrize("case", [*cases("nets"), *cases("random")], ids=lambda case: case.name)
def test_formulas_and_javascript_give_the_shapes_of_other_sizes(case: Case) -> None:
    net = case.net()
    found = trace(net, splits=True)
    plain = found.to_dict()["rows"]
    for step in (1, 7, 64):
        values = {symbol: n + step for symbol, n in found.symbols.items()}
        try:
            shapes = net.infer({name: at(shape, values) for name, shape in found.inputs.items()})
        except LayerError:
            continue
        for r, json_row, expected in zip(found.rows, plain, shapes, strict=True):
            assert [at(shape, values) for shape in r.shapes] == expected, r.name
            scripts = json_row.get("shapes_js", json_row["shapes"])
            assert [tuple(javascript(n, values) for n in shape) for shape in scripts] == expected, r.name


def javascript(text: str | int, values: dict[str, int]) -> int:
    """The same arithmetic in Python: the division under floor is exact in fractions."""
    names = {symbol: Fraction(n) for symbol, n in values.items()}
    return int(eval(str(text), {"Math": SimpleNamespace(floor=math.floor), "__builtins__": {}}, names))


def test_formulas_of_fcn32s() -> None:
    found = trace(PROTOTXTS / "voc-fcn32s" / "deploy.prototxt")
    formulas = {
        name: str(row(found, name).shapes[0][2]) for name in ("conv1_1", "pool5", "fc6", "upscore", "score")
    }
    assert formulas == {
        "conv1_1": "H+198", "pool5": "ceil((H+198)/32)", "fc6": "ceil((H+6)/32)",
        "upscore": "32*ceil((H+38)/32)", "score": "H",
    }  # fmt: skip


def test_two_inputs_share_symbols_if_they_are_of_one_size() -> None:
    net = Net(PROTOTXTS / "nyud-fcn32s-color-hha" / "deploy.prototxt")
    assert set(trace(net).symbols) == {"H", "W"}
    first, second = (net.blobs[name].shape for name in net.inputs)
    assert first == second
    text = "\n".join(
        f'layer {{ name: "{name}" type: "Input" top: "{name}" input_param {{ shape {{ {dims} }} }} }}'
        for name, dims in (
            ("a", "dim: 1 dim: 3 dim: 9 dim: 8"),
            ("b", "dim: 1 dim: 3 dim: 5 dim: 8"),
            ("c", "dim: 2"),
        )
    )
    found = trace(Net(text))
    assert found.symbols == {"H": 9, "W": 8, "H2": 5, "W2": 8}
    assert str(found.inputs["b"][3]) == "W2"
    assert found.inputs["c"] == (2,)


def test_three_dimensional_inputs_have_depth() -> None:
    text = """
        layer { name: "d" type: "Input" top: "d" input_param { shape { dim: [1, 1, 4, 6, 8] } } }
        layer { name: "c" type: "Convolution" bottom: "d" top: "c"
                convolution_param { num_output: 1 kernel_size: 3 } }
    """
    assert [str(n) for n in row(trace(Net(text)), "c").shapes[0]] == ["1", "1", "D-2", "H-2", "W-2"]


@pytest.mark.parametrize("folder", ["vgg16", "caffenet"])
def test_a_net_with_inner_products_keeps_its_size_and_says_why(folder: str) -> None:
    found = trace(PROTOTXTS / folder / "deploy.prototxt")
    assert found.symbols == {}
    assert found.fixed == {"H": "fc6", "W": "fc6"}
    assert found.smallest is None
    assert "H and W stay as they are, because of fc6" in render(found)
    assert not any(isinstance(n, Extent) for r in found.rows for shape in r.shapes for n in shape)


def test_the_layer_that_needs_a_number_is_named() -> None:
    found = trace(
        net_of("Convolution c data " + conv("kernel_size: 3"), "SPP spp c spp_param { pyramid_height: 2 }")
    )
    assert found.fixed == {"H": "spp", "W": "spp"}


def test_in_place_layers_and_splits() -> None:
    found = trace(VOC8S)
    relu = row(found, "relu1_1")
    assert (relu.bottoms, relu.tops, relu.in_place) == (["conv1_1"], ["conv1_1"], True)
    assert row(found, "score_pool3").bottoms == ["pool3"]
    assert not any(r.type == "Split" for r in found.rows)
    shown = trace(VOC8S, splits=True)
    assert row(shown, "score_pool3").bottoms == ["pool3_pool3_0_split_1"]
    assert [r.name for r in shown.rows if r.type == "Split"] == [
        "data_input_0_split", "pool3_pool3_0_split", "pool4_pool4_0_split", "upscore2_upscore2_0_split",
        "upscore_pool4_upscore_pool4_0_split",
    ]  # fmt: skip
    assert [r.index for r in found.rows] == list(range(len(found.rows)))
    assert shown.totals.memory.hint == found.totals.memory.hint  # type: ignore[union-attr]


# --- cost


def test_parameters_and_macs_are_those_of_a_sum_by_hand() -> None:
    found = trace(VOC8S, {"data": (1, 3, 500, 500)})
    net = Net(VOC8S)
    assert found.totals.parameters == sum(blob.count for blobs in net.params.values() for blob in blobs)
    assert found.totals.parameter_bytes == 4 * found.totals.parameters
    assert found.totals.frozen == 2 * 21 * 21 * 4 * 4 + 21 * 21 * 16 * 16
    conv1_1 = row(found, "conv1_1")
    assert (conv1_1.parameters, hint(conv1_1.macs)) == (64 * 27 + 64, 64 * 27 * 698 * 698)
    upscore = row(found, "upscore8")  # every input pixel is spread over 16 x 16 outputs
    assert hint(upscore.macs) == 21 * 21 * 16 * 16 * 70 * 70
    assert hint(found.totals.macs) == sum(hint(r.macs) for r in found.rows)
    assert round(hint(found.totals.macs) / 1e9) == 182
    smaller = {"H": 97, "W": 33}
    assert found.totals.macs.at(smaller) == hint(trace(VOC8S, {"data": (1, 3, 97, 33)}).totals.macs)


def test_shared_parameters_are_counted_once() -> None:
    shared = 'param { name: "w" } param { name: "b" } ' + conv("kernel_size: 3")
    found = trace(net_of(f"Convolution one data {shared}", f"Convolution two data {shared}"))
    assert found.totals.parameters == 10
    assert [(r.parameters, r.shared) for r in found.rows[1:]] == [(10, []), (0, ["one"])]


def test_memory_of_a_chain_with_a_long_skip() -> None:
    """Worked by hand: data 64, a 64, b in place, c 16 elements; a is needed until the end, data is not."""
    found = trace(net_of(
        "Power a data", "Convolution big a convolution_param { num_output: 8 kernel_size: 1 }",
        "Convolution small big " + conv("kernel_size: 1"), "Eltwise sum a,small",
    ))  # fmt: skip
    assert [hint(r.memory) for r in found.rows] == [256, 256, 2048, 256, 256]
    assert hint(found.totals.memory) == 3072
    assert found.totals.live == 256 + 2048 + 256  # a, big, small
    assert found.totals.live_at == "small"


def test_views_and_in_place_layers_take_no_memory() -> None:
    text = "ReLU r data"
    found = trace(
        net_of(text, "Flatten f r", "Reshape s f reshape_param { shape { dim: 1 dim: 1 dim: 8 dim: -1 } }")
    )
    assert [hint(r.memory) for r in found.rows] == [256, 256, 0, 0]
    assert found.totals.live == 512
    assert hint(trace(VOC8S).totals.memory) == sum(
        4 * blob.count for name, blob in Net(VOC8S).blobs.items() if "_split_" not in name
    )


def test_learned_and_frozen() -> None:
    found = trace(net_of(
        "Convolution both data " + conv("kernel_size: 1"),
        "Convolution none data param { lr_mult: 0 } param { lr_mult: 0 } " + conv("kernel_size: 1"),
        "Convolution part data param { lr_mult: 0 } " + conv("kernel_size: 1"),
        "BatchNorm norm data", "ReLU relu data",
    ))  # fmt: skip
    assert [r.learning for r in found.rows[1:]] == ["learned", "frozen", "partly", "frozen", ""]
    assert row(found, "part").lr_mult == [0, 1]
    assert found.totals.frozen == 2 + 1 + 3


# --- where weights come from


def test_sources_without_weights() -> None:
    found = trace(VOC8S)
    assert {r.source for r in found.rows} == {"", "not given"}
    assert {r.name for r in found.rows if r.source} == set(Net(VOC8S).params)


def test_sources_with_weights() -> None:
    found = trace(NETS / "fcn32s-thin.prototxt", weights=NETS / "fcn32s-thin.caffemodel")
    sources = {r.name: r.source for r in found.rows if r.source}
    assert sources.pop("upscore") == "bilinear on conversion"
    assert set(sources.values()) == {"caffemodel"}
    assert found.warnings == []
    given = Net(NETS / "fcn8s-thin.prototxt", NETS / "fcn8s-thin.caffemodel", TEST)
    assert {r.source for r in trace(given).rows} == {"", "caffemodel"}


def test_sources_of_what_the_weights_lack(tmp_path) -> None:
    path = tmp_path / "some.caffemodel"
    kernel = np.ones((1, 1, 3, 3), np.float32)
    stored = [("there", [kernel, np.zeros(1, np.float32)]), ("empty", [np.zeros((1, 1, 4, 4), np.float32)])]
    write(path, "net", [(name, "Convolution", arrays) for name, arrays in stored])
    net = net_of(
        "Convolution there data " + conv("kernel_size: 3"),
        "Convolution drawn data " + conv('kernel_size: 3 weight_filler { type: "xavier" }'),
        "Convolution nothing data " + conv("kernel_size: 3"),
        "Deconvolution empty data " + conv("kernel_size: 4 stride: 2 bias_term: false"),
        "Deconvolution oblong data " + conv("kernel_h: 4 kernel_w: 3 bias_term: false"),
    )
    found = trace(net, weights=path)
    assert {r.name: r.source for r in found.rows[1:]} == {
        "there": "caffemodel", "drawn": "filler xavier", "nothing": "zero", "empty": "bilinear on conversion",
        "oblong": "zero",
    }  # fmt: skip
    assert found.warnings == [
        "the weights hold nothing for drawn, nothing, oblong: a conversion needs --init-missing"
    ]


# --- inputs


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"image": (1, 3, 9, 9)}, "no input 'image'; the inputs are data"),
        ({"data": (1, 4, 9, 9)}, "input 'data' has 3 channels, the shape given 4"),
        ({"data": (3, 9, 9)}, "input 'data' has 4 axes"),
    ],
)
def test_input_shapes_that_do_not_fit(shapes, message: str) -> None:
    with pytest.raises(CaffeError, match=re.escape(message)):
        trace(VOC8S, shapes)


def test_an_input_that_is_too_small_names_the_layer() -> None:
    net = net_of("Convolution c data " + conv("kernel_size: 7"))
    with pytest.raises(LayerError, match="layer 'c'"):
        trace(net, {"data": (1, 1, 5, 9)})


def test_tracing_changes_nothing_in_the_net() -> None:
    net = Net(VOC8S)
    before = {name: blob.shape for name, blob in net.blobs.items()}
    trace(net, {"data": (2, 3, 64, 65)})
    assert {name: blob.shape for name, blob in net.blobs.items()} == before
    assert not any(blob.filled for blobs in net.params.values() for blob in blobs)


def test_public_name() -> None:
    assert caffe_fcn.trace is trace


def test_phase_is_told() -> None:
    assert trace(Net(NETS / "phases.prototxt", TRAIN)).phase == "TRAIN"


# --- the command


def test_command(capsys) -> None:
    assert call("trace", [str(VOC8S), "--input-shape", "data:1,3,334,500"], "caffe-fcn trace") == 0
    assert "1x21x334x500" in capsys.readouterr().out
    assert call("trace", [str(VOC8S), "--json"], "caffe-fcn trace") == 0
    assert json.loads(capsys.readouterr().out)["inputs"] == {"data": [1, 3, 500, 500]}
    val = str(VOC8S.with_name("val.prototxt"))
    assert call("trace", [val, "--deploy", "--input-shape", "data:1,3,20,20", "--format", "csv"], "x") == 0
    assert "1x21x20x20" in capsys.readouterr().out


def test_command_refuses(capsys) -> None:
    assert call("trace", [str(VOC8S), "--input-shape", "data:1,1,9,9"], "caffe-fcn trace") == 1
    assert "has 3 channels" in capsys.readouterr().err


def test_it_is_quick_and_needs_no_onnx() -> None:
    """Half a second of processor time for the whole process, the best of three."""
    code = (
        "import sys; from caffe_fcn.cli import call; call('trace', sys.argv[1:], 'trace');"
        "assert not {'onnx', 'onnxruntime', 'h5py', 'PIL'} & set(sys.modules), sorted(sys.modules)"
    )
    taken = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", code, str(VOC8S)], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(taken) < 0.5, taken
