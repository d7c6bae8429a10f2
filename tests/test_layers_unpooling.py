"""Unpooling of DeconvNet, against the loops of its .cpp."""

from __future__ import annotations

import numpy as np
import pytest

from caffe_fcn.errors import LayerError
from caffe_fcn.net import Net
from tests.layer_nets import build, draw, run
from tests.reference_cases import assert_close

MASKED = """
input: "a" input_dim: 2 input_dim: 3 input_dim: 6 input_dim: 4
layer { name: "pool" type: "Pooling" bottom: "a" top: "pool" top: "mask"
  pooling_param { kernel_size: 2 stride: 2 } }
layer { name: "double" type: "Power" bottom: "pool" top: "double" power_param { scale: 2 } }
layer { name: "up" type: "Unpooling" bottom: "double" bottom: "mask" top: "up"
  unpooling_param { unpool: MAX kernel_size: 2 stride: 2 unpool_h: 6 unpool_w: 4 } }
"""


def test_maxima_go_back_where_they_stood():
    x = draw(2, 3, 6, 4)
    got = run(Net(MASKED), x)
    assert np.count_nonzero(got) == 2 * 3 * 3 * 2
    blocks = x.reshape(2, 3, 3, 2, 2, 2)
    greatest = blocks == blocks.max((3, 5), keepdims=True)
    assert_close(got, np.where(greatest, 2 * blocks, 0).reshape(x.shape), "up")


@pytest.mark.parametrize(
    ("setting", "height", "width"),
    [
        ("kernel_size: 2 stride: 2", 7, 11),
        ("kernel_size: 4 stride: 2", 8, 12),
        ("kernel_size: 2 unpool_size: 6", 6, 6),
    ],
)
def test_without_a_mask_each_goes_to_the_first_of_its_window(setting, height, width):
    stride = 2 if "stride" in setting else 1
    x = draw(2, 3, 3, 5)
    wanted = np.zeros((2, 3, height, width), np.float32)
    for h in range(3):
        for w in range(5):
            wanted[:, :, min(h * stride, height - 1), min(w * stride, width - 1)] = x[:, :, h, w]
    got = run(build(f'type: "Unpooling" unpooling_param {{ {setting} }}', x.shape), x)
    assert_close(got, wanted, setting)


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ("kernel_size: 2 unpool: TILE", "only unpool: MAX"),
        ("kernel_size: 2 pad: 1", "a pad is not allowed"),
        ("kernel_size: 2 unpool_h: 4", "unpool_h or unpool_w is missing"),
        ("stride: 2", r"kernel \(0, 0\) and stride \(2, 2\) must be positive"),
    ],
)
def test_what_it_refuses(setting, problem):
    with pytest.raises(LayerError, match=problem):
        build(f'type: "Unpooling" unpooling_param {{ {setting} }}', (1, 1, 2, 2))


def test_a_position_outside_is_refused():
    net = build(
        'type: "Unpooling" unpooling_param { kernel_size: 2 unpool_size: 2 }', (1, 1, 1, 1), (1, 1, 1, 1)
    )
    with pytest.raises(LayerError, match=r"position \[4.\] of its mask lies outside of 2 x 2"):
        net.forward(a=np.ones((1, 1, 1, 1)), b=np.full((1, 1, 1, 1), 4))
