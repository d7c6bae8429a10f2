"""Layers of forks, each against the loops of its .cpp written out, in NumPy and as ONNX, at two sizes."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from caffe_fcn.errors import CaffeWarning, LayerError
from caffe_fcn.export.exporter import export
from caffe_fcn.formats.caffemodel import StoredBlob, StoredLayer
from caffe_fcn.formats.prototxt import read_net
from caffe_fcn.net import TRAIN, Net
from tests.fork_layers import MAPS, check
from tests.layer_nets import build, draw, run


@pytest.mark.parametrize("opset", [17, 20])
@pytest.mark.parametrize("slope", [0, 0.1])
def test_relu6(slope, opset) -> None:
    layer = f'type: "ReLU6" relu6_param {{ negative_slope: {slope} }}'
    check(
        layer, MAPS, opset=opset, expected=lambda x: np.minimum(6, np.where(x > 0, x, np.float32(slope) * x))
    )


@pytest.mark.parametrize("opset", [17, 20])
def test_mish_and_hard_swish(opset) -> None:
    """Values by hand: Mish(1) = tanh(log(1 + e)) = 0.865098; HardSwish(1) = 4 / 6."""

    def mish(x):
        return x * np.tanh(np.log1p(np.exp(x.astype(np.float64))))

    check('type: "Mish"', MAPS, opset=opset, expected=mish)
    check('type: "HardSwish"', MAPS, opset=opset, expected=lambda x: x * np.clip(x / 6 + 0.5, 0, 1))
    x = np.float32([[-100, -3, 0, 1, 3, 100]])
    np.testing.assert_allclose(
        run(build('type: "Mish"', x.shape), x), [[0, -0.145648, 0, 0.865098, 2.986535, 100]], atol=1e-5
    )
    np.testing.assert_allclose(
        run(build('type: "HardSwish"', x.shape), x), [[0, 0, 0, 2 / 3, 3, 100]], atol=1e-5
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
        layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
                inner_product_param { num_output: 2 } }
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


@pytest.mark.parametrize(
    ("type_", "told", "shape"),
    [
        ("AnnotatedData", "transform_param { resize_param { height: 300 width: 200 } }", [1, 3, 300, 200]),
        ("ImageSegData", "transform_param { crop_height: 473 crop_width: 474 }", [1, 3, 473, 474]),
        ("ImageLabelmapData", "transform_param { crop_size: 32 }", [1, 3, 32, 32]),
        (
            "DenseImageData",
            "dense_image_data_param { new_height: 3 new_width: 4 is_color: false }",
            [1, 1, 3, 4],
        ),
        ("VideoData", "video_data_param { new_height: 3 new_width: 4 }", [1, 3, 3, 4]),
        ("DenseImageData", "", None),
    ],
)
def test_sizes_that_data_layers_of_forks_tell(type_, told, shape) -> None:
    from caffe_fcn.deploy import data_shape

    net = read_net(
        "net", text=f'layer {{ name: "data" type: "{type_}" top: "data" top: "label" {told} }}'
    ).net
    assert data_shape(net.layer[0], 0) == shape
    assert data_shape(net.layer[0], 1) is None


@pytest.mark.parametrize(
    "layer",
    [
        'type: "BatchNorm" batch_norm_param { scale_filler {} bias_filler {} update_global_stats: true }',
        'type: "Dropout" dropout_param { scale_train: true }',
        'type: "Pooling" pooling_param { kernel_size: 2 ceil_mode: false }',
        'type: "Convolution" convolution_param { num_output: 1 kernel_size: 1 hole: 1 }',
        'type: "Normalize" norm_param { across_spatial: false scale_filler { type: "constant" } }',
    ],
)
def test_fields_of_forks_are_known(layer) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", CaffeWarning)
        build(layer, MAPS)


def test_dropout_that_samples_in_test_is_its_mean() -> None:
    net = build('type: "Dropout" dropout_param { sample_weights_test: true }', MAPS)
    x = draw(*MAPS)
    np.testing.assert_array_equal(run(net, x), x)
    assert net.variants == {"the mean of Bayesian SegNet's Dropout, which samples in TEST": 1}
