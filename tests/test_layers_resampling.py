"""Layers that make maps larger or smaller, each against the loops of its .cpp, in NumPy and as ONNX."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caffe_fcn.errors import CaffeWarning, LayerError
from caffe_fcn.formats.prototxt import read_net
from caffe_fcn.net import TEST, Net
from caffe_fcn.numeric import resize
from tests.fork_layers import MAPS, check
from tests.layer_nets import build, draw, run, to_session


def interp(x, height, width):
    """The loops of interp.cpp."""
    n, c, h1, w1 = x.shape
    top = np.empty((n, c, height, width), np.float32)
    rh, rw = ((a - 1) / (b - 1) if b > 1 else 0 for a, b in ((h1, height), (w1, width)))
    for i, j in np.ndindex(height, width):
        y, z = np.float32(rh) * np.float32(i), np.float32(rw) * np.float32(j)
        a, b = int(y), int(z)
        down, right = int(a < h1 - 1), int(b < w1 - 1)
        v, u = y - a, z - b
        upper = (1 - u) * x[:, :, a, b] + u * x[:, :, a, b + right]
        lower = (1 - u) * x[:, :, a + down, b] + u * x[:, :, a + down, b + right]
        top[:, :, i, j] = (1 - v) * upper + v * lower
    return top


@pytest.mark.parametrize("opset", [17, 20])
@pytest.mark.parametrize(
    ("told", "size"),
    [
        ("zoom_factor: 3", lambda h, w: (3 * h - 2, 3 * w - 2)),
        ("shrink_factor: 2", lambda h, w: ((h - 1) // 2 + 1, (w - 1) // 2 + 1)),
        ("shrink_factor: 3 zoom_factor: 2", lambda h, w: ((h - 1) // 3 * 2 + 1, (w - 1) // 3 * 2 + 1)),
        ("height: 9 width: 1", lambda h, w: (9, 1)),
        ("height: 9 width: 5 zoom_factor: 2", lambda h, w: (2 * h - 1, 2 * w - 1)),
        ("height: 9 width: 5 zoom_factor: 2 shrink_factor: 2", lambda h, w: (9, 5)),
    ],
)
def test_interp(told, size, opset) -> None:
    layer = f'type: "Interp" interp_param {{ {told} }}'
    check(layer, MAPS, opset=opset, expected=lambda x: interp(x, *size(*x.shape[2:])))


def test_interp_crops_and_takes_another_blobs_size() -> None:
    layer = 'type: "Interp" interp_param { zoom_factor: 2 pad_beg: -1 pad_end: -2 }'
    check(
        layer,
        (2, 3, 7, 8),
        expected=lambda x: interp(x[:, :, 1:-2, 1:-2], *(2 * (n - 3) - 1 for n in x.shape[2:])),
    )
    check('type: "Interp"', MAPS, (1, 3, 11, 13), expected=lambda x, y: interp(x, *y.shape[2:]))
    (zoom,) = build(layer, (2, 3, 7, 8)).layer_dict["layer"].coord_map().maps
    assert (zoom.scale, zoom.shift) == (2, -2)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ('type: "Interp"', "the size of its top is missing"),
        ('type: "Interp" interp_param { height: 3 }', "the size of its top is missing"),
        ('type: "Interp" interp_param { zoom_factor: 0 }', "zoom_factor 0 must be at least 1"),
        ('type: "Interp" interp_param { zoom_factor: 2 pad_beg: 1 }', "pad_beg 1 must not be positive"),
        (
            'type: "Interp" interp_param { zoom_factor: 2 pad_beg: -4 }',
            "pad_beg -4 and pad_end 0 leave nothing",
        ),
        ('type: "Resize" resize_param { height: 3 }', "width is missing"),
        (
            'type: "Resize" resize_param { is_pyramid_test: true height: 3 width: 3 }',
            "out_height_scale is missing",
        ),
        ('type: "DeephiResize" deephi_resize_param { use_dpu: true }', "arithmetic on bytes of a DPU"),
        ('type: "DeephiResize" deephi_resize_param { scale_h: 2 }', "one of scale_h and scale_w is missing"),
        ('type: "Upsample" upsample_param { scale: 0 }', "scale 0 must be positive"),
        ('type: "Upsample" upsample_param { scale_h: 2 }', "one of scale_h and scale_w is missing"),
        (
            'type: "Upsample" upsample_param { upsample_h: 2 upsample_w: 2 }',
            "go with a mask, the second bottom",
        ),
    ],
)
def test_resampling_that_is_not_told_how(layer, message) -> None:
    with pytest.raises(LayerError, match=message):
        build(layer, MAPS)


def test_parameters_of_another_fork_are_refused() -> None:
    for layer in ("Resize resize_param { factor: 2 }", "Interp interp_param { interp_ratio: 2 }"):
        type_, _, rest = layer.partition(" ")
        with (
            pytest.warns(CaffeWarning),
            pytest.raises(LayerError, match="of another fork: "),
        ):
            build(f'type: "{type_}" {rest}', MAPS)


def cornered(x, height, width):
    """The loops of BiLinearResizeMat_cpu in util_img.cpp."""
    n, c, h, w = x.shape
    top = np.empty((n, c, height, width), np.float32)
    for i, j in np.ndindex(height, width):
        y, z = (
            np.float32(i) * (np.float32(h) / np.float32(height)),
            np.float32(j) * (np.float32(w) / np.float32(width)),
        )
        a, b = int(y), int(z)
        v, u = y - a, z - b
        value = (1 - v) * (1 - u) * x[:, :, a, b]
        if b + 1 < w:
            value = value + (1 - v) * u * x[:, :, a, b + 1]
        if a + 1 < h:
            value = value + v * (1 - u) * x[:, :, a + 1, b]
        if a + 1 < h and b + 1 < w:
            value = value + v * u * x[:, :, a + 1, b + 1]
        top[:, :, i, j] = value
    return top


def test_resize_of_caffe_windows() -> None:
    layer = 'type: "Resize" resize_param { height: 11 width: 3 }'
    check(layer, MAPS, expected=lambda x: cornered(x, 11, 3), others=[(3, *MAPS[1:])])
    layer = 'type: "Resize" resize_param { is_pyramid_test: true out_height_scale: 1.7 out_width_scale: 0.5 }'
    check(layer, MAPS, expected=lambda x: cornered(x, 10, 2), others=[(3, *MAPS[1:])])


def centred(x, height, width):
    """cv::resize with INTER_LINEAR."""
    top = np.empty((*x.shape[:2], height, width), np.float32)
    for i, j in np.ndindex(height, width):
        at = []
        for k, out, size in ((i, height, x.shape[2]), (j, width, x.shape[3])):
            place = (k + 0.5) * size / out - 0.5
            low = int(np.floor(place))
            at.append((min(max(low, 0), size - 1), min(max(low + 1, 0), size - 1), place - low))
        (a, b, v), (c, d, u) = at
        upper = (1 - u) * x[:, :, a, c] + u * x[:, :, a, d]
        top[:, :, i, j] = (1 - v) * upper + v * ((1 - u) * x[:, :, b, c] + u * x[:, :, b, d])
    return top


def test_resize_of_caffe_xilinx() -> None:
    linear = 'type: "DeephiResize" deephi_resize_param { resize_type: BILINEAR scale_h: 2.5 scale_w: 0.5 }'
    check(linear, MAPS, expected=lambda x: centred(x, x.shape[2] * 5 // 2, x.shape[3] // 2))
    sized = 'type: "DeephiResize" deephi_resize_param { resize_type: BILINEAR new_height: 7 new_width: 9 }'
    check(sized, MAPS, expected=lambda x: centred(x, 7, 9))
    nearest = 'type: "DeephiResize" deephi_resize_param { scale_h: 2 scale_w: 3 }'
    check(nearest, MAPS, expected=lambda x: x.repeat(2, 2).repeat(3, 3))
    uneven = 'type: "DeephiResize" deephi_resize_param { new_height: 9 new_width: 3 }'
    rows, columns = [i * 6 // 9 for i in range(9)], [j * 4 // 3 for j in range(3)]
    check(uneven, MAPS, expected=lambda x: x[:, :, rows][..., columns], others=[(3, *MAPS[1:])])


@given(st.integers(1, 40), st.integers(1, 40))
@settings(max_examples=200)
def test_taps_lie_inside_and_weigh_one(size, out) -> None:
    for taps in (resize.aligned(size, out), resize.centred(size, out)):
        assert taps.first.min() >= 0
        assert max(taps.first.max(), taps.second.max()) < size
        np.testing.assert_allclose(taps.weight_first + taps.weight_second, 1, rtol=1e-6)
    taps = resize.cornered(size, out)
    x = np.random.default_rng(0).standard_normal((1, 1, size, 1)).astype(np.float32)
    by_taps = resize.linear(x, out, 1, resize.cornered)
    np.testing.assert_allclose(resize.matrix(taps, size) @ x, by_taps, atol=1e-5)


def unpool(x, mask, height, width):
    """The loops of upsample_layer.cpp of SegNet."""
    top = np.zeros((*x.shape[:2], height * width), np.float32)
    for n, c, i, j in np.ndindex(x.shape):
        top[n, c, int(mask[n, c, i, j])] = x[n, c, i, j]
    return top.reshape(*x.shape[:2], height, width)


def segnet(told: str = "", size=(2, 3, 6, 8)):
    shape = " ".join(f"dim: {n}" for n in size)
    text = f"""
        layer {{ name: "a" type: "Input" top: "a" input_param {{ shape {{ {shape} }} }} }}
        layer {{ name: "pool" type: "Pooling" bottom: "a" top: "pool" top: "mask"
                 pooling_param {{ pool: MAX kernel_size: 2 stride: 2 }} }}
        layer {{ name: "layer" type: "Upsample" bottom: "pool" bottom: "mask" top: "top" {told} }}"""
    return Net(read_net("net", text=text), TEST)


@pytest.mark.parametrize(
    ("told", "crop"),
    [
        ("", (0, 0)),
        ("upsample_param { scale: 2 pad_out_h: true }", (1, 0)),
        ("upsample_param { scale_h: 2 scale_w: 2 pad_out_w: true }", (0, 1)),
    ],
)
def test_upsample_by_a_mask(told, crop) -> None:
    net = segnet(told, (2, 3, 6 - crop[0], 8 - crop[1]))
    assert net.layer_dict["layer"].variant == "SegNet's Upsample, by a mask"
    session = to_session(net)
    for h, w in ((6, 8), (10, 4)):
        x = draw(2, 3, h - crop[0], w - crop[1])
        top = run(net, x, session=session)
        np.testing.assert_array_equal(
            top, unpool(net.blobs["pool"].data, net.blobs["mask"].data, *x.shape[2:])
        )


def test_upsample_to_a_size_given() -> None:
    net = segnet("upsample_param { scale: 2 upsample_h: 5 upsample_w: 7 }", (2, 3, 5, 7))
    x = draw(2, 3, 5, 7)
    np.testing.assert_array_equal(run(net, x), unpool(net.blobs["pool"].data, net.blobs["mask"].data, 5, 7))
    small = build(
        'type: "Upsample" upsample_param { upsample_h: 3 upsample_w: 2 }', (1, 1, 2, 2), (1, 1, 2, 2)
    )
    with pytest.raises(LayerError, match=r"position \[7\.?\] of its mask lies outside of 3 x 2"):
        small.forward(a=draw(1, 1, 2, 2), b=np.array([[[[0, 1], [2, 7]]]], np.float32))
    with pytest.raises(LayerError, match=r"'a' is \(1, 1, 2, 2\), 'b' is \(1, 1, 2, 3\)"):
        build('type: "Upsample"', (1, 1, 2, 2), (1, 1, 2, 3))


def test_upsample_that_repeats() -> None:
    layer = 'type: "Upsample" upsample_param { scale: 3 }'
    check(layer, MAPS, expected=lambda x: np.kron(x, np.ones((3, 3), np.float32)))
    assert build(layer, MAPS).layer_dict["layer"].variant == "YOLO's Upsample, which repeats elements"
    check('type: "Upsample"', MAPS, expected=lambda x: x)
