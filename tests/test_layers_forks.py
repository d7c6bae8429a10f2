"""Layers of forks, each against the loops of its .cpp written out, in NumPy and as ONNX, at two sizes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caffe_fcn.errors import CaffeWarning, LayerError
from caffe_fcn.export.exporter import export
from caffe_fcn.formats.caffemodel import StoredBlob, StoredLayer
from caffe_fcn.formats.prototxt import read_net
from caffe_fcn.net import TEST, TRAIN, Net
from caffe_fcn.numeric import resize
from tests.layer_nets import build, draw, nodes, run, to_session

MAPS = (2, 8, 6, 4)


def grown(shape):
    """Another size: the batch, and H and W where the channels are not touched."""
    return (shape[0] + 1, shape[1], *(n + 2 for n in shape[2:]))


def check(layer: str, *shapes, expected, fill=None, top="top", others=None, opset=17):
    """The values of `expected` at the shapes of the net, and from the same file at other ones."""
    net = build(layer, *shapes, top=top)
    for i, blob in enumerate(net.params.get("layer", [])):
        blob.data[...] = fill[i] if fill else np.random.default_rng(i).uniform(0.5, 2, blob.shape)
    session = to_session(net, opset)
    for sizes in (shapes, others or [grown(s) for s in shapes]):
        arrays = [draw(*s, seed=i) for i, s in enumerate(sizes)]
        got = run(net, *arrays, session=session)
        np.testing.assert_allclose(
            got, expected(*arrays, *map(np.array, net.layer_dict["layer"].weights)), 2e-5, 2e-6
        )


@pytest.mark.parametrize("opset", [17, 20])
@pytest.mark.parametrize("slope", [0, 0.1])
def test_relu6(slope, opset) -> None:
    layer = f'type: "ReLU6" relu6_param {{ negative_slope: {slope} }}'
    check(
        layer, MAPS, opset=opset, expected=lambda x: np.minimum(6, np.where(x > 0, x, np.float32(slope) * x))
    )


@pytest.mark.parametrize("type_", ["Noise", "SpatialDropout"])
def test_noise_is_for_training_only(type_) -> None:
    check(f'type: "{type_}"', MAPS, expected=lambda x: x)
    with pytest.raises(LayerError, match="random in phase TRAIN"):
        build(f'type: "{type_}"', MAPS, phase=TRAIN)


@pytest.mark.parametrize("factors", [(2, 8), (2, 8, 1, 1)])
def test_axpy(factors) -> None:
    def expected(a, x, y):
        top = y.copy()
        for n, c in np.ndindex(x.shape[:2]):
            top[n, c] += a[n, c].reshape(()) * x[n, c]
        return top

    others = [(3, 8, *factors[2:]), (3, 8, 5, 7), (3, 8, 5, 7)]
    check('type: "Axpy"', factors, MAPS, MAPS, expected=expected, others=others)


def test_axpy_shapes() -> None:
    with pytest.raises(LayerError, match=r"'a' is \(2, 7\), 'b' is \(2, 8, 6, 4\): they differ in N or C"):
        build('type: "Axpy"', (2, 7), MAPS, MAPS)
    with pytest.raises(LayerError, match="not one for each channel"):
        build('type: "Axpy"', MAPS, MAPS, MAPS)
    with pytest.raises(LayerError, match=r"'b' is \(2, 8, 6, 4\), 'c' is \(2, 8, 6, 5\): they differ"):
        build('type: "Axpy"', (2, 8), MAPS, (2, 8, 6, 5))


# Only moving


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
        ('type: "Reorg"', "stride 0 must be positive"),
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


def test_crop_center() -> None:
    layer = 'type: "CropCenter" crop_center_param { crop_size: [0, 1, 2, 1] }'
    check(layer, MAPS, expected=lambda x: x[:, 1:-1, 2:-2, 1:-1])
    assert nodes(build('type: "CropCenter" crop_center_param { crop_size: [0, 0, 0, 0] }', MAPS)) == [
        "Identity"
    ]
    maps = build(layer, MAPS).layer_dict["layer"].coord_map()
    assert [m.shift for m in maps.maps] == [-2, -1]


# Normalizing


def stored(*arrays) -> list[StoredLayer]:
    return [StoredLayer("layer", "", [StoredBlob(a, False) for a in arrays])]


@pytest.mark.parametrize(
    ("settings_", "names", "statistics"),
    [
        ("bn_param { bn_mode: INFERENCE }", "SegNet's BN", ""),
        ("bn_param { bn_mode: LEARN }", "SegNet's BN", "batch"),
        ("", "SegNet's BN", "batch"),
        ("bn_param { frozen: true }", "PSPNet's BN", "stored"),
        ("bn_param { slope_filler { value: 1 } eps: 0.01 engine: CUDNN }", "PSPNet's BN", "stored"),
        ("param {} param {} param {} param {}", "PSPNet's BN", "stored"),
    ],
)
def test_bn(settings_, names, statistics) -> None:
    layer = f'type: "BN" {settings_}'
    net = build(layer, MAPS)
    assert net.layer_dict["layer"].variant == names
    eps = 1e-9 if names[0] == "S" else net.layer_dict["layer"].param.bn_param.eps

    def expected(x, scale, shift, *moving):
        top = np.empty_like(x)
        for c in range(x.shape[1]):
            plane = x[:, c].astype(np.float64)
            if statistics == "batch":
                moving = ({c: plane.mean()}, {c: (plane**2).mean() - plane.mean() ** 2})
            if statistics:
                mean, variance = (
                    np.asarray(m[c]).reshape(()) if isinstance(m, dict) else m[0, c, 0, 0] for m in moving
                )
                plane = (plane - mean) / np.sqrt(variance + eps)
            top[:, c] = plane * scale[0, c, 0, 0] + shift[0, c, 0, 0]
        return top

    check(layer, MAPS, expected=expected)


def test_the_weights_file_says_whose_bn_it_is() -> None:
    arrays = [np.full((1, 8, 1, 1), v, np.float32) for v in (2, 3, 4, 9)]
    net = build('type: "BN"', MAPS)
    net.copy_from(stored(*arrays))
    assert net.layer_dict["layer"].variant == "PSPNet's BN"
    x = draw(*MAPS)
    np.testing.assert_allclose(run(net, x), (x - 4) / np.sqrt(9 + 1e-5) * 2 + 3, rtol=1e-5, atol=1e-5)
    net = build('type: "BN" bn_param { frozen: true }', MAPS)
    net.copy_from(stored(*arrays[:2]))
    assert net.layer_dict["layer"].variant == "SegNet's BN"


def test_bn_of_two_forks_at_once() -> None:
    with pytest.raises(LayerError, match="bn_param has SegNet's bn_mode and PSPNet's eps"):
        build('type: "BN" bn_param { bn_mode: LEARN eps: 1e-3 }', MAPS)
    net = build('type: "BN"', MAPS)
    with pytest.raises(LayerError, match=r"a scale of each of 8 channels, its bottom is \(2, 7, 6, 4\)"):
        net.infer({"a": (2, 7, 6, 4)})


@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("shared", [False, True])
def test_normalize_of_ssd(across, shared) -> None:
    told = f"across_spatial: {str(across).lower()} channel_shared: {str(shared).lower()} eps: 0.5"

    def expected(x, scale):
        top = np.empty_like(x)
        for n in range(len(x)):
            squares = x[n] ** 2
            norm = np.sqrt(squares.sum() + 0.5) if across else np.sqrt(squares.sum(0) + 0.5)
            for c in range(x.shape[1]):
                top[n, c] = x[n, c] / norm * scale.reshape(-1)[0 if shared else c]
        return top

    check(f'type: "Normalize" norm_param {{ {told} }}', MAPS, expected=expected)
    check(f'type: "Normalize" norm_param {{ {told} }}', (2, 8), expected=expected)


@pytest.mark.parametrize("kind", ["L1", "L2"])
def test_normalize_of_caffe_windows(kind) -> None:
    layer = f'type: "Normalize" normalize_param {{ normalize_type: "{kind}" }}'
    net = build(layer, MAPS, top='top" top: "norm')
    assert not net.layer_dict["layer"].blobs
    assert net.layer_dict["layer"].variant == "caffe-windows' Normalize"
    x = draw(*MAPS)
    got = run(net, x)
    norm = np.abs(x).sum(1) + 1e-6 if kind == "L1" else np.sqrt((x * x).sum(1) + 1e-6)
    np.testing.assert_allclose(got["norm"], norm[:, None], rtol=1e-5)
    np.testing.assert_allclose(got["top"], x / norm[:, None], rtol=1e-5)
    with pytest.raises(LayerError, match="has norm_param, which is SSD's, and normalize_param"):
        build('type: "Normalize" norm_param {} normalize_param {}', MAPS)
    with pytest.raises(LayerError, match='normalize_type "L3" is neither'):
        build('type: "Normalize" normalize_param { normalize_type: "L3" }', MAPS)


# Resampling


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
    assert build(layer, MAPS).layer_dict["layer"].variant == "the Upsample that repeats elements"
    check('type: "Upsample"', MAPS, expected=lambda x: x)


# Convolutions and pooling under other names


@pytest.mark.parametrize(
    ("type_", "told"),
    [
        ("DepthwiseConvolution", "num_output: 8 group: 8"),
        ("DepthwiseConvolution", "num_output: 16"),
        ("DepthwiseConvolution", "num_output: 4 group: 2"),
        ("ConvolutionDepthwise", "num_output: 8"),
        ("ConvolutionDepthwise", ""),
        ("ConvolutionDepthWise", "num_output: 3 group: 4"),
    ],
)
def test_depthwise_convolution(type_, told) -> None:
    def expected(x, weight, bias):
        group = x.shape[1] // weight.shape[1]
        padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
        top = np.empty((len(x), len(weight), (x.shape[2] + 1) // 2, (x.shape[3] + 1) // 2), np.float32)
        for o, i, j in np.ndindex(top.shape[1:]):
            first = o // (len(weight) // group) * weight.shape[1]
            cut = padded[:, first : first + weight.shape[1], 2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
            top[:, o, i, j] = (cut * weight[o]).sum(axis=(1, 2, 3)) + bias[o]
        return top

    layer = f'type: "{type_}" convolution_param {{ kernel_size: 3 pad: 1 stride: 2 {told} }}'
    if type_ != "DepthwiseConvolution":
        assert build(layer, MAPS).params["layer"][0].shape == (8, 1, 3, 3)
    check(layer, MAPS, expected=expected)


def test_holes_are_dilation() -> None:
    convolution = 'type: "Convolution" convolution_param {{ num_output: 2 kernel_size: 3 {} }}'
    tops = []
    for told in ("hole: 2", "dilation: 2", "hole_h: 2 hole_w: 2"):
        net = build(convolution.format(told), (1, 3, 9, 9))
        net.params["layer"][0].data[...] = 1
        tops.append(run(net, draw(1, 3, 9, 9)))
    assert tops[0].shape == (1, 2, 5, 5)
    np.testing.assert_array_equal(tops[0], tops[1])
    np.testing.assert_array_equal(tops[0], tops[2])


def test_pooling_without_ceil_mode_rounds_down() -> None:
    pooling = 'type: "Pooling" pooling_param {{ kernel_size: 3 stride: 2 {} }}'
    assert build(pooling.format("ceil_mode: false"), (1, 1, 6, 8)).blobs["top"].shape == (1, 1, 2, 3)
    assert build(pooling.format("round_mode: FLOOR"), (1, 1, 6, 8)).blobs["top"].shape == (1, 1, 2, 3)
    assert build(pooling.format(""), (1, 1, 6, 8)).blobs["top"].shape == (1, 1, 3, 4)


# What is there to train


@pytest.mark.parametrize("bottoms", [2, 3, 4])
def test_smooth_l1_loss(bottoms) -> None:
    def expected(x, y, inside=1, outside=1):
        total, s = 0.0, 9.0
        for d, w in np.nditer([(x - y) * inside, np.broadcast_to(outside, x.shape)]):
            total += w * (0.5 * s * d * d if abs(d) < 1 / s else abs(d) - 0.5 / s)
        return np.float32(total / len(x))

    check('type: "SmoothL1Loss" smooth_l1_loss_param { sigma: 3 }', *[(3, 4)] * bottoms, expected=expected)
    with pytest.raises(LayerError, match=r"'a' is \(3, 4\), 'b' is \(3, 5\): they differ"):
        build('type: "SmoothL1Loss"', (3, 4), (3, 5))


def test_losses_of_forks_are_left_out_or_refused() -> None:
    net = build(
        'type: "MultiBoxLoss" multibox_loss_param { num_classes: 2 }', (1, 8), (1, 4), (1, 2, 8), (1, 1, 1, 8)
    )
    assert net.layer_dict["layer"].role == "loss"
    with pytest.raises(LayerError, match="is there for training only, and is not computed"):
        net.forward_range(4, 4)
    with pytest.raises(LayerError, match="is there for training only; `caffe-fcn deploy` leaves it out"):
        export(net)


def test_data_layers_of_forks_become_inputs() -> None:
    from caffe_fcn.deploy import to_deploy

    text = """
        layer { name: "data" type: "AnnotatedData" top: "data" top: "label" data_param { source: "x" }
                annotated_data_param { batch_sampler { max_trials: 1 } anno_type: BBOX }
                transform_param { resize_param { height: 300 width: 300 } } }
        layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 2 } }
        layer { name: "loss" type: "MultiBoxLoss" bottom: "ip" bottom: "label" top: "loss" }"""
    with pytest.raises(LayerError, match=r"the training data of SSD is not read here\n  `caffe-fcn deploy`"):
        Net(read_net("net", text=text))
    cut = to_deploy(read_net("net", text=text), {"data": (1, 3, 4, 4)})
    assert [p.type for p in cut.text.net.layer] == ["Input", "InnerProduct"]
    assert cut.outputs == ["ip"]


def test_engines_of_forks_do_not_matter() -> None:
    with pytest.warns(CaffeWarning, match="'engine' has no value 'MKLDNN'"):
        net = build('type: "ReLU" relu_param { engine: MKLDNN }', MAPS)
    assert run(net, draw(*MAPS)).min() == 0
