"""Convolution, Deconvolution, Im2col, InnerProduct, Embed: laws, odd parameters, open sizes, errors."""

from __future__ import annotations

import tracemalloc
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caffe_fcn.errors import LayerError
from caffe_fcn.export.exporter import export
from caffe_fcn.geometry import AxisMap, Window
from caffe_fcn.layers.base import CoordMap
from caffe_fcn.numeric import blas
from caffe_fcn.numeric import conv as conv_
from caffe_fcn.numeric import deconv as deconv_
from caffe_fcn.numeric.conv import conv
from caffe_fcn.numeric.deconv import deconv
from tests.layer_nets import build, draw, misaligned, nodes, run, to_session
from tests.reference_cases import assert_close


def naive(x, weight, bias, group, windows, counts):
    """Convolution as it is defined, one window after the other, in float64."""
    top = np.zeros((len(x), len(weight), *counts))
    outputs, channels = len(weight) // group, weight.shape[1]
    for at in np.ndindex(*counts):
        for element in np.ndindex(*weight.shape[2:]):
            place = [
                i * w.stride - w.pad + k * w.dilation for i, k, w in zip(at, element, windows, strict=True)
            ]
            if any(not 0 <= p < n for p, n in zip(place, x.shape[2:], strict=True)):
                continue
            pixel = x[(..., *place)].astype(np.float64)
            for o, c in product(range(len(weight)), range(channels)):
                top[(slice(None), o, *at)] += pixel[:, o // outputs * channels + c] * weight[(o, c, *element)]
    return (top + bias.reshape(-1, *(1,) * len(windows))).astype(np.float32)


@st.composite
def filters(draw_):
    """(x, weight, bias, group, windows) of a convolution that gives something."""
    windows = draw_(
        st.lists(
            st.builds(Window, st.integers(1, 3), st.integers(1, 3), st.integers(0, 4), st.integers(1, 2)),
            min_size=1,
            max_size=3,
        )
    )
    group, channels, outputs = (draw_(st.integers(1, 3)) for _ in range(3))
    least = [max(1, w.reach - 2 * w.pad) for w in windows]
    sizes = [n + draw_(st.integers(0, 4)) for n in least]
    x = draw(draw_(st.integers(1, 2)), group * channels, *sizes)
    weight = draw(group * outputs, channels, *(w.kernel for w in windows), seed=1)
    return (
        x,
        misaligned(weight) if draw_(st.booleans()) else weight,
        draw(group * outputs, seed=2),
        group,
        windows,
    )


def small_buffers(monkeypatch, size):
    """So that the smallest problem is worked on in pieces."""
    for module in (blas, conv_, deconv_):
        monkeypatch.setattr(module, "BUFFER", size)
    monkeypatch.setattr(deconv_, "LEAST", 1)


@pytest.mark.parametrize("size", [None, 1, 400])
def test_convolution_is_what_its_definition_says(monkeypatch, size):
    if size:
        small_buffers(monkeypatch, size)

    @given(filters())
    @settings(deadline=None, max_examples=40)
    def law(case):
        x, weight, bias, group, windows = case
        counts = [w.count(n) for w, n in zip(windows, x.shape[2:], strict=True)]
        assert_close(
            conv(x, weight, bias, group, windows, counts),
            naive(x, weight, bias, group, windows, counts),
            "conv",
        )

    law()


@pytest.mark.parametrize("size", [None, 1, 400])
def test_deconvolution_is_the_adjoint_of_convolution(monkeypatch, size):
    """<conv(x), y> = <x, deconv(y)> for all x, y: one set of weights, read from the other end."""
    if size:
        small_buffers(monkeypatch, size)

    @given(filters(), st.booleans())
    @settings(deadline=None, max_examples=40)
    def law(case, diagonal):
        x, weight, _, group, windows = case
        if diagonal and group == 1 and weight.shape[0] == weight.shape[1]:
            weight = weight * np.eye(len(weight), dtype=np.float32).reshape(
                weight.shape[:2] + (1,) * len(windows)
            )
        counts = [w.count(n) for w, n in zip(windows, x.shape[2:], strict=True)]
        there = conv(x, weight, None, group, windows, counts)
        y = draw(*there.shape, seed=3)
        back = deconv(y, weight, None, group, windows, x.shape[2:])
        assert back.shape == x.shape
        one, other = np.vdot(there.astype(np.float64), y), np.vdot(x.astype(np.float64), back)
        assert abs(one - other) <= 1e-5 * (np.abs(there).sum() + np.abs(back).sum() + 1)

    law()


def test_columns_take_bounded_memory():
    x, weight = draw(1, 64, 160, 160), draw(2, 64, 7, 7)
    windows = [Window(7)] * 2
    tracemalloc.start()
    top = conv(x, weight, None, 1, windows, [154, 154])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.start()
    deconv(top, weight, None, 1, windows, [160, 160])
    back = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 8 * blas.BUFFER < 64 * 49 * 154 * 154 * 4  # all columns
    assert peak < 1.5 * blas.BUFFER
    assert back < 1.5 * blas.BUFFER + x.nbytes


def test_weights_at_an_odd_address_are_copied_in_pieces():
    x, weight = draw(2, 3000), misaligned(draw(9000, 3000))
    for w in (weight, weight.reshape(3000, 9000).T):
        tracemalloc.start()
        top = blas.inner_product(x, w.T)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert_close(top, x @ w.T.copy(), "product")
        assert weight.nbytes > 3 * blas.BUFFER
        assert peak < 1.2 * blas.BUFFER


# --- layers, NumPy and ONNX


def windowed(kind, setting, *shapes, top="top"):
    net = build(f'type: "{kind}" convolution_param {{ {setting} }}', *shapes, top=top)
    for blob in net.params.get("layer", ()):
        blob.data[...] = draw(*blob.shape, seed=len(blob.shape))
    return net


ODD = [
    ("num_output: 4 kernel_size: 3 stride: 2", (2, 3, 12)),
    ("num_output: 4 kernel_size: 1", (2, 3)),  # no axis behind the channels: kernel_size applies to nothing
    ("num_output: 4", (2, 3)),
    ("num_output: 4 axis: 0 kernel_size: 2", (3, 5, 6)),
    ("num_output: 6 axis: -1 group: 3", (2, 5, 3)),
    ("num_output: 4 axis: 2 kernel_size: 2 kernel_size: 1", (2, 2, 3, 5, 4)),
    ("num_output: 4 axis: -3 kernel_size: 2 pad: 1 bias_term: false", (2, 2, 3, 5, 4)),
    ("num_output: 2 kernel_size: 2 pad: 1", (1, 2, 3, 3, 3, 3)),
    ("num_output: 4 kernel_size: 3 pad: 5 stride: 3 dilation: 2", (2, 3, 4, 7)),
    ("num_output: 6 kernel_size: 3 group: 3 dilation: 1 dilation: 2 pad: 2", (2, 3, 4, 7)),
    ("num_output: 3 kernel_h: 1 kernel_w: 3 pad_w: 1 stride_h: 2 stride_w: 1", (2, 3, 5, 6)),
    ("num_output: 4 kernel_size: 1 stride: 3", (2, 3, 7, 8)),
    ("num_output: 4 kernel_size: 1", (2, 3, 1, 1)),
]


@pytest.mark.parametrize("kind", ["Convolution", "Deconvolution", "Im2col"])
@pytest.mark.parametrize(("setting", "shape"), ODD)
def test_any_axes_and_settings(kind, setting, shape):
    if kind == "Deconvolution":
        setting = setting.replace("pad: 5", "pad: 3")
    if kind == "Im2col" and (len(shape) == 2 or "axis: -1" in setting):
        with pytest.raises(LayerError, match="has no axis behind the channels"):
            windowed(kind, setting, shape)
        return
    net = windowed(kind, setting, shape)
    got = run(net, draw(*shape))
    if kind != "Convolution":
        return
    layer = net.layer_dict["layer"]
    axis = layer.axis(layer.param.convolution_param.axis, len(shape))
    weight, bias = (*layer.weights, np.zeros(len(layer.weights[0]), np.float32))[:2]
    flat = draw(*shape).reshape(-1, *shape[axis:])
    want = naive(
        flat, weight, bias, layer.param.convolution_param.group, layer.windows([shape]), got.shape[axis + 1 :]
    )
    assert_close(got, want.reshape(got.shape), "top")


@pytest.mark.parametrize("opset", [17, 20])
@pytest.mark.parametrize("kind", ["Convolution", "Deconvolution", "Im2col"])
def test_one_file_for_all_sizes(kind, opset):
    net = windowed(kind, "num_output: 4 kernel_size: 3 stride: 2 pad: 1", (1, 4, 6, 7))
    assert nodes(net) == ["ConvTranspose" if kind == "Deconvolution" else "Conv"]
    session = to_session(net, opset)
    for shape in [(1, 4, 6, 7), (3, 4, 1, 1), (2, 4, 40, 33)]:
        run(net, draw(*shape), session=session)


def test_axes_before_the_channels_stay_open():
    net = windowed("Convolution", "num_output: 4 axis: 2 kernel_size: 3", (2, 3, 4, 9, 8))
    found = export(net)
    assert set(found.fixed) == {"D"}  # the channels
    session = to_session(net)
    for shape in [(2, 3, 4, 9, 8), (1, 3, 4, 3, 3), (5, 3, 4, 10, 20)]:
        run(net, draw(*shape), session=session)


def test_bottoms_share_the_weights():
    shape = (2, 3, 5, 6)
    for kind, op in (("Convolution", "Conv"), ("Deconvolution", "ConvTranspose")):
        net = windowed(kind, "num_output: 4 kernel_size: 3", shape, shape, top='top" top: "top2')
        graph = export(net).graph
        assert [node.op for node in graph.nodes] == [op, op]
        assert sorted(graph.constants) == ["layer.bias", "layer.weight"]
        a, b = draw(*shape), draw(*shape, seed=1)
        both = run(net, a, b)
        assert_close(both["top"], run(net, b, a)["top2"], "top")
        assert not np.allclose(both["top"], both["top2"])


@pytest.mark.parametrize("shape", [(0, 3, 5, 6), (2, 3, 0, 6), (2, 3, 0, 0)])
@pytest.mark.parametrize("kind", ["Convolution", "Deconvolution", "Im2col"])
def test_nothing_in(kind, shape):
    net = windowed(kind, "num_output: 4 kernel_size: 4 pad: 2" if kind != "Deconvolution" else DECONV, shape)
    top = net.forward(a=np.zeros(shape, np.float32))["top"]
    if kind == "Im2col":
        assert not top.any()
    else:
        assert (top == net.params["layer"][1].data.reshape(-1, 1, 1)).all()
    assert top.shape[0] == shape[0]


DECONV = "num_output: 4 kernel_size: 4 stride: 2"


@pytest.mark.parametrize("kind", ["Convolution", "Deconvolution"])
@pytest.mark.parametrize("bias", [True, False])
def test_channels_of_none_give_the_bias(kind, bias):
    """Also in ONNX: `make fuzz` found that onnxruntime's Conv never comes back from it."""
    net = windowed(kind, f"num_output: 4 kernel_size: 3 pad: 1 bias_term: {bias}", (2, 0, 3, 4))
    wanted = net.params["layer"][1].data.reshape(-1, 1, 1) if bias else np.float32(0)
    for shape in ((2, 0, 3, 4), (1, 0, 7, 6)):
        top = run(net, np.zeros(shape, np.float32))
        assert top.shape == (shape[0], 4, *shape[2:])
        assert (top == wanted).all()


@pytest.mark.parametrize("kind", ["Convolution", "Im2col"])
@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_less_than_a_stride_missing_is_one_window(kind, size):
    """C divides towards zero: (2 - 5) / 4 + 1 = 1. The window reads zeros beyond the end."""
    net = windowed(kind, "num_output: 4 kernel_size: 5 stride: 4", (1, 3, 9, 9))
    shape = (2, 3, 9, size)
    if size == 1:
        net.blobs["a"].reshape(*shape)
        with pytest.raises(LayerError, match=r"input of 1 \+ 2 \* pad 0 is smaller than the kernel 5"):
            net.reshape()
        return
    x = draw(*shape)
    got = run(net, x)
    assert got.shape[2:] == (2, 1)
    padded = np.concatenate([x, np.zeros((2, 3, 9, 5 - size), np.float32)], axis=3)
    assert_close(got, run(net, padded), "top")
    net.blobs["a"].reshape(*shape)
    net.reshape()
    assert set(export(net).fixed) == {"W"}


def test_diagonal_and_dense_deconvolutions_agree():
    """What is left out for a kernel that is zero off the diagonal adds nothing."""
    setting = "num_output: 3 kernel_size: 4 stride: 2 bias_term: false"
    net = windowed("Deconvolution", setting, (1, 3, 5, 6))
    weight = net.params["layer"][0].data
    weight *= np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1)
    x = draw(1, 3, 5, 6)
    diagonal = run(net, x)
    weight[0, 1, 0, 0] = 1e-30
    assert_close(run(net, x), diagonal, "top")
    weight[0, 1] = 1
    assert not np.allclose(run(net, x), diagonal)


def test_im2col_and_an_inner_product_are_a_convolution():
    setting = "num_output: 4 kernel_size: 3 stride: 2 pad: 1 dilation: 2"
    x = draw(2, 3, 9, 8)
    convolution = windowed("Convolution", setting, x.shape)
    columns = run(windowed("Im2col", setting, x.shape), x)
    weight, bias = (blob.data for blob in convolution.params["layer"])
    product_ = np.einsum("ok,nkhw->nohw", weight.reshape(4, -1), columns) + bias.reshape(-1, 1, 1)
    assert_close(product_, run(convolution, x), "top")


def test_coordinates_windows_and_products():
    x = (2, 4, 9, 8)
    setting = "num_output: 6 kernel_size: 3 stride: 2 pad: 1 dilation: 2 group: 2"
    convolution = windowed("Convolution", setting, x).layer_dict["layer"]
    deconvolution = windowed("Deconvolution", setting, x).layer_dict["layer"]
    assert convolution.windows([x]) == [Window(3, 2, 1, 2)] * 2
    there = CoordMap(1, [AxisMap(Fraction(1, 2), Fraction(-1, 2))])
    assert convolution.coord_map() == there
    assert deconvolution.coord_map() == CoordMap(1, [there.maps[0].inverse()])
    assert convolution.macs([x], convolution.reshape([x])) == 2 * 6 * 4 * 3 * 2 * 9
    assert deconvolution.macs([x], deconvolution.reshape([x])) == 2 * 4 * 9 * 8 * 3 * 9
    apart = windowed("Convolution", "num_output: 1 kernel_h: 3 kernel_w: 1", x).layer_dict["layer"]
    assert apart.coord_map() == CoordMap(1, [AxisMap(shift=Fraction(-1)), AxisMap()])
    none = windowed("Convolution", "num_output: 1", (2, 3)).layer_dict["layer"]
    assert none.coord_map() is None


WRONG = [
    ("num_output: 4", "no kernel_size is given"),
    ("num_output: 4 kernel_size: 0", "kernel 0 must be positive"),
    ("num_output: 4 kernel_h: 3", "kernel 3 x 0 must be positive\n.*give both kernel_h and kernel_w"),
    ("num_output: 4 kernel_size: 3 stride: 0", "stride 0 must be positive"),
    ("num_output: 4 kernel_size: 3 stride_w: 2", "stride 0 x 2 must be positive"),
    ("num_output: 4 kernel_size: 3 dilation: 1 dilation: 0", "dilation 1 x 0 must be positive"),
    ("num_output: 4 kernel_size: 3 kernel_h: 3 kernel_w: 3", "has kernel_size and kernel_h or kernel_w"),
    (
        "num_output: 4 kernel_size: 3 pad: 1 pad_h: 1",
        "has pad and pad_h or pad_w\n.*either pad, or pad_h and",
    ),
    (
        "num_output: 4 kernel_size: 3 kernel_size: 2 kernel_size: 1",
        r"kernel_size is 3 x 2 x 1, its bottom \(1, 4, 5, 5\) has 2 axes behind the channels",
    ),
    ("num_output: 4 kernel_size: 3 pad: 1 pad: 1 pad: 1", "pad is 1 x 1 x 1, its bottom"),
    ("num_output: 4 kernel_size: 3 axis: 4", "axis 4 does not exist in a blob of 4 axes"),
]
FILTERS_ONLY = [
    ("kernel_size: 3", "num_output 0 must be positive"),
    ("num_output: 4 kernel_size: 3 group: 0", "group 0 must be positive"),
    ("num_output: 6 kernel_size: 3 group: 3", "group 3 does not divide channels 4"),
    ("num_output: 5 kernel_size: 3 group: 2", "group 2 does not divide num_output 5"),
]


@pytest.mark.parametrize("kind", ["Convolution", "Deconvolution", "Im2col"])
@pytest.mark.parametrize(("setting", "message"), WRONG)
def test_wrong_settings_are_named(kind, setting, message):
    with pytest.raises(LayerError, match=message):
        windowed(kind, setting, (1, 4, 5, 5))


@pytest.mark.parametrize("kind", ["Convolution", "Deconvolution"])
@pytest.mark.parametrize(("setting", "message"), FILTERS_ONLY)
def test_wrong_filters_are_named(kind, setting, message):
    with pytest.raises(LayerError, match=message):
        windowed(kind, setting, (1, 4, 5, 5))


@pytest.mark.parametrize("kind", ["Convolution", "Im2col"])
def test_inputs_smaller_than_the_kernel(kind):
    with pytest.raises(LayerError, match=r"input of 5 \+ 2 \* pad 0 is smaller than the kernel 7\n"):
        windowed(kind, "num_output: 4 kernel_size: 7", (1, 4, 5, 8))
    with pytest.raises(
        LayerError, match=r"input of 4 \+ 2 \* pad 1 is smaller than the kernel 9 \(dilated 5\)"
    ):
        windowed(kind, "num_output: 4 kernel_size: 5 dilation: 2 pad: 1", (1, 4, 8, 4))


def test_paddings_that_cut_off_everything():
    with pytest.raises(LayerError, match=r"a size 2 \* \(1 - 1\) \+ 4 - 2 \* pad 2 = 0"):
        windowed("Deconvolution", "num_output: 4 kernel_size: 4 stride: 2 pad: 2", (1, 4, 1, 8))


def test_bottoms_that_do_not_fit():
    setting = "num_output: 4 kernel_size: 3"
    with pytest.raises(LayerError, match=r"'b' is \(1, 4, 5, 6\), 'a' is \(1, 4, 5, 5\)"):
        windowed("Convolution", setting, (1, 4, 5, 5), (1, 4, 5, 6), top='top" top: "top2')
    with pytest.raises(LayerError, match="2 bottoms make 2 tops, got 1"):
        windowed("Convolution", setting, (1, 4, 5, 5), (1, 4, 5, 5))
    for kind in ("Convolution", "Deconvolution"):
        net = windowed(kind, setting, (1, 4, 5, 5))
        net.blobs["a"].reshape(1, 3, 5, 5)
        with pytest.raises(
            LayerError, match=r"weights are \(4, 4, 3, 3\), a bottom with 3 channels on axis 1"
        ):
            net.reshape()
