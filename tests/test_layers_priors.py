"""PriorBox of TextBoxes and FaceBoxes, told from SSD's by what is predicted."""

from __future__ import annotations

import numpy as np
import pytest

from caffe_fcn.formats.prototxt import read_net
from caffe_fcn.net import Net
from tests.detectors import GAUSS, both
from tests.layer_nets import build, draw, to_session
from tests.reference_cases import assert_close


def test_denser_priors_stand_at_the_lower_edge_of_the_cell_too() -> None:
    """By hand: one cell of 20 x 10 pixels, a square of 4: around (10, 5), then around (10, 10)."""
    net = build(
        'type: "PriorBox" prior_box_param { min_size: 4 denser_prior_boxes: true }',
        (1, 1, 1, 1),
        (1, 1, 10, 20),
    )
    got = both(net, draw(1, 1, 1, 1), draw(1, 1, 10, 20))["top"]
    np.testing.assert_allclose(got[0, 0], [0.4, 0.3, 0.6, 0.7, 0.4, 0.8, 0.6, 1.2], rtol=1e-6)


def heads(told: str, boxes: int, classes: int = 2) -> Net:
    """A map of one cell of 64 x 64 pixels, its PriorBox, and what is predicted for so many boxes."""
    text = f"""
    layer {{ name: "image" type: "Input" top: "image" input_param {{ shape {{ dim: [1, 3, 64, 64] }} }} }}
    layer {{ name: "pool" type: "Pooling" bottom: "image" top: "map"
            pooling_param {{ pool: AVE global_pooling: true }} }}
    layer {{ name: "loc" type: "Convolution" bottom: "map" top: "loc"
            convolution_param {{ kernel_size: 1 num_output: {4 * boxes} {GAUSS % 0.1} }} }}
    layer {{ name: "conf" type: "Convolution" bottom: "map" top: "conf"
            convolution_param {{ kernel_size: 1 num_output: {classes * boxes} {GAUSS % 0.1} }} }}
    layer {{ name: "flat_loc" type: "Flatten" bottom: "loc" top: "flat_loc" }}
    layer {{ name: "flat_conf" type: "Flatten" bottom: "conf" top: "flat_conf" }}
    layer {{ name: "priors" type: "PriorBox" bottom: "map" bottom: "image" top: "priors"
            prior_box_param {{ {told} }} }}
    layer {{ name: "found" type: "DetectionOutput" bottom: "flat_loc" bottom: "flat_conf" bottom: "priors"
            top: "found" detection_output_param {{ num_classes: {classes} code_type: CENTER_SIZE }} }}"""
    return Net(read_net("net", text=text))


def priors_in_pixels(net: Net) -> np.ndarray:
    net.forward(image=draw(1, 3, 64, 64))
    return net.blobs["priors"].data[0, 0].reshape(-1, 4) * 64


def test_priors_of_textboxes_are_told_by_what_is_predicted() -> None:
    net = heads("min_size: 8 aspect_ratio: 4 flip: false", 4)
    assert net.variants == {"TextBoxes' PriorBox, with more boxes than SSD's": 1}
    squares = [28, 28, 36, 36], [28, 60, 36, 68]
    flat = [24, 30, 40, 34], [24, 62, 40, 66]
    np.testing.assert_allclose(priors_in_pixels(net), [*squares, *flat], rtol=1e-6)


def test_priors_of_faceboxes_are_told_by_what_is_predicted() -> None:
    """Squares of a pixel less: 16 of 32 at distances of 8, 4 of 64 at distances of 16, one of 128."""
    net = heads("min_size: 32 min_size: 64 min_size: 128", 21)
    assert net.variants == {"FaceBoxes' PriorBox, with more boxes than SSD's": 1}
    rows = [
        (32 + j * by - r, 32 + i * by - r, 32 + j * by + r, 32 + i * by + r)
        for places, by, r in ((range(-2, 2), 8, 15.5), (range(-1, 1), 16, 31.5), ([0], 0, 63.5))
        for i in places
        for j in places
    ]
    np.testing.assert_allclose(priors_in_pixels(net), rows, rtol=1e-6)
    got = to_session(net).run({"image": net.blobs["image"].data})
    assert_close(got["found"], net.blobs["found"].data, "found")


@pytest.mark.parametrize(
    ("told", "boxes", "classes"), [("min_size: 8", 1, 2), ("min_size: 8 max_size: 9", 2, 8)]
)
def test_priors_of_ssd_are_no_forks(told, boxes, classes) -> None:
    """Of 8 classes the confidences could be taken for the locations of twice as many boxes."""
    assert heads(told, boxes, classes).variants == {}
