"""Proposals and the pooling of regions, against the loops of the forks' files, and a whole Faster R-CNN."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest

from caffe_fcn.conversion import convert
from caffe_fcn.errors import LayerError
from caffe_fcn.export.exporter import export
from caffe_fcn.numeric import boxes
from caffe_fcn.runtime import Session
from caffe_fcn.verification import random_inputs
from tests.detectors import GAUSS, F, both, jaccard
from tests.layer_nets import build, draw, to_session
from tests.reference_cases import assert_close

# Proposal


def test_anchors_are_those_of_faster_rcnn() -> None:
    """The nine that its authors list in generate_anchors.py, there with positions from 0."""
    expected = [
        [-84, -40, 99, 55], [-176, -88, 191, 103], [-360, -184, 375, 199],
        [-56, -56, 71, 71], [-120, -120, 135, 135], [-248, -248, 263, 263],
        [-36, -80, 51, 95], [-80, -168, 95, 183], [-168, -344, 183, 359],
    ]  # fmt: skip
    np.testing.assert_array_equal(boxes.anchors(16, (0.5, 1, 2), (8, 16, 32)), expected)


def proposals(p, scores, deltas, info, anchors):
    """The loops of proposal_layer.cpp; of equal scores the first comes first."""
    count, (height, width), found = len(anchors), scores.shape[2:], []
    im_h, im_w = info[0, 0], info[0, 1]
    scale_h, scale_w = info[0, 2], info[0, 3] if info.shape[1] > 3 else info[0, 2]
    for h, w, k in np.ndindex(height, width, count):
        box = anchors[k] + np.array([w, h, w, h], F) * F(p.feat_stride)
        dx, dy, dw, dh = deltas[0, 4 * k : 4 * k + 4, h, w]
        bw, bh = box[2] - box[0] + 1, box[3] - box[1] + 1
        x, y = dx * bw + box[0] + bw / 2, dy * bh + box[1] + bh / 2
        a, b = np.exp(dw) * bw, np.exp(dh) * bh
        edge = np.array([im_w, im_h, im_w, im_h], F) - 1
        box = np.maximum(0, np.minimum(np.array([x - a / 2, y - b / 2, x + a / 2, y + b / 2], F), edge))
        large = box[2] - box[0] + 1 >= p.min_size * scale_w and box[3] - box[1] + 1 >= p.min_size * scale_h
        found.append((scores[0, count + k, h, w] * large, box))
    found = sorted(found, key=lambda item: -item[0])[: p.pre_nms_topn]
    kept = []
    for score, box in found:
        longer = np.array([*box[:2], *(box[2:] + 1)], F)
        if all(jaccard(longer, other) <= F(p.nms_thresh) for _, _, other in kept):
            kept.append((score, box, longer))
    kept = kept[: p.post_nms_topn]
    return np.array([[0, *box] for _, box, _ in kept], F), np.array([score for score, *_ in kept], F)


def rpn_inputs(height, width, count, seed, numbers=3):
    rng = np.random.default_rng(seed)
    scores, deltas = (
        rng.uniform(0, 1, (1, 2 * count, height, width)),
        rng.standard_normal((1, 4 * count, height, width)),
    )
    info = np.array([[height * 8, width * 8, 1.5, 2, 7, 9][:numbers]])
    return [a.astype(F) for a in (scores, deltas * 0.3, info)]


@pytest.mark.parametrize("numbers", [3, 4, 6])
@pytest.mark.parametrize(
    "told", ["min_size: 6", "post_nms_topn: 5 pre_nms_topn: 20 min_size: 8 nms_thresh: 0.3", "min_size: 40"]
)
def test_proposal(told, numbers) -> None:
    told += " feat_stride: 8 base_size: 8 ratio: 0.5 ratio: 2 scale: 1 scale: 2 scale: 4"
    arrays = rpn_inputs(4, 5, 6, 0, numbers)
    net = build(
        f'type: "Proposal" proposal_param {{ {told} }}', *[a.shape for a in arrays], top='top" top: "score'
    )
    layer, session = net.layer_dict["layer"], to_session(net)
    p, anchors = layer.param.proposal_param, boxes.anchors(8, (0.5, 2), (1, 2, 4))
    for height, width, seed in ((4, 5, 1), (6, 3, 2), (1, 1, 3)):
        arrays = rpn_inputs(height, width, 6, seed, numbers)
        got = both(net, *arrays, session=session)
        regions, scores = proposals(p, *arrays, anchors)
        assert_close(got["top"], regions, "regions")
        assert_close(got["score"], scores, "scores")


def test_proposal_is_a_constant_grid_where_the_size_is_known() -> None:
    arrays = rpn_inputs(4, 5, 9, 0)
    net = build('type: "Proposal" proposal_param { min_size: 4 }', *[a.shape for a in arrays])
    graph = export(net, static=["a", "b"]).graph
    assert "Range" not in [n.op for n in graph.nodes]
    assert random_inputs(net)["c"].tolist() == [[64, 80, 1]]  # an image of that size, to try it with


@pytest.mark.parametrize(
    ("told", "shapes", "message"),
    [
        (
            "",
            [(1, 17, 2, 2), (1, 36, 2, 2), (1, 3)],
            r"'a' is \(1, 17, 2, 2\): 9 anchors need \(1, 18, H, W\)",
        ),
        (
            "",
            [(1, 18, 2, 2), (1, 18, 2, 2), (1, 3)],
            r"'b' is \(1, 18, 2, 2\): 9 anchors need \(1, 36, H, W\)",
        ),
        ("", [(2, 18, 2, 2), (2, 36, 2, 2), (1, 3)], r"need \(1, 18, H, W\)"),
        ("", [(1, 18, 2, 2), (1, 36, 2, 3), (1, 3)], "they differ in H or W"),
        ("", [(1, 18, 2, 2), (1, 36, 2, 2), (1, 2)], r"'c' is \(1, 2\), not \(1, 3\)"),
        ("ratio: 0", [(1, 18, 2, 2), (1, 36, 2, 2), (1, 3)], r"ratio \[0.0\] must be positive"),
        ("post_nms_topn: 0", [(1, 18, 2, 2), (1, 36, 2, 2), (1, 3)], "post_nms_topn 0 must be positive"),
    ],
)
def test_proposal_that_does_not_fit(told, shapes, message) -> None:
    with pytest.raises(LayerError, match=message):
        build(f'type: "Proposal" proposal_param {{ {told} }}', *shapes)


PUBLISHED = """type: "Python" python_param { module: "rpn.proposal_layer" layer: "ProposalLayer"
                                            param_str: "%s" }"""


@pytest.mark.parametrize(
    "told", ["'feat_stride': 8", "{'feat_stride': 8, 'scales': [1, 2], 'ratios': (0.5, 2)}"]
)
def test_the_python_layer_of_faster_rcnn(told) -> None:
    """As Proposal, but what is too small is left out: with none large enough there are no regions."""
    count = 4 if "ratios" in told else 9
    cell = boxes.anchors(16, (0.5, 2) if count == 4 else (0.5, 1, 2), (1, 2) if count == 4 else (8, 16, 32))
    arrays = rpn_inputs(4, 5, count, 0)
    net = build(PUBLISHED % told, *[a.shape for a in arrays], top='top" top: "score')
    layer, session = net.layer_dict["layer"], to_session(net)
    assert layer.variant.startswith("the ProposalLayer of py-faster-rcnn")
    p = layer.param.proposal_param
    p.feat_stride, p.min_size = 8, 16
    for height, width, seed in ((4, 5, 1), (6, 3, 2)):
        arrays = rpn_inputs(height, width, count, seed)
        got = both(net, *arrays, session=session)
        whole, scores = proposals(p, *arrays, cell)
        assert_close(got["top"], whole[scores > 0], "regions")
        assert_close(got["score"], scores[scores > 0, None], "scores")
    arrays[2][0, 2] = 100
    assert both(net, *arrays, session=session)["top"].shape == (0, 5)


@pytest.mark.parametrize(
    ("told", "cell"),
    [
        (
            r"'feat_stride': 8 \n'scales': !!python/tuple [4, 8]",
            boxes.anchors(16, (0.5, 1, 2), (4, 8)),
        ),
        (r"feat_stride: 8\nratios: [1]\nbase_size: 12", boxes.anchors(12, [1], (8, 16, 32))),
        (r"{'feat_stride': 8,\n 'scales': [2],\n 'ratios': [1, 2]}", boxes.anchors(16, [1, 2], [2])),
    ],
)
def test_param_str_as_yaml_has_it(told, cell) -> None:
    net = build(PUBLISHED % told, *[a.shape for a in rpn_inputs(2, 2, len(cell), 0)])
    plan = net.layer_dict["layer"].plan
    assert plan.stride == 8
    np.testing.assert_array_equal(plan.anchors, cell)


def test_one_scale_holds_for_both_sides_in_python() -> None:
    """im_info of PVANET has one for each side; its Python layer reads the first."""
    arrays = rpn_inputs(2, 2, 9, 0, 6)
    arrays[1][:] = 0
    arrays[2][0, :4] = 64, 64, 1, 100  # no side is 1600 pixels
    net = build(PUBLISHED % "'feat_stride': 8", *[a.shape for a in arrays])
    assert len(both(net, *arrays)["top"]) > 0


def test_proposals_of_ssh_are_all_that_are_likely() -> None:
    """Two anchors at each of 3 x 4 cells, likeliest first; by hand: without moves each grows by a pixel."""
    told = (PUBLISHED % "{'feat_stride': 8,'scales': [1,2], 'ratios':[1,]}").replace(
        "rpn.proposal_layer", "SSH.layers.proposal_layer"
    )
    arrays = rpn_inputs(3, 4, 2, 5)
    arrays[1][:] = 0
    net = build(told, *[a.shape for a in arrays], top='top" top: "score')
    assert net.layer_dict["layer"].variant.startswith("the ProposalLayer of SSH")
    got = both(net, *arrays)
    rows = [
        (arrays[0][0, 2 + k, h, w], 0, *np.clip([x - r, y - r, x + r + 1, y + r + 1], 0, edge))
        for h, w, k in np.ndindex(3, 4, 2)
        for x, y, r in [(8 * w + 7.5, 8 * h + 7.5, (7.5, 15.5)[k])]
        for edge in [[31, 23, 31, 23]]
    ]
    rows = np.array(sorted(rows, key=lambda row: -row[0]), F)
    assert_close(got["top"], rows[:, 1:], "regions")
    assert_close(got["score"], rows[:, :1], "scores")


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ("'feat_stride': 8, 'base_size': 1.5", "base_size 1.5 is no whole number"),
        ("'scales': [1]", "feat_stride is missing in param_str"),
        ("'feat_stride': 8.5", "feat_stride 8.5 is no whole number"),
        ("'feat_stride': [8, 16]", r"feat_stride \[8, 16\] is no whole number"),
        ("'feat_stride': 8, 'scales': []", r"scales \[\] in param_str must be positive and finite"),
        ("'feat_stride': 8, 'ratios': 1e999", "ratios inf in param_str must be positive"),
        ("feat_stride = 16", r"param_str 'feat_stride = 16' is no list of names and values"),
    ],
)
def test_param_str_of_the_python_layer(told, message) -> None:
    with pytest.raises(LayerError, match=message):
        build(PUBLISHED % told, *[a.shape for a in rpn_inputs(2, 2, 9, 0)])


def test_a_users_own_module_comes_first(tmp_path, monkeypatch) -> None:
    (tmp_path / "spatial_dropout.py").write_text(
        "from caffe_fcn.layers.python import PythonLayer\n"
        "class SpatialDropoutLayer(PythonLayer):\n"
        "    def reshape(self, bottom, top): top[0].reshape(*bottom[0].shape)\n"
        "    def forward(self, bottom, top): top[0].data[...] = bottom[0].data + 1\n"
    )
    told = """python_param { module: "spatial_dropout" layer: "SpatialDropoutLayer"
                            param_str: "{'phase': 'TEST'}" }"""
    x = draw(1, 2, 3, 4)
    net = build(f'type: "Python" {told}', x.shape)
    np.testing.assert_array_equal(both(net, x)["top"], x)
    with pytest.raises(LayerError, match="is random in phase TRAIN"):
        build(f'type: "Python" {told.replace("TEST", "TRAIN")}', x.shape)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "spatial_dropout", raising=False)
    net = build(f'type: "Python" {told}', x.shape)
    np.testing.assert_array_equal(net.forward(a=x)["top"], x + 1)
    monkeypatch.delitem(sys.modules, "spatial_dropout")


# Regions


def c_round(x):
    return math.floor(x + 0.5) if x >= 0 else math.ceil(x - 0.5)


def roi_pool(x, rois, ph, pw, scale):
    """The loops of roi_pooling_layer.cpp."""
    height, width = x.shape[2:]
    top = np.zeros((len(rois), x.shape[1], ph, pw), F)
    for r, i, j in np.ndindex(len(rois), ph, pw):
        x1, y1, x2, y2 = (c_round(F(v) * F(scale)) for v in rois[r, 1:])
        bh, bw = F(max(y2 - y1 + 1, 1)) / F(ph), F(max(x2 - x1 + 1, 1)) / F(pw)
        hs, he = math.floor(F(i) * bh) + y1, math.ceil(F(i + 1) * bh) + y1
        ws, we = math.floor(F(j) * bw) + x1, math.ceil(F(j + 1) * bw) + x1
        hs, he = (min(max(v, 0), height) for v in (hs, he))
        ws, we = (min(max(v, 0), width) for v in (ws, we))
        if he > hs and we > ws:
            top[r, :, i, j] = x[int(rois[r, 0]), :, hs:he, ws:we].max(axis=(1, 2))
    return top


def psroi_pool(x, rois, outputs, group, scale):
    """The kernel of psroi_pooling_layer.cu."""
    height, width = x.shape[2:]
    top = np.zeros((len(rois), outputs, group, group), F)
    for r, d, i, j in np.ndindex(top.shape):
        x1, y1 = (F(c_round(v)) * F(scale) for v in rois[r, 1:3])
        x2, y2 = (F(c_round(v) + 1.0) * F(scale) for v in rois[r, 3:5])
        bh, bw = max(y2 - y1, F(0.1)) / F(group), max(x2 - x1, F(0.1)) / F(group)
        hs, he = math.floor(F(i) * bh + y1), math.ceil(F(i + 1) * bh + y1)
        ws, we = math.floor(F(j) * bw + x1), math.ceil(F(j + 1) * bw + x1)
        hs, he = (min(max(v, 0), height) for v in (hs, he))
        ws, we = (min(max(v, 0), width) for v in (ws, we))
        if he > hs and we > ws:
            top[r, d, i, j] = x[int(rois[r, 0]), (d * group + i) * group + j, hs:he, ws:we].mean(
                dtype=np.float64
            )
    return top


def regions(count, items, height, width, scale, seed):
    """Boxes within the image and partly beyond it, whole and half pixels among them, one upside down."""
    rng = np.random.default_rng(seed)
    ends = np.sort(rng.uniform(-0.1, 1.1, (count, 2, 2)), axis=1) * [width / scale, height / scale]
    ends[::3] = np.round(ends[::3] * 2) / 2
    ends[1] = ends[1, ::-1]
    return np.concatenate([rng.integers(0, items, (count, 1)), ends.reshape(count, 4)], 1).astype(F)


@pytest.mark.parametrize(
    ("layer", "channels", "loops"),
    [
        ('"ROIPooling" roi_pooling_param { pooled_h: 3 pooled_w: 2 spatial_scale: 0.25 }', 2,
         lambda x, r: roi_pool(x, r, 3, 2, 0.25)),
        ('"PSROIPooling" psroi_pooling_param { output_dim: 2 group_size: 3 spatial_scale: 0.25 }', 18,
         lambda x, r: psroi_pool(x, r, 2, 3, 0.25)),
    ],
)  # fmt: skip
@pytest.mark.parametrize("flat", [True, False])
def test_pooling_of_regions(layer, channels, loops, flat) -> None:
    rank = () if flat else (1, 1)
    net = build(f"type: {layer}", (2, channels, 8, 9), (6, 5, *rank))
    session = to_session(net)
    for n, h, w, count in ((2, 8, 9, 40), (3, 6, 13, 20)):
        x, rois = draw(n, channels, h, w), regions(count, n, h, w, 0.25, seed=h)
        got = both(net, x, rois.reshape(count, 5, *rank), session=session)["top"]
        assert got.shape == net.blobs["top"].shape
        np.testing.assert_allclose(got, loops(x, rois), rtol=1e-5, atol=1e-5)
    sample = random_inputs(net)["b"]
    assert set(sample[:, 0].reshape(-1)) <= {0, 1, 2}  # items that the batch has
    net.forward(a=draw(*net.blobs["a"].shape), b=sample)


def test_regions_that_do_not_fit() -> None:
    roi = 'type: "ROIPooling" roi_pooling_param { pooled_h: 3 pooled_w: 2 }'
    with pytest.raises(LayerError, match=r"'b' is \(6, 4\), not \(R, 5\)"):
        build(roi, (2, 3, 8, 9), (6, 4))
    with pytest.raises(LayerError, match="pooled_h 3 and pooled_w 0 must be positive"):
        build('type: "ROIPooling" roi_pooling_param { pooled_h: 3 }', (2, 3, 8, 9), (6, 5))
    psroi = 'type: "PSROIPooling" psroi_pooling_param { output_dim: 2 group_size: 3 spatial_scale: 1 }'
    with pytest.raises(LayerError, match="'a' has 17 channels, output_dim and group_size need 18"):
        build(psroi, (2, 17, 8, 9), (6, 5))
    net = build(roi, (2, 3, 8, 9), (1, 5))
    with pytest.raises(LayerError, match=r"a region is of item \[2\.?\], 'a' has 2 items"):
        net.forward(a=draw(2, 3, 8, 9), b=np.array([[2, 0, 0, 1, 1]], F))


# A whole net


def faster(proposal: str, pool: str) -> str:
    """A net from an image to the classes of regions."""
    return f"""
        layer {{ name: "data" type: "Input" top: "data" top: "im_info"
                 input_param {{ shape {{ dim: 1 dim: 3 dim: 64 dim: 96 }} shape {{ dim: 1 dim: 3 }} }} }}
        layer {{ name: "conv" type: "Convolution" bottom: "data" top: "conv"
                 convolution_param {{ num_output: 18 kernel_size: 3 pad: 1 stride: 8 {GAUSS % 0.01} }} }}
        layer {{ name: "cls" type: "Convolution" bottom: "conv" top: "cls"
                 convolution_param {{ num_output: 6 kernel_size: 1 {GAUSS % 0.1} }} }}
        layer {{ name: "box" type: "Convolution" bottom: "conv" top: "box"
                 convolution_param {{ num_output: 12 kernel_size: 1 {GAUSS % 0.01} }} }}
        layer {{ name: "rows" type: "Reshape" bottom: "cls" top: "rows"
                 reshape_param {{ shape {{ dim: 0 dim: 2 dim: -1 dim: 0 }} }} }}
        layer {{ name: "prob" type: "Softmax" bottom: "rows" top: "prob" }}
        layer {{ name: "back" type: "Reshape" bottom: "prob" top: "back"
                 reshape_param {{ shape {{ dim: 0 dim: 6 dim: -1 dim: 0 }} }} }}
        layer {{ name: "proposal" bottom: "back" bottom: "box" bottom: "im_info" top: "rois" {proposal} }}
        layer {{ name: "pool" bottom: "conv" bottom: "rois" top: "pool" {pool} }}
        layer {{ name: "fc" type: "InnerProduct" bottom: "pool" top: "fc"
                 inner_product_param {{ num_output: 4 {GAUSS % 0.1} }} }}
        layer {{ name: "score" type: "Softmax" bottom: "fc" top: "score" }}
    """


PROPOSAL = """type: "Proposal" proposal_param { feat_stride: 8 base_size: 8 min_size: 4
                                                ratio: 1 scale: [1, 2, 4] post_nms_topn: 12 }"""
ROI = 'type: "ROIPooling" roi_pooling_param { pooled_h: 3 pooled_w: 3 spatial_scale: 0.125 }'
PSROI = 'type: "PSROIPooling" psroi_pooling_param { output_dim: 2 group_size: 3 spatial_scale: 0.125 }'


@pytest.mark.parametrize(
    ("proposal", "pool", "most"),
    [
        (PROPOSAL, ROI, 12),
        (PROPOSAL, PSROI, 12),
        (PUBLISHED % "{'feat_stride': 8, 'scales': [1, 2, 4], 'ratios': [1]}", ROI, 300),
    ],
)
def test_a_whole_faster_rcnn(tmp_path, proposal, pool, most) -> None:
    """From the image to the classes of as many regions as there are, at sizes that the file leaves open."""
    (tmp_path / "net.prototxt").write_text(faster(proposal, pool))
    result = convert(tmp_path / "net.prototxt", None, tmp_path / "net.onnx")
    assert result.inputs == {"data": [1, 3, "H", "W"], "im_info": [1, 3]}
    session = Session(tmp_path / "net.onnx", "cpu")
    got = session.run({"data": draw(1, 3, 80, 72), "im_info": np.array([[80, 72, 1]], F)})["score"]
    assert got.shape[1] == 4
    assert 1 <= len(got) <= most
    np.testing.assert_allclose(got.sum(axis=1), 1, rtol=1e-5)
