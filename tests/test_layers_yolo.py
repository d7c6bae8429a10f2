"""What YOLO nets found, against loops written after those of MobileNet-YOLO."""

from __future__ import annotations

import math

import numpy as np
import pytest

from caffe_fcn.errors import LayerError
from tests.detectors import F, both
from tests.layer_nets import build, draw, to_session
from tests.reference_cases import assert_close

SECOND = """type: "YoloDetectionOutput" yolo_detection_output_param { num_classes: 3 num_box: 2 %s
            biases: [0.5, 0.7, 1.9, 1.2] }"""
THIRD = """type: "Yolov3DetectionOutput" yolov3_detection_output_param { num_classes: 3 num_box: 2 %s
           biases: [10, 14, 23, 27, 37, 58, 81, 82] anchors_scale: 32 anchors_scale: 16
           mask_group_num: 2 mask: [2, 3, 0, 1] }"""


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def second(p, *bottoms):
    """x, y, w, h, class, confidence of what is likely."""
    for x in bottoms:
        side = x.shape[3]
        for b, j, i, n in np.ndindex(x.shape[0], side, side, p.num_box):
            of = x[b, n * (5 + p.num_classes) :, j, i]
            e = [math.exp(c - max(of[5 : 5 + p.num_classes])) for c in of[5 : 5 + p.num_classes]]
            label = int(np.argmax(e))
            confidence = sigmoid(of[4]) * e[label] / sum(e)
            if confidence >= p.confidence_threshold:
                w, h = (math.exp(of[2 + k]) * p.biases[2 * n + k] / side for k in (0, 1))
                yield (i + sigmoid(of[0])) / side, (j + sigmoid(of[1])) / side, w, h, label, confidence


def third(p, *bottoms):
    masks = len(p.mask) // p.mask_group_num
    for t, x in enumerate(bottoms):
        height, width = x.shape[2:]
        for b, j, i, n in np.ndindex(x.shape[0], height, width, p.num_box):
            of = x[b, n * (5 + p.num_classes) :, j, i]
            for label in range(p.num_classes):
                confidence = sigmoid(of[5 + label]) * sigmoid(of[4])
                if confidence > p.confidence_threshold:
                    m = p.mask[n + t * masks]
                    w = math.exp(of[2]) * p.biases[2 * m] / (width * p.anchors_scale[t])
                    h = math.exp(of[3]) * p.biases[2 * m + 1] / (height * p.anchors_scale[t])
                    yield (i + sigmoid(of[0])) / width, (j + sigmoid(of[1])) / height, w, h, label, confidence


def shared(a, b):
    """box_iou."""
    sides = [
        min(a[k] + a[k + 2] / 2, b[k] + b[k + 2] / 2) - max(a[k] - a[k + 2] / 2, b[k] - b[k + 2] / 2)
        for k in (0, 1)
    ]
    common = 0 if min(sides) < 0 else sides[0] * sides[1]
    return common / (a[2] * a[3] + b[2] * b[3] - common)


def rows(p, found, items):
    found, kept = sorted(found, key=lambda box: -box[5]), []
    for box in found:
        if all(shared(box, other) < p.nms_threshold for other in kept):
            kept.append(box)
    made = [(0, k + 1, c, x - w / 2, y - h / 2, x + w / 2, y + h / 2) for x, y, w, h, k, c in kept]
    return np.array(made or [(i, *[-1] * 6) for i in range(items)], F).reshape(1, 1, -1, 7)


@pytest.mark.parametrize("told", ["", "confidence_threshold: 0.4 nms_threshold: 0.2", "nms_threshold: 0.9"])
@pytest.mark.parametrize(
    ("text", "loops", "shapes"),
    [
        (SECOND, second, [(2, 16, 3, 3)]),
        (SECOND, second, [(1, 16, 3, 3), (1, 16, 5, 5)]),
        (THIRD, third, [(2, 16, 2, 3), (2, 16, 4, 6)]),
    ],
)
def test_detections(text, loops, shapes, told) -> None:
    net = build(text % told, *shapes)
    layer = net.layer_dict["layer"]
    p = getattr(
        layer.param, "yolo_detection_output_param" if loops is second else "yolov3_detection_output_param"
    )
    session = to_session(net)
    for seed in range(3):
        arrays = [draw(*shape, seed=seed + 10 * i) * F(0.7) for i, shape in enumerate(shapes)]
        got = both(net, *arrays, session=session)["top"]
        expected = rows(p, loops(p, *arrays), shapes[0][0])
        assert len(expected[0, 0]) > 2 or "0.4" in told
        assert_close(got, expected, "top")


@pytest.mark.parametrize("text", [SECOND, THIRD])
def test_nothing_found_is_a_row_for_each_item(text) -> None:
    shapes = [(2, 16, 3, 3), (2, 16, 2, 2)]
    net = build(text % "confidence_threshold: 0.99", *shapes)
    got = both(net, *(np.full(shape, -4, F) for shape in shapes))["top"]
    np.testing.assert_array_equal(got, [[[[0, *[-1] * 6], [1, *[-1] * 6]]]])


def test_of_equal_boxes_one_is_left() -> None:
    """An overlap of just the threshold is too much, unlike in SSD."""
    x = np.zeros((1, 16, 1, 1), F)
    x[0, [5, 13]] = 3  # both boxes are likeliest of class 0
    text = (SECOND % "nms_threshold: 1").replace("[0.5, 0.7, 1.9, 1.2]", "[1, 1, 1, 1]")
    got = both(build(text, x.shape), x)["top"]
    np.testing.assert_allclose(got[0, 0, :, [1, 3, 4, 5, 6]].ravel(), [1, 0, 0, 1, 1], atol=1e-6)


@pytest.mark.parametrize(
    ("text", "shapes", "message"),
    [
        (SECOND % "", [(1, 15, 3, 3)], r"'a' is \(1, 15, 3, 3\): 2 boxes of 3 classes need \(N, 16, H, W\)"),
        (SECOND % "", [(1, 16, 3, 4)], "takes squares only"),
        (SECOND.replace(", 1.2]", "]") % "", [(1, 16, 3, 3)], "3 biases for num_box 2, which needs 4"),
        (SECOND % "nms_threshold: 0", [(1, 16, 3, 3)], "nms_threshold 0.0 must be positive"),
        (THIRD % "", [(1, 16, 3, 3)], "mask_group_num 2, bottoms: 1"),
        (THIRD % "", [(1, 16, 3, 3), (2, 16, 3, 3)], r"'b' is \(2, 16, 3, 3\), 'a' is .* differ in N"),
        (THIRD.replace("2, 3, 0", "2, 4, 0") % "", [(1, 16, 2, 2)] * 2, "names more than 4 pairs of biases"),
        (THIRD.replace("[2, 3, 0, 1]", "[2]") % "", [(1, 16, 2, 2)] * 2, "1 mask for 2 bottoms of num_box 2"),
        (
            THIRD.replace("scale: 16", "scale: 0") % "",
            [(1, 16, 2, 2)] * 2,
            r"anchors_scale \[32, 0\] must be",
        ),
        (THIRD % "gaussian_box: true", [(1, 16, 2, 2)] * 2, "gaussian_box is not known here"),
    ],
)
def test_what_does_not_fit(text, shapes, message) -> None:
    with pytest.raises(LayerError, match=message):
        build(text, *shapes)
