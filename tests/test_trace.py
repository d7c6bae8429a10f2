"""What `caffe-fcn trace` tells of a net, against real Caffe's shapes, the forward pass, and brute force."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import resource
import subprocess
import sys
from collections import defaultdict
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import caffe_fcn
from caffe_fcn.cli import call
from caffe_fcn.errors import CaffeError, LayerError
from caffe_fcn.formats.caffemodel import write
from caffe_fcn.net import TEST, TRAIN, Net
from caffe_fcn.report import FORMATS, render
from caffe_fcn.symbols import Extent, hint
from caffe_fcn.tracing import Trace, trace
from caffe_fcn.tracing.sizes import at, numbers
from tests.conftest import HERE, REFERENCE
from tests.reference_cases import Case, cases

PROTOTXTS = HERE.parent / "prototxts"
VOC8S = PROTOTXTS / "voc-fcn8s" / "deploy.prototxt"
NETS = REFERENCE / "nets"


def net_of(*layers: str, h: int = 8, w: int = 8, channels: int = 1) -> Net:
    """A net of layers written as `TYPE NAME BOTTOM[,BOTTOM] [fields]`; its input is `data`."""
    dims = f"dim: 1 dim: {channels} dim: {h} dim: {w}"
    text = [f'layer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ {dims} }} }} }}']
    for layer in layers:
        kind, name, bottoms, *fields = layer.split(maxsplit=3)
        reads = " ".join(f'bottom: "{bottom}"' for bottom in bottoms.split(","))
        text.append(f'layer {{ name: "{name}" type: "{kind}" {reads} top: "{name}" {" ".join(fields)} }}')
    return Net("\n".join(text))


def conv(fields: str) -> str:
    return f"convolution_param {{ num_output: 1 {fields} }}"


def pool(fields: str) -> str:
    return f"pooling_param {{ {fields} }}"


def row(found: Trace, name: str):
    return next(row for row in found.rows if row.name == name)


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
        "conv1_1": "H+198", "pool5": "ceil((H+198)/32)", "fc6": "ceil((H+6)/32)", "upscore": "32*ceil((H+38)/32)",
        "score": "H",
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
        layer { name: "d" type: "Input" top: "d" input_param { shape { dim: 1 dim: 1 dim: 4 dim: 6 dim: 8 } } }
        layer { name: "c" type: "Convolution" bottom: "d" top: "c" convolution_param { num_output: 1 kernel_size: 3 } }
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


# --- place in the image


kinds = st.sampled_from(["conv", "deconv", "ave"])
chains = st.lists(
    st.tuples(kinds, st.integers(1, 4), st.integers(1, 3), st.integers(0, 2), st.integers(1, 2)),
    min_size=1,
    max_size=4,
)


@given(chains)
def test_receptive_field_is_what_the_forward_pass_reads(chain: list[tuple[str, int, int, int, int]]) -> None:
    """With weights and inputs of ones, an output changes with exactly the pixels of its field."""
    layers, bottom = [], "data"
    for i, (kind, kernel, stride, pad, dilation) in enumerate(chain):
        name = f"l{i}"
        if kind == "ave":
            pad = min(pad, kernel - 1)
            layers.append(
                f"Pooling {name} {bottom} {pool(f'pool: AVE kernel_size: {kernel} stride: {stride} pad: {pad}')}"
            )
        else:
            fields = f'bias_term: false weight_filler {{ type: "constant" value: 1 }} kernel_size: {kernel} '
            fields += f"stride: {stride} pad: {pad} dilation: {dilation}"
            layers.append(
                f"{'Convolution' if kind == 'conv' else 'Deconvolution'} {name} {bottom} {conv(fields)}"
            )
        bottom = name
    try:
        net = net_of(*layers, h=60, w=1)
        found = trace(net)
    except LayerError:  # nothing is left, or less than nothing
        return
    (vertical, _) = row(found, bottom).axes
    assert vertical.stride is not None
    reads = _what_the_middle_reads(net, bottom, vertical)
    if not reads:
        return
    if all(kind != "deconv" for kind, *_ in chain):
        assert all(first == centre - (vertical.size - 1) / 2 for centre, first, _ in reads)
        assert all(last == centre + (vertical.size - 1) / 2 for centre, _, last in reads)
    else:  # the elements of a Deconvolution do not all read equally much; the field holds the largest
        assert all(first >= centre - vertical.size / 2 - 1 for centre, first, _ in reads)
        assert all(last - first + 1 <= vertical.size for _, first, last in reads)


def _what_the_middle_reads(net: Net, blob: str, axis) -> list[tuple[Fraction, int, int]]:
    """(centre by the trace, first and last pixel read) of elements whose field lies inside the image."""
    size = net.blobs["data"].height
    changed = defaultdict(list)
    for pixel in range(size):
        image = np.zeros((1, 1, size, 1), np.float32)
        image[0, 0, pixel] = 1
        out = np.nan_to_num(net.forward(data=image)[blob])  # an empty window of AVE is 0/0
        for element in np.nonzero(out[0, 0].any(axis=1))[0]:
            changed[int(element)].append(pixel)
    found = []
    for element, pixels in changed.items():
        centre = axis.offset + element * axis.stride
        if axis.size / 2 < centre < size - 1 - axis.size / 2:
            found.append((centre, min(pixels), max(pixels)))
    return found


def test_receptive_fields_of_fcn8s() -> None:
    found = trace(VOC8S)
    places = {
        name: (int(a.size), a.stride, a.offset)
        for name in ("data", "conv1_2", "pool5", "fc7", "upscore2", "score_pool4c", "upscore8", "score")
        for a in row(found, "input" if name == "data" else name).axes[:1]
    }
    assert places == {
        "data": (1, 1, 0), "conv1_2": (5, 1, -99), "pool5": (212, 32, Fraction(-167, 2)),
        "fc7": (404, 32, Fraction(25, 2)), "upscore2": (436, 16, Fraction(-23, 2)),
        "score_pool4c": (100, 16, Fraction(-23, 2)), "upscore8": (460, 1, -31), "score": (460, 1, 0),
    }  # fmt: skip


def test_fields_through_other_layers() -> None:
    found = trace(net_of(
        "Convolution wide data " + conv("kernel_size: 5 pad: 2"), "Convolution slim data " + conv("kernel_size: 1"),
        "Concat both slim,wide", "Softmax soft both", "Pooling all soft " + pool("pool: AVE global_pooling: true"),
        "InnerProduct end all inner_product_param { num_output: 2 }",
    ))  # fmt: skip
    sizes = {r.name: [(int(a.size), a.stride, a.offset) for a in r.axes[:1]] for r in found.rows}
    assert sizes["both"] == sizes["soft"] == [(5, 1, 0)]
    assert sizes["all"] == [(12, None, Fraction(7, 2))]
    assert sizes["end"] == []


def test_blobs_that_lie_apart_are_told() -> None:
    shifted = trace(net_of("Convolution c data " + conv("kernel_size: 3 pad: 1"),
                           "Crop moved data,c crop_param { axis: 2 offset: 0 }", "Eltwise sum c,moved"))  # fmt: skip
    assert shifted.warnings == []
    apart = trace(net_of(
        "Convolution c data " + conv("kernel_size: 3"), "Crop moved data,c crop_param { axis: 2 offset: 0 }",
        "Eltwise sum c,moved",
    ))  # fmt: skip
    assert apart.warnings == [
        "moved: the offset is 0, 0; the coordinates of its bottoms ask for 1, 1",
        "sum: c and moved do not lie alike: their rows begin on pixel 1 and 0 of the image, and are 1 and 1 pixels apart",
    ]


# --- Crops


@pytest.mark.parametrize(
    ("folder", "offsets"),
    [
        ("voc-fcn32s", [19]), ("voc-fcn16s", [5, 27]), ("voc-fcn8s", [5, 9, 31]), ("voc-fcn8s-atonce", [5, 9, 31]),
        ("voc-fcn-alexnet", [18]), ("nyud-fcn32s-color-hha", [19]), ("siftflow-fcn8s", [5, 9, 31, 5, 9, 31]),
        ("pascalcontext-fcn16s", [5, 27]),
    ],
)  # fmt: skip
def test_offsets_of_the_family_are_the_derived_ones(folder: str, offsets: list[int]) -> None:
    found = trace(PROTOTXTS / folder / "deploy.prototxt")
    assert [crop.cuts[0].given for crop in found.crops] == offsets
    assert [[c.derived for c in crop.cuts] for crop in found.crops] == [[o, o] for o in offsets]
    assert all(crop.right for crop in found.crops)
    assert found.warnings == []


def test_what_a_crop_cuts_is_what_the_shapes_leave() -> None:
    found = trace(VOC8S, {"data": (1, 3, 334, 500)})
    shapes = {r.tops[0]: numbers(r.shapes[0]) for r in found.rows}
    for crop in found.crops:
        for c in crop.cuts:
            kept = shapes[crop.data][c.axis] - c.before - hint(c.after)
            assert kept == shapes[crop.reference][c.axis]
    assert [(c.name, c.before, hint(c.after)) for c in found.crops[-1].cuts] == [
        ("rows", 31, 43),
        ("columns", 31, 37),
    ]


def test_a_wrong_offset_is_told() -> None:
    found = trace(Net(VOC8S.read_text().replace("offset: 31", "offset: 34")))
    assert [crop.right for crop in found.crops] == [True, True, False]
    assert found.warnings == ["score: the offset is 34, 34; the coordinates of its bottoms ask for 31, 31"]
    assert "wrong" in render(found)
    assert "But the offset given is 34" in text_of(found, "score: offset 34")


def test_a_crop_between_unrelated_blobs_says_why_it_has_no_offset() -> None:
    text = """
        layer { name: "a" type: "Input" top: "a" input_param { shape { dim: 1 dim: 1 dim: 9 dim: 9 } } }
        layer { name: "b" type: "Input" top: "b" input_param { shape { dim: 1 dim: 1 dim: 5 dim: 5 } } }
        layer { name: "c" type: "Crop" bottom: "a" bottom: "b" top: "c" crop_param { axis: 2 offset: 1 offset: 2 } }
    """
    found = trace(Net(text))
    (crop,) = found.crops
    assert [(c.given, c.derived, hint(c.after)) for c in crop.cuts] == [(1, None, 3), (2, None, 2)]
    assert "could not compute the map" in crop.problem
    assert found.warnings == []
    assert "could not compute the map" in render(found)


# --- the smallest input


@pytest.mark.parametrize("folder", ["voc-fcn32s", "voc-fcn8s", "voc-fcn-alexnet", "nyud-fcn32s-color-hha"])
def test_the_family_takes_one_pixel(folder: str) -> None:
    found = trace(PROTOTXTS / folder / "deploy.prototxt")
    assert found.smallest is not None
    assert found.smallest.sizes == {"H": 1, "W": 1}
    assert not any(found.smallest.failing.values())


SMALL_NETS = [
    # VGG's way down without the pad of 100
    [*(f"Pooling p{i} {f'p{i - 1}' if i else 'data'} {pool('kernel_size: 2 stride: 2')}" for i in range(5)),
     "Convolution fc6 p4 " + conv("kernel_size: 7")],
    # down and up again: only multiples of 4 come back to their own size
    ["Pooling down data " + pool("kernel_size: 4 stride: 4"),
     "Deconvolution up down " + conv("kernel_size: 4 stride: 4"), "Concat both up,data"],
    ["Convolution tall data " + conv("kernel_h: 5 kernel_w: 2 stride_h: 2 stride_w: 1 pad_h: 1 pad_w: 0")],
    ["Pooling down data " + pool("kernel_size: 3 stride: 2 round_mode: FLOOR"),
     "Deconvolution up down " + conv("kernel_size: 2 stride: 2"),
     "Crop cut data,up crop_param { axis: 2 offset: 1 }"],
]  # fmt: skip


@pytest.mark.parametrize("layers", SMALL_NETS)
def test_smallest_is_what_trying_every_size_finds(layers: list[str]) -> None:
    net = net_of(*layers, h=256, w=240)
    found = trace(net).smallest
    assert found is not None

    def works(h: int, w: int) -> bool:
        try:
            return all(n > 0 for tops in net.infer({"data": (1, 1, h, w)}) for shape in tops for n in shape)
        except CaffeError:
            return False

    least_h = next(n for n in range(1, 257) if works(n, 240))
    least_w = next(n for n in range(1, 241) if works(256, n))
    assert found.sizes == {"H": least_h, "W": least_w}
    for n in range(least_h, found.tried["H"] + 1):
        assert works(n, 240) != (n in found.failing["H"])


# --- why


def text_of(found: Trace, about: str) -> str:
    return " ".join(next(why for why in found.whys if why.about == about).sentences)


def test_the_arithmetic_of_fcn32s() -> None:
    found = trace(PROTOTXTS / "voc-fcn32s" / "deploy.prototxt")
    why = found.whys[0]
    assert why.about == "score: offset 19"
    assert [(step.layers, step.change, str(step.size)) for step in why.steps] == [
        (["conv1_1"], "n+198", "H+198"),
        (["pool1", "pool2", "pool3", "pool4", "pool5"], "ceil(n/2)", "ceil((H+198)/32)"),
        (["fc6"], "n-6", "ceil((H+6)/32)"),
        (["upscore"], "32*n+32", "32*ceil((H+38)/32)"),
    ]
    told = text_of(found, why.about)
    assert "upscore has 32*ceil((H+38)/32) rows: 38 to 69 more than the H of data, whatever H is." in told
    assert "0 - (-19) = 19 rows early, which is the offset" in told
    assert "19 are cut in front and 19 to 50 behind" in told
    assert "where 38 are to spare, that is half on each side" in told
    assert "The columns go the same way" in told


@pytest.mark.parametrize("folder", ["voc-fcn32s", "voc-fcn16s", "voc-fcn8s"])
def test_what_is_said_of_the_pad_is_true(folder: str) -> None:
    """The least pad works for every size and the next smaller does not; without pad nothing is left below N."""
    _check_pad(
        folder, "conv1_1", plain=1, offset={"voc-fcn32s": 19, "voc-fcn16s": 27, "voc-fcn8s": 31}[folder]
    )


def test_what_is_said_of_alexnets_pad_is_true() -> None:
    _check_pad("voc-fcn-alexnet", "conv1", plain=0, offset=18)


def _check_pad(folder: str, layer: str, plain: int, offset: int) -> None:
    path = PROTOTXTS / folder / "deploy.prototxt"
    told = text_of(trace(path), f"{layer}: pad 100")
    least, then = (
        int(n) for n in re.findall(r"works is (\d+) \(and the offset of score then (\d+)\)", told)[0]
    )
    assert 100 - least == offset - then
    text = path.read_text()

    def works(pad: int, size: int) -> bool:
        moved = re.sub(
            rf"offset: {offset}\b", f"offset: {offset - (100 - pad)}", text.replace("pad: 100", f"pad: {pad}")
        )
        try:
            shapes = Net(moved).infer({"data": (1, 3, size, size)})
        except CaffeError:
            return False
        return all(n > 0 for tops in shapes for shape in tops for n in shape)

    assert all(works(least, size) for size in range(1, 70))
    assert not all(works(least - 1, size) for size in range(1, 70))
    name, rows = re.findall(r", (\w+) would leave nothing of an image of fewer than (\d+) rows", told)[0]
    net = Net(up_to(text.replace("pad: 100", f"pad: {plain}"), name))
    assert net.infer({"data": (1, 3, int(rows), 500)})[-1][0][2] == 1
    with pytest.raises(LayerError, match=f"layer '{name}'"):
        net.infer({"data": (1, 3, int(rows) - 1, 500)})


def up_to(text: str, name: str) -> str:
    """The text of a prototxt of ours up to a layer, and that layer."""
    layers = ["layer {" + part for part in text.split("layer {")[1:]]
    last = next(i for i, layer in enumerate(layers) if f'name: "{name}"' in layer)
    return "".join(layers[: last + 1])


def test_nets_without_crops_or_pads_are_not_explained() -> None:
    assert trace(PROTOTXTS / "vgg16" / "deploy.prototxt").whys == []
    assert trace(net_of("Convolution c data " + conv("kernel_size: 3 pad: 1"))).whys == []


# --- forms


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("case", cases("nets"), ids=lambda case: case.name)
def test_every_net_in_every_form(case: Case, format_: str) -> None:
    assert render(trace(case.prototxt, weights=case.caffemodel), format_).endswith("\n")


def test_text_has_a_line_for_each_layer_and_is_not_wide() -> None:
    found = trace(VOC8S)
    text = render(found)
    assert max(len(line) for line in text.splitlines()) <= 160
    layers = text.split("\nLayers\n")[1].split("\n\n")[0].splitlines()
    assert len(layers) == 2 + len(found.rows) + 1
    assert layers[2 + 45].split() == [
        "45", "upscore8", "Deconvolution", "fuse_pool3", "→", "upscore8", "16x16", "s8", "1x21x568x568",
        "32*ceil((H+38)/32)+24",
    ]  # fmt: skip
    assert "parameters   134,489,759 (513.0 MiB as float32), 127,008 of them frozen" in text
    assert "arithmetic   181.5 GMAC for one pass" in text


def test_markdown_tables_are_whole() -> None:
    for table in re.findall(r"(?:^\|.*\n)+", render(trace(VOC8S), "markdown"), re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1, table


def test_csv_reads_back() -> None:
    found = trace(VOC8S, {"data": (1, 3, 334, 500)})
    rows = list(csv.DictReader(io.StringIO(render(found, "csv"))))
    assert [r["name"] for r in rows] == [r.name for r in found.rows]
    assert rows[1] == {
        "index": "1", "name": "conv1_1", "type": "Convolution", "bottoms": "data", "tops": "conv1_1", "in_place": "0",
        "kernel": "3", "stride": "1", "pad": "100", "dilation": "1", "group": "1", "output": "1x64x532x698",
        "output_formula": "1 x 64 x H+198 x W+198", "parameters": "1792", "parameter_bytes": "7168",
        "macs": str(64 * 27 * 532 * 698), "activation_bytes": str(4 * 64 * 532 * 698), "receptive_field": "3",
        "image_stride": "1", "image_offset": "-99", "lr_mult": "1 2", "learning": "learned",
        "weights_from": "not given",
    }  # fmt: skip
    assert sum(int(r["parameters"]) for r in rows) == found.totals.parameters


def test_json_reads_back() -> None:
    found = trace(VOC8S)
    back = json.loads(render(found, "json"))
    assert back == found.to_dict()
    assert back["totals"]["parameters"] == 134489759
    assert back["crops"][2]["cuts"][0]["after_formula"] == "32*ceil((H+6)/32)+25-H"
    assert back["rows"][45]["shapes_formula"][0][2] == "32*ceil((H+38)/32)+24"
    assert back["inputs_js"] == {"data": [1, 3, "H", "W"]}


def test_unknown_form() -> None:
    with pytest.raises(CaffeError, match="unknown format 'txt'; there are text, markdown, csv, json"):
        render(trace(VOC8S), "txt")


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
