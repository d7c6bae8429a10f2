"""Layers of forks that only move elements, each against its loops written out, in NumPy and as ONNX."""

from __future__ import annotations

import numpy as np
import pytest

from caffe_fcn.errors import CaffeWarning, LayerError
from caffe_fcn.net import Net
from tests.fork_layers import MAPS, check
from tests.layer_nets import build, draw, nodes, run, to_session
from tests.reference_cases import assert_close


@pytest.mark.parametrize(
    ("layer", "order"),
    [
        ("Permute permute_param { order: 0 order: 2 order: 3 order: 1 }", (0, 2, 3, 1)),
        ("Permute permute_param { order: 2 }", (2, 0, 1, 3)),
        ("Permute", (0, 1, 2, 3)),
        ("Transpose transpose_param { dim: 3 dim: 1 dim: 0 dim: 2 }", (3, 1, 0, 2)),
    ],
)
def test_axes_in_another_order(layer, order) -> None:
    type_, _, rest = layer.partition(" ")

    def expected(x):
        top = np.empty([x.shape[i] for i in order], np.float32)
        for index in np.ndindex(top.shape):
            top[index] = x[tuple(index[order.index(i)] for i in range(4))]
        return top

    check(f'type: "{type_}" {rest}', (2, 3, 4, 5), expected=expected)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ('type: "Permute" permute_param { order: 4 }', r"order \[4\] names axes that a blob of 4 axes lacks"),
        ('type: "Permute" permute_param { order: 1 order: 1 }', r"order \[1, 1\] names an axis twice"),
        ('type: "Transpose" transpose_param { dim: 1 dim: 0 }', r"dim \[1, 0\] is no order of 4 axes"),
        ('type: "Reverse" reverse_param { axis: 4 }', "axis 4 does not exist in a blob of 4 axes"),
        ('type: "ShuffleChannel" shuffle_channel_param { group: 3 }', "group 3 does not divide channels 8"),
        ('type: "ShuffleChannel"', "group 0 must be positive"),
        ('type: "Reorg" reorg_param { stride: 0 }', "stride 0 must be positive"),
        ('type: "Reorg" reorg_param { stride: 4 }', "stride 4 does not divide the image 6 x 4"),
        (
            'type: "GSTiling" gs_tiling_param { stride: 3 reverse: true }',
            "its square does not divide channels 8",
        ),
        (
            'type: "CropCenter" crop_center_param { crop_size: 1 }',
            r"1 crop_size for the 4 axes of \(2, 8, 6, 4\)",
        ),
        (
            'type: "CropCenter" crop_center_param { crop_size: [0, 0, 1, 2] }',
            "axis 3: crop_size 2 on both ends leaves nothing of 4",
        ),
    ],
)
def test_moves_that_do_not_fit(layer, message) -> None:
    with pytest.raises(LayerError, match=message):
        build(layer, MAPS)


def test_reverse_and_flip() -> None:
    check('type: "Reverse" reverse_param { axis: 1 }', MAPS, expected=lambda x: x[:, ::-1])
    check('type: "Reverse"', (3,), expected=lambda x: x[::-1], others=[(5,)])
    check('type: "Flip"', MAPS, expected=lambda x: x[..., ::-1])
    both = 'type: "Flip" flip_param { flip_height: true }'
    check(both, MAPS, expected=lambda x: x[:, :, ::-1, ::-1])
    check('type: "Flip" flip_param { flip_width: false }', MAPS, expected=lambda x: x)
    with (
        pytest.warns(CaffeWarning, match="unknown field 'axis'"),
        pytest.raises(LayerError, match="of another fork: axis"),
    ):
        build('type: "Flip" flip_param { axis: 2 }', MAPS)


@pytest.mark.parametrize("group", [1, 2, 4, 8])
def test_shuffle_channel(group) -> None:
    def expected(x):
        top, each = np.empty_like(x), x.shape[1] // group
        for i, j in np.ndindex(group, each):
            top[:, j * group + i] = x[:, i * each + j]
        return top

    layer = f'type: "ShuffleChannel" shuffle_channel_param {{ group: {group} }}'
    check(layer, MAPS, expected=expected)
    assert nodes(build(layer, MAPS)) == ["Gather"]


def reorg(x, stride, reverse):
    """The loops of reorg_layer.hpp, on flat memory."""
    n, c, h, w = x.shape
    top_c, flat, top = c // stride**2, x.reshape(-1), np.empty(x.size, np.float32)
    for b, k, j, i in np.ndindex(n, c, h, w):
        one = i + w * (j + h * (k + c * b))
        offset, c2 = divmod(k, top_c)
        w2, h2 = i * stride + offset % stride, j * stride + offset // stride
        other = w2 + w * stride * (h2 + h * stride * (c2 + top_c * b))
        if reverse:
            top[other] = flat[one]
        else:
            top[one] = flat[other]
    if reverse:
        return top.reshape(n, top_c, h * stride, w * stride)
    return top.reshape(n, c * stride**2, h // stride, w // stride)


def tiling(x, stride, reverse):
    """The loops of gs_tiling_layer.cpp."""
    n, c, h, w = x.shape
    out = (c // stride**2, h * stride, w * stride) if reverse else (c * stride**2, h // stride, w // stride)
    top = np.empty((n, *out), np.float32)
    for k, y, z in np.ndindex(c, h, w):
        if reverse:
            off, k2 = divmod(k, out[0])
            at = (k2, y * stride + off // stride, z * stride + off % stride)
        else:
            at = ((y % stride * stride + z % stride) * c + k, y // stride, z // stride)
        top[(slice(None), *at)] = x[:, k, y, z]
    return top


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    ("type_", "field", "loops"), [("Reorg", "reorg", reorg), ("GSTiling", "gs_tiling", tiling)]
)
def test_blocks_against_channels(type_, field, loops, reverse) -> None:
    layer = f'type: "{type_}" {field}_param {{ stride: 2 reverse: {str(reverse).lower()} }}'
    check(layer, MAPS, expected=lambda x: loops(x, 2, reverse))


def test_reorg_is_by_two_unless_told() -> None:
    x = draw(1, 4, 4, 6)
    told = build('type: "Reorg" reorg_param { stride: 2 }', x.shape)
    np.testing.assert_array_equal(run(build('type: "Reorg"', x.shape), x), run(told, x))


def test_auto_crop_of_rcf() -> None:
    """Upsampled by 4, kernel 8, pad 0, after a pool by 4: begins at (8 - 4) / 2 = 2."""
    text = """
    layer { name: "a" type: "Input" top: "a" input_param { shape { dim: 1 dim: 1 dim: 16 dim: 20 } } }
    layer { name: "p" type: "Pooling" bottom: "a" top: "p" pooling_param { kernel_size: 4 stride: 4 } }
    layer { name: "u" type: "Deconvolution" bottom: "p" top: "u" convolution_param { num_output: 1
            kernel_size: 8 stride: 4 bias_term: false weight_filler { type: "bilinear" } } }
    layer { name: "c" type: "AutoCrop" bottom: "u" bottom: "a" top: "top" }"""
    net, x = Net(text), draw(1, 1, 16, 20)
    net.forward(a=x)
    np.testing.assert_array_equal(net.blobs["top"].data, net.blobs["u"].data[:, :, 2:18, 2:22])
    assert_close(to_session(net).run({"a": x})["top"], net.blobs["top"].data, "top")


def test_crop_center() -> None:
    layer = 'type: "CropCenter" crop_center_param { crop_size: [0, 1, 2, 1] }'
    check(layer, MAPS, expected=lambda x: x[:, 1:-1, 2:-2, 1:-1])
    assert nodes(build('type: "CropCenter" crop_center_param { crop_size: [0, 0, 0, 0] }', MAPS)) == [
        "Identity"
    ]
    maps = build(layer, MAPS).layer_dict["layer"].coord_map()
    assert [m.shift for m in maps.maps] == [-2, -1]
