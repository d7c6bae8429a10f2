"""What detectors have: priors, detections, proposals, regions. Against the loops of the forks' own files."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caffe_fcn.conversion import convert
from caffe_fcn.errors import CaffeWarning, LayerError, UnsupportedError
from caffe_fcn.export.exporter import export
from caffe_fcn.net import Net
from caffe_fcn.numeric import boxes
from caffe_fcn.runtime import Session
from caffe_fcn.verification import random_inputs
from tests.layer_nets import NAMES, build, draw, to_session
from tests.reference_cases import assert_close

F = np.float32


def both(net: Net, *arrays, session: Session | None = None, opset=17) -> dict[str, np.ndarray]:
    """The outputs of NumPy, which ONNX has to give too; their shapes depend on the values."""
    fed = dict(zip(NAMES, arrays, strict=False))
    for name, array in fed.items():
        net.blobs[name].reshape(*array.shape)
    net.reshape()
    got = {name: array.copy() for name, array in net.forward(**fed).items()}
    session = session or to_session(net, opset)
    for name, array in session.run({n: fed[n] for n in session.inputs}).items():
        assert_close(array, got[name], name)
    return got


# PriorBox


def priors_of(p, map_size, image_size):
    """The loops of prior_box_layer.cpp."""
    ratios = [1.0]
    for ratio in p.aspect_ratio:
        if all(abs(ratio - r) >= 1e-6 for r in ratios):
            ratios += [ratio, 1 / ratio] if p.flip else [ratio]
    img_h, img_w = (
        (p.img_h, p.img_w)
        if p.HasField("img_h")
        else (p.img_size,) * 2
        if p.HasField("img_size")
        else image_size
    )
    step_h, step_w = (
        (p.step_h, p.step_w) if p.HasField("step_h")
        else (p.step,) * 2 if p.HasField("step")
        else (img_h / map_size[0], img_w / map_size[1])
    )  # fmt: skip
    rows = []
    for h, w in np.ndindex(*map_size):
        y, x = (h + p.offset) * step_h, (w + p.offset) * step_w
        for s, low in enumerate(map(int, p.min_size)):
            sizes = [(low, low)]
            if p.max_size:
                sizes.append((math.sqrt(low * int(p.max_size[s])),) * 2)
            sizes += [(low * math.sqrt(r), low / math.sqrt(r)) for r in ratios if abs(r - 1) >= 1e-6]
            rows += [
                ((x - a / 2) / img_w, (y - b / 2) / img_h, (x + a / 2) / img_w, (y + b / 2) / img_h)
                for a, b in sizes
            ]
    box = np.array(rows)
    if p.clip:
        box = box.clip(0, 1)
    variance = list(p.variance) or [0.1]
    return np.stack([box, np.broadcast_to(variance, box.shape)]).reshape(1, 2, -1)


@pytest.mark.parametrize(
    "told",
    [
        "min_size: 4",
        "min_size: 35.84 max_size: 76.8 aspect_ratio: [2, 3] variance: [0.1, 0.2, 0.3, 0.4]",
        "min_size: [5, 9] max_size: [7, 12] aspect_ratio: [2, 0.5, 1] clip: true",
        "min_size: 4 aspect_ratio: 2 flip: false offset: 0 step: 8",
        "min_size: 4 img_size: 50 step_h: 3 step_w: 5 variance: 0.3",
        "min_size: 4 img_h: 30 img_w: 60",
    ],
)
def test_prior_box(told) -> None:
    net = build(f'type: "PriorBox" prior_box_param {{ {told} }}', (2, 3, 5, 7), (2, 3, 40, 63))
    got = both(net, draw(2, 3, 5, 7), draw(2, 3, 40, 63))["top"]
    assert got.shape == net.blobs["top"].shape
    p = net.layer_dict["layer"].param.prior_box_param
    np.testing.assert_allclose(got, priors_of(p, (5, 7), (40, 63)), rtol=1e-5, atol=1e-6)
    exported = export(net)
    assert [n.op for n in exported.graph.nodes] == ["Identity"]  # a constant: sizes alone make it
    assert "N" not in exported.fixed


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ("", "min_size is missing"),
        ("min_size: 0", r"min_size \[0.0\] must be positive"),
        ("min_size: 3 max_size: 2", "max_size 2 must be greater than min_size 3"),
        ("min_size: 3 max_size: 4 max_size: 5", "2 max_size for 1 min_size"),
        ("min_size: 3 variance: 1 variance: 2", "2 variance, give 1 or 4"),
        ("min_size: 3 img_size: 3 img_h: 3 img_w: 2", "give either img_size, or img_h and img_w"),
        ("min_size: 3 step_h: 3", "give either step, or step_h and step_w"),
        ("min_size: 3 step: 0", "step must be positive"),
    ],
)
def test_prior_box_that_makes_no_sense(told, message) -> None:
    with pytest.raises(LayerError, match=message):
        build(f'type: "PriorBox" prior_box_param {{ {told} }}', (1, 3, 5, 7), (1, 3, 40, 63))


def test_prior_box_of_another_fork() -> None:
    with (
        pytest.warns(CaffeWarning),
        pytest.raises(LayerError, match="prior_box_param of another fork: density"),
    ):
        build('type: "PriorBox" prior_box_param { min_size: 3 density: 2 }', (1, 3, 5, 7), (1, 3, 40, 63))


# DetectionOutput


def jaccard(a, b):
    """JaccardOverlap and BBoxSize of bbox_util.cpp."""

    def size(box):
        return F(0) if box[2] < box[0] or box[3] < box[1] else F(box[2] - box[0]) * F(box[3] - box[1])

    if b[0] > a[2] or b[2] < a[0] or b[1] > a[3] or b[3] < a[1]:
        return F(0)
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return F(w * h) / (size(a) + size(b) - F(w * h)) if w > 0 and h > 0 else F(0)


def decoded(prior, variance, code, encoded, loc):
    """DecodeBBox of bbox_util.cpp."""
    v = np.ones(4, F) if encoded else variance
    w, h = prior[2] - prior[0], prior[3] - prior[1]
    if code == "CORNER":
        return prior + v * loc
    if code == "CORNER_SIZE":
        return prior + v * loc * np.array([w, h, w, h], F)
    x = v[0] * loc[0] * w + (prior[0] + prior[2]) / 2
    y = v[1] * loc[1] * h + (prior[1] + prior[3]) / 2
    a, b = np.exp(v[2] * loc[2]) * w, np.exp(v[3] * loc[3]) * h
    return np.array([x - a / 2, y - b / 2, x + a / 2, y + b / 2], F)


def nms(box, scores, floor, threshold, eta, top_k):
    """ApplyNMSFast of bbox_util.cpp."""
    order = sorted((i for i in range(len(scores)) if scores[i] > floor), key=lambda i: -scores[i])
    kept, limit = [], F(threshold)
    for i in order[: top_k if top_k > -1 else None]:
        if all(jaccard(box[i], box[k]) <= limit for k in kept):
            kept.append(i)
            if eta < 1 and limit > 0.5:
                limit *= F(eta)
    return kept


def detections(p, loc, conf, prior, arm_conf=None, arm_loc=None):
    """The loops of detection_output_layer.cpp, of SSD and, with `arm_...`, of RefineDet."""
    num, count, rows = len(loc), prior.shape[2] // 4, []
    classes, each = p.num_classes, 1 if p.share_location else p.num_classes
    code = ("", "CORNER", "CENTER_SIZE", "CORNER_SIZE")[p.code_type]
    corners, variance = prior.reshape(2, count, 4)
    floor = p.confidence_threshold if p.HasField("confidence_threshold") else -np.finfo(F).max
    for n in range(num):
        scores, moves = conf[n].reshape(count, classes).copy(), loc[n].reshape(count, each, 4)
        start = corners.copy()
        for k in range(count):
            if arm_conf is not None and arm_conf[n].reshape(count, 2)[k, 1] < F(p.objectness_score):
                scores[k] = [1, *[0] * (classes - 1)]
            if arm_loc is not None:
                start[k] = decoded(
                    corners[k],
                    variance[k],
                    code,
                    p.variance_encoded_in_target,
                    arm_loc[n].reshape(count, 4)[k],
                )
        found = {}
        for c in range(classes):
            if c == p.background_label_id:
                continue
            label = 0 if p.share_location else c
            box = [
                decoded(start[k], variance[k], code, p.variance_encoded_in_target, moves[k, label])
                for k in range(count)
            ]
            top_k = p.nms_param.top_k if p.nms_param.HasField("top_k") else -1
            kept = nms(box, scores[:, c], F(floor), p.nms_param.nms_threshold, p.nms_param.eta, top_k)
            found[c] = [(scores[k, c], box[k]) for k in kept]
        every = sorted(
            ((s, c, i) for c in found for i, (s, _) in enumerate(found[c])), key=lambda item: -item[0]
        )
        if p.keep_top_k > -1:
            every = every[: p.keep_top_k]
        for c in sorted(found):
            rows += [[n, c, s, *found[c][i][1]] for s, label, i in every if label == c]
    rows = rows or [[n, *[-1] * 6] for n in range(num)]
    return np.array(rows, F).reshape(1, 1, -1, 7)


def detector_inputs(n, count, classes, each, seed, stages=0):
    """Locations, confidences, priors (whose boxes overlap a good deal), and RefineDet's first stage."""
    rng = np.random.default_rng(seed)
    centre, size = rng.uniform(0.2, 0.8, (count, 2)), rng.uniform(0.1, 0.4, (count, 2))
    corners = np.concatenate([centre - size / 2, centre + size / 2], 1)
    prior = np.stack([corners, np.tile([0.1, 0.1, 0.2, 0.2], (count, 1))]).reshape(1, 2, -1)
    arrays = [rng.standard_normal((n, count * each * 4)), rng.uniform(0, 1, (n, count * classes)), prior]
    arrays += [rng.uniform(0, 1, (n, count * 2)), rng.standard_normal((n, count * 4))][:stages]
    return [a.astype(F) for a in arrays]


def detector(told, count=12, classes=3, each=1, n=2, stages=0):
    shared = "" if each == 1 else "share_location: false"
    return build(
        f'type: "DetectionOutput" detection_output_param {{ num_classes: {classes} {shared} {told} }}',
        *[a.shape for a in detector_inputs(n, count, classes, each, 0, stages)],
    )


@pytest.mark.parametrize("each", [1, 3])
@pytest.mark.parametrize(
    "told",
    [
        "",
        "code_type: CENTER_SIZE nms_param { nms_threshold: 0.45 top_k: 400 } keep_top_k: 200",
        "code_type: CENTER_SIZE nms_param { nms_threshold: 0.6 top_k: 4 } keep_top_k: 5 confidence_threshold: 0.3",
        "code_type: CORNER_SIZE background_label_id: 1 variance_encoded_in_target: true",
        "background_label_id: -1 nms_param { nms_threshold: 0 } keep_top_k: 0",
        "confidence_threshold: 2",
    ],
)
def test_detection_output(told, each) -> None:
    net = detector(told, each=each)
    p, session = net.layer_dict["layer"].param.detection_output_param, to_session(net)
    for n, seed in ((2, 1), (1, 2), (3, 3)):
        arrays = detector_inputs(n, 12, 3, each, seed)
        got = both(net, *arrays, session=session)["top"]
        assert_close(got, detections(p, *arrays), "detections")


def test_detection_output_at_a_later_opset_and_for_one_class() -> None:
    net = detector("code_type: CENTER_SIZE keep_top_k: 3", classes=2)
    arrays = detector_inputs(2, 12, 2, 1, 5)
    both(net, *arrays, opset=20)


@pytest.mark.parametrize("stages", [1, 2])
def test_detection_output_of_refinedet(stages) -> None:
    told = "code_type: CENTER_SIZE objectness_score: 0.4 keep_top_k: 20 nms_param { nms_threshold: 0.5 }"
    net = detector(told, stages=stages)
    p, session = net.layer_dict["layer"].param.detection_output_param, to_session(net)
    for n, seed in ((2, 1), (1, 4)):
        arrays = detector_inputs(n, 12, 3, 1, seed, stages)
        assert_close(both(net, *arrays, session=session)["top"], detections(p, *arrays), "detections")


def test_the_image_as_fourth_bottom_is_not_read() -> None:
    arrays = [*detector_inputs(1, 12, 3, 1, 0), draw(1, 3, 4, 5)]
    net = build(
        'type: "DetectionOutput" detection_output_param { num_classes: 3 }', *[a.shape for a in arrays]
    )
    p = net.layer_dict["layer"].param.detection_output_param
    assert_close(both(net, *arrays)["top"], detections(p, *arrays[:3]), "detections")


def test_a_falling_threshold_is_computed_but_has_no_onnx() -> None:
    net = detector("code_type: CENTER_SIZE nms_param { nms_threshold: 0.9 eta: 0.7 }")
    arrays = detector_inputs(2, 12, 3, 1, 0)
    got = net.forward(**dict(zip(NAMES, arrays, strict=False)))["top"]
    assert_close(got, detections(net.layer_dict["layer"].param.detection_output_param, *arrays), "detections")
    with pytest.raises(UnsupportedError, match=r"as eta 0.7 says\n  stop before it: --output"):
        export(net)


@pytest.mark.parametrize(
    ("told", "shapes", "message"),
    [
        ("", [(1, 16), (1, 8), (1, 2, 16)], "num_classes is missing"),
        (
            "num_classes: 2",
            [(1, 15), (1, 8), (1, 2, 16)],
            r"'a' is \(1, 15\): 15 numbers for each item, 4 priors need 16",
        ),
        ("num_classes: 2", [(1, 16), (1, 9), (1, 2, 16)], "9 numbers for each item, 4 priors need 8"),
        ("num_classes: 2", [(2, 16), (1, 8), (1, 2, 16)], "they differ in N"),
        ("num_classes: 2", [(1, 16), (1, 8), (2, 16)], r"'c' is \(2, 16\), not \(1, 2, priors \* 4\)"),
        ("num_classes: 2 nms_param { eta: 0 }", [(1, 16), (1, 8), (1, 2, 16)], r"eta 0.0 is not in \(0, 1\]"),
    ],
)
def test_detection_output_that_does_not_fit(told, shapes, message) -> None:
    with pytest.raises(LayerError, match=message):
        build(f'type: "DetectionOutput" detection_output_param {{ {told} }}', *shapes)


@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.floats(0.05, 0.95), st.sampled_from([0, 1]))
@settings(max_examples=60, deadline=None)
def test_what_is_kept_overlaps_little_and_what_is_not_much(seed, count, threshold, extra) -> None:
    rng = np.random.default_rng(seed)
    corner, size = rng.uniform(0, 50, (count, 2)), rng.uniform(1, 30, (count, 2))
    box = np.concatenate([corner, corner + size], 1).astype(F)
    order = boxes.descending(rng.uniform(0, 1, count).astype(F))
    kept = boxes.suppress(box, order, threshold, extra=extra)
    assert kept[0] == order[0]
    for place, i in enumerate(order):
        before = [k for k in kept if list(order).index(k) < place]
        most = boxes.overlap(box[i], box[before], extra).max(initial=0)
        assert (most <= F(threshold)) == (i in kept)
    assert boxes.suppress(box, order, threshold, 2, extra=extra) == kept[:2]


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
    info = np.array([[height * 8, width * 8, 1.5, 2][:numbers]])
    return [a.astype(F) for a in (scores, deltas * 0.3, info)]


@pytest.mark.parametrize("numbers", [3, 4])
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


PUBLISHED = (
    """type: "Python" python_param { module: "rpn.proposal_layer" layer: "ProposalLayer" param_str: "%s" }"""
)


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
    ("told", "message"),
    [
        ("'scales': [1]", "feat_stride is missing in param_str"),
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
    told = """python_param { module: "spatial_dropout" layer: "SpatialDropoutLayer" param_str: "{'phase': 'TEST'}" }"""
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


# Whole nets

GAUSS = 'weight_filler { type: "gaussian" std: %g }'


def head(name, bottom, low, high, classes=3, priors=4):
    """What SSD puts on a map: locations, confidences and priors, flat."""
    layers = []
    for what, each in (("loc", 4), ("conf", classes)):
        top, filler = f"{name}_{what}", GAUSS % 0.3
        told = f"num_output: {priors * each} kernel_size: 3 pad: 1 {filler}"
        layers.append(f"""
            layer {{ name: "{top}" type: "Convolution" bottom: "{bottom}" top: "{top}"
                     convolution_param {{ {told} }} }}
            layer {{ name: "{top}_perm" type: "Permute" bottom: "{top}" top: "{top}_perm"
                     permute_param {{ order: 0 order: 2 order: 3 order: 1 }} }}
            layer {{ name: "{top}_flat" type: "Flatten" bottom: "{top}_perm" top: "{top}_flat" }}""")
    told = f"min_size: {low} max_size: {high} aspect_ratio: 2 variance: [0.1, 0.1, 0.2, 0.2]"
    layers.append(f"""
        layer {{ name: "{name}_prior" type: "PriorBox" bottom: "{bottom}" bottom: "data" top: "{name}_prior"
                 prior_box_param {{ {told} }} }}""")
    return "".join(layers)


SSD = f"""
    layer {{ name: "data" type: "Input" top: "data"
             input_param {{ shape {{ dim: 1 dim: 3 dim: 48 dim: 64 }} }} }}
    layer {{ name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
             convolution_param {{ num_output: 8 kernel_size: 3 pad: 1 stride: 4 {GAUSS % 0.01} }} }}
    layer {{ name: "relu1" type: "ReLU6" bottom: "conv1" top: "conv1" }}
    layer {{ name: "dw" type: "DepthwiseConvolution" bottom: "conv1" top: "dw"
             convolution_param {{ num_output: 8 kernel_size: 3 pad: 1 group: 8 {GAUSS % 0.5} }} }}
    layer {{ name: "norm" type: "Normalize" bottom: "dw" top: "norm"
             norm_param {{ across_spatial: false channel_shared: false
                           scale_filler {{ type: "constant" value: 3 }} }} }}
    layer {{ name: "conv2" type: "Convolution" bottom: "dw" top: "conv2"
             convolution_param {{ num_output: 8 kernel_size: 3 pad: 1 stride: 2 {GAUSS % 0.2} }} }}
    {head("a", "norm", 8, 16)}
    {head("b", "conv2", 16, 32)}
    layer {{ name: "loc" type: "Concat" bottom: "a_loc_flat" bottom: "b_loc_flat" top: "loc" }}
    layer {{ name: "conf" type: "Concat" bottom: "a_conf_flat" bottom: "b_conf_flat" top: "conf" }}
    layer {{ name: "prior" type: "Concat" bottom: "a_prior" bottom: "b_prior" top: "prior"
             concat_param {{ axis: 2 }} }}
    layer {{ name: "conf_rows" type: "Reshape" bottom: "conf" top: "conf_rows"
             reshape_param {{ shape {{ dim: 0 dim: -1 dim: 3 }} }} }}
    layer {{ name: "softmax" type: "Softmax" bottom: "conf_rows" top: "softmax" softmax_param {{ axis: 2 }} }}
    layer {{ name: "prob" type: "Flatten" bottom: "softmax" top: "prob" flatten_param {{ axis: 1 }} }}
    layer {{ name: "found" type: "DetectionOutput" bottom: "loc" bottom: "prob" bottom: "prior" top: "found"
             include {{ phase: TEST }}
             detection_output_param {{ num_classes: 3 share_location: true code_type: CENTER_SIZE
                 nms_param {{ nms_threshold: 0.45 top_k: 100 }} keep_top_k: 20 confidence_threshold: 0.2 }} }}
"""


def test_a_whole_ssd(tmp_path) -> None:
    (tmp_path / "ssd.prototxt").write_text(SSD)
    result = convert(tmp_path / "ssd.prototxt", None, tmp_path / "ssd.onnx")
    assert result.inputs == {"data": ["N", 3, 48, 64]}
    assert result.outputs["found"][0:2] == [1, 1]
    net = Net(tmp_path / "ssd.prototxt")
    # The fillers draw anew for every net: run the file's own weights
    from caffe_fcn.formats import caffemodel

    stored = [(n, net.layer_dict[n].type, [b.data for b in blobs]) for n, blobs in net.params.items()]
    caffemodel.write(tmp_path / "ssd.caffemodel", "ssd", stored)
    convert(tmp_path / "ssd.prototxt", tmp_path / "ssd.caffemodel", tmp_path / "ssd.onnx")
    session = Session(tmp_path / "ssd.onnx", "cpu")
    for n in (1, 2):
        image = np.random.default_rng(n).normal(0, 60, (n, 3, 48, 64)).astype(F)
        net.blobs["data"].reshape(*image.shape)
        net.reshape()
        found = net.forward(data=image)["found"]
        assert 1 <= found.shape[2] <= 20 * n
        assert found[0, 0, :, 2].max() > 0.2
        assert_close(session.run({"data": image})["found"], found, "found")


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


PROPOSAL = """type: "Proposal" proposal_param { feat_stride: 8 base_size: 8 min_size: 4 ratio: 1 scale: [1, 2, 4]
                                                post_nms_topn: 12 }"""
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
