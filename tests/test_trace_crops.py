"""Crops, the smallest input, and the arithmetic behind pads and offsets: true, as trying shows."""

from __future__ import annotations

import re

import pytest

from caffe_fcn.errors import CaffeError, LayerError
from caffe_fcn.net import Net
from caffe_fcn.report import render
from caffe_fcn.symbols import hint
from caffe_fcn.tracing import Trace, trace
from caffe_fcn.tracing.sizes import numbers
from tests.small_nets import PROTOTXTS, VOC8S, conv, net_of, pool

# --- Crops


@pytest.mark.parametrize(
    ("folder", "offsets"),
    [
        ("voc-fcn32s", [19]),
        ("voc-fcn16s", [5, 27]),
        ("voc-fcn8s", [5, 9, 31]),
        ("voc-fcn8s-atonce", [5, 9, 31]),
        ("voc-fcn-alexnet", [18]),
        ("nyud-fcn32s-color-hha", [19]),
        ("siftflow-fcn8s", [5, 9, 31, 5, 9, 31]),
        ("pascalcontext-fcn16s", [5, 27]),
    ],
)
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
    assert found.warnings == ["score: the offset is 34; the coordinates of its bottoms ask for 31"]
    assert "wrong" in render(found)
    assert "But the offset given is 34" in text_of(found, "score: offset 34")


def test_a_crop_between_unrelated_blobs_says_why_it_has_no_offset() -> None:
    text = """
        layer { name: "a" type: "Input" top: "a" input_param { shape { dim: [1, 1, 9, 9] } } }
        layer { name: "b" type: "Input" top: "b" input_param { shape { dim: [1, 1, 5, 5] } } }
        layer { name: "c" type: "Crop" bottom: ["a", "b"] top: "c" crop_param { axis: 2 offset: [1, 2] } }
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
    """The least pad works for every size, the next smaller does not; without pad nothing is left below N."""
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
