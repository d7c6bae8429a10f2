"""SSD's layers, against the loops of its own files, and a whole SSD."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caffe_fcn.conversion import convert
from caffe_fcn.errors import CaffeWarning, LayerError, UnsupportedError
from caffe_fcn.export.exporter import export
from caffe_fcn.formats import caffemodel
from caffe_fcn.net import Net
from caffe_fcn.numeric import boxes
from caffe_fcn.runtime import Session
from tests.detectors import GAUSS, F, both, jaccard
from tests.layer_nets import NAMES, build, draw, to_session
from tests.reference_cases import assert_close

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
            levels = [y, (h + 1) * step_h] if p.denser_prior_boxes else [y]
            rows += [
                ((x - a / 2) / img_w, (at - b / 2) / img_h, (x + a / 2) / img_w, (at + b / 2) / img_h)
                for a, b in sizes
                for at in levels
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
        "min_size: 5 max_size: 9 aspect_ratio: [3, 5] flip: false denser_prior_boxes: true step: 8",
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
        ("min_size: 0", r"min_size \[0.0\] must be positive and finite"),
        ("min_size: inf", r"min_size \[inf\] must be positive and finite"),
        ("min_size: 3 aspect_ratio: nan", r"aspect_ratio \[nan\] must be positive and finite"),
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
        "code_type: CENTER_SIZE nms_param { top_k: 4 } keep_top_k: 5 confidence_threshold: 0.3",
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
        ("num_classes: 2", [(1, 84), (1, 42), (1, 2, 16)], "4 priors need 16\n.*stop before it: --output"),
        (
            "num_classes: 2 use_polygon: true",
            [(1, 48), (1, 8), (1, 2, 16)],
            "use_polygon of TextBoxes.. is not known here\n.*stop before it: --output",
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


# A whole net


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
    # The fillers draw anew for every net
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
