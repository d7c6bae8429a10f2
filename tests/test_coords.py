"""The coordinate map: python/caffe/coord_map.py's results, on NetSpecs and on Nets."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caffe_fcn import surgery
from caffe_fcn.coords import (
    AxisMismatchException,
    CannotCropError,
    UnconnectedError,
    UndefinedMapException,
    between,
    coord_map,
    coord_map_from_to,
    crop,
    crop_window,
)
from caffe_fcn.errors import CaffeError
from caffe_fcn.geometry import AxisMap
from caffe_fcn.net import Net
from caffe_fcn.net_spec import NetSpec
from caffe_fcn.net_spec import layers as L  # noqa: N812
from caffe_fcn.net_spec import params as P  # noqa: N812
from tests.reference_cases import cases

SIZE = 64


def up_and_down(pool=2, up=2, kernel=3, pad=1, up_pad=0):
    """A convolution, a pooling, and an upsampling that may undo it."""
    n = NetSpec()
    n.data = L.Input(shape={"dim": [1, 1, SIZE, SIZE]})
    n.conv = L.Convolution(n.data, num_output=1, kernel_size=kernel, pad=pad, bias_term=False)
    n.pool = L.Pooling(n.conv, pool=P.Pooling.AVE, kernel_size=pool, stride=pool)
    deconvolution = {"num_output": 1, "kernel_size": 2 * up, "stride": up, "pad": up_pad, "bias_term": False}
    n.up = L.Deconvolution(n.pool, convolution_param=deconvolution)
    return n


@pytest.mark.parametrize(
    ("spec", "scale", "shift"),
    [
        ({}, 1, -1),  # the upsampled picture begins one pixel before the input
        ({"pool": 4, "up": 4}, 1, -2),
        ({"pool": 4, "up": 2}, 2, -1.5),  # a pixel of the upsampled is two of the input
        ({"pool": 2, "up": 4}, 0.5, -1.25),
        ({"pad": 4}, 1, -4),  # padding the input by 3 more moves it 3 in
        ({"pad": 4, "up_pad": 3}, 1, -1),  # and cutting 3 off the output moves it back
        ({"kernel": 1, "pad": 0}, 1, -1),
    ],
)
def test_coord_map_from_to(spec, scale, shift):
    n = up_and_down(**spec)
    axis, a, b = coord_map_from_to(n.up, n.data)
    assert (axis, a.tolist(), b.tolist()) == (1, [scale], [shift])


@settings(deadline=None)
@given(
    pool=st.integers(1, 4),
    up=st.integers(1, 4),
    kernel=st.integers(1, 6),
    pad=st.integers(0, 5),
    up_pad=st.integers(0, 3),
)
def test_a_picture_of_coordinates_says_the_same(pool, up, kernel, pad, up_pad):
    """Means and interpolations of a ramp are the ramp: a pixel's value is the coordinate that it shows."""
    n = up_and_down(pool, up, kernel, pad, up_pad)
    net = Net(n.to_proto())
    net.params["conv"][0].data[...] = 1 / kernel**2
    surgery.interp(net, ["up"])
    ramp = np.broadcast_to(np.arange(SIZE, dtype=np.float32), (1, 1, SIZE, SIZE))
    values = net.forward(data=ramp)["up"][0, 0]
    (found,) = between(n.up, n.data).maps
    row, middle = values[len(values) // 2], values.shape[1] // 2  # far from the pads
    for x in range(middle - 3, middle + 4):
        assert row[x] == pytest.approx(float(found.scale * x + found.shift), abs=1e-3)


def test_there_and_back():
    n = up_and_down(pool=4, up=2)
    there, back = between(n.data, n.up), between(n.up, n.data)
    assert [m.inverse() for m in there.maps] == back.maps
    assert between(n.up, n.up) == (None, [AxisMap()])


def test_axes_of_their_own():
    def spec(kernel, stride, pad):
        n = NetSpec()
        n.data = L.Input(shape={"dim": [1, 1, 64, 64]})
        n.conv = L.Convolution(n.data, num_output=1, kernel_size=kernel, stride=stride, pad=pad)
        n.relu = L.ReLU(n.conv)
        return coord_map_from_to(n.relu, n.data)

    (_, a, b), (_, a1, b1), (_, a2, b2) = spec([3, 5], [1, 2], [0, 10]), spec(3, 1, 0), spec(5, 2, 10)
    assert (a.tolist(), b.tolist()) == ([a1[0], a2[0]], [b1[0], b2[0]]) == ([1, 2], [1, -8])


def test_kernel_h_and_w():
    n = NetSpec()
    n.data = L.Input(shape={"dim": [1, 1, 64, 64]})
    n.conv = L.Convolution(n.data, num_output=1, kernel_h=3, kernel_w=5)
    assert between(n.conv, n.data).maps == [AxisMap(shift=Fraction(1)), AxisMap(shift=Fraction(2))]


def test_three_axes():
    n = NetSpec()
    n.data = L.Input(shape={"dim": [1, 1, 9, 9, 9]})
    n.conv = L.Convolution(n.data, num_output=1, kernel_size=[3, 3, 3], pad=[0, 1, 2])
    n.pool = L.Pooling(n.conv, kernel_size=2, stride=2)
    n.up = L.Deconvolution(n.pool, convolution_param={"num_output": 1, "kernel_size": 4, "stride": 2})
    axis, a, b = coord_map_from_to(n.up, n.data)
    assert (axis, a.tolist(), b.tolist()) == (1, [1, 1, 1], [0, -1, -2])


def test_dilation_widens_the_kernel():
    n = NetSpec()
    n.data = L.Input(shape={"dim": [1, 1, 64, 64]})
    n.conv = L.Convolution(n.data, num_output=1, kernel_size=3, dilation=4)
    assert between(n.conv, n.data).maps == [AxisMap(shift=Fraction(4))]


def test_a_crop_moves_its_first_bottom_only():
    n = up_and_down()
    n.other = L.Input(shape={"dim": [1, 1, 8, 8]})
    n.cut = L.Crop(n.up, n.other, axis=2, offset=[3])
    assert between(n.cut, n.data).maps == [AxisMap(shift=Fraction(2))]
    with pytest.raises(UnconnectedError):
        between(n.cut, n.other)


def test_the_map_of_one_layer():
    n = up_and_down()
    assert coord_map(n.up.fn) == (1, [AxisMap(Fraction(2), Fraction(3, 2))])
    n.relu = L.ReLU(n.up)
    assert coord_map(n.relu.fn) == (None, [AxisMap()])
    n.fc = L.InnerProduct(n.up, num_output=2)
    for what, kind in ((n.fc, "InnerProduct"), (L.OfSomeFork(n.up), "OfSomeFork")):
        with pytest.raises(UndefinedMapException, match=kind):
            coord_map(what.fn)


def test_a_diamond_is_walked_once():
    n = NetSpec()
    n.data = top = L.Input(shape={"dim": [1, 1, 8, 8]})
    for _ in range(60):  # 2**60 paths
        top = L.Eltwise(L.ReLU(top), top)
    assert between(top, n.data) == (None, [AxisMap()])


# --- crop


def test_crop_makes_the_layer():
    n = up_and_down(pad=4)
    n.score = crop(n.up, n.data)
    made = n.to_proto().layer[-1]
    assert (made.type, list(made.bottom)) == ("Crop", ["up", "data"])
    assert (made.crop_param.axis, list(made.crop_param.offset)) == (2, [4])
    assert coord_map_from_to(n.score, n.data)[2].tolist() == [0]


def test_crop_of_the_last_axis_only():
    n = NetSpec()
    n.data = L.Input(shape={"dim": [1, 1, 8, 8]})
    n.rows = L.Convolution(n.data, num_output=8, kernel_size=3, pad=2, axis=2)
    assert crop(n.rows, n.data).fn.params["crop_param"] == {"axis": 3, "offset": [1]}


def test_crop_to_a_blob_of_the_same_coordinates():
    n = up_and_down()
    n.relu = L.ReLU(n.up)
    assert crop(n.relu, n.up).fn.params["crop_param"] == {"axis": 2, "offset": [0]}


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ({"pool": 3}, "scale mismatch on crop: a pixel of the one is 3/2 of the other's"),
        ({"up": 4}, "scale mismatch on crop: a pixel of the one is 1/2 of the other's"),
        ({"up_pad": 10}, "cannot crop negative offset -9\n  pad the input"),
        ({"kernel": 4, "pad": 4}, "cannot crop noninteger offset 7/2"),
    ],
)
def test_what_cannot_be_cropped(spec, problem):
    n = up_and_down(**spec)
    for kind in (CannotCropError, AssertionError):  # pycaffe asserts
        with pytest.raises(kind) as error:
            crop(n.up, n.data)
        assert str(error.value).startswith(problem)


def test_unconnected():
    n = up_and_down()
    n.fc = L.InnerProduct(n.up, num_output=2)
    for kind in (UnconnectedError, RuntimeError):
        with pytest.raises(kind, match="are they connected by spatial layers"):
            coord_map_from_to(n.fc, n.data)


def test_different_axes():
    n = up_and_down()
    n.rows = L.Convolution(n.up, num_output=1, kernel_size=1, axis=2)
    with pytest.raises(AxisMismatchException, match="1 axes after axis 1 and 1 axes after axis 2"):
        between(n.rows, n.data)
    n.cube = L.Convolution(n.up, num_output=1, kernel_size=[1, 2, 3])
    n.plane = L.Convolution(n.cube, num_output=1, kernel_size=[1, 2])
    with pytest.raises(AxisMismatchException, match="3 axes after axis 1 and 2 axes after axis 1"):
        between(n.plane, n.data)


# --- a Net


@pytest.mark.parametrize("case", [c for c in cases("nets") if "fcn" in c.name], ids=lambda case: case.name)
def test_every_crop_of_the_reference_nets_is_where_it_is_derived(case):
    net = Net(case.prototxt)
    crops = [layer for layer in net.layers if layer.param.type == "Crop"]
    assert crops
    for layer in crops:
        axis, offset = crop_window(between(*layer.param.bottom, net=net))
        assert (axis, offset) == (layer.param.crop_param.axis, list(layer.param.crop_param.offset))


def test_blobs_of_a_net_and_tops_of_its_spec():
    n = up_and_down(pool=4, pad=7)
    n.relu = L.ReLU(n.up, in_place=True)
    n.scores = L.Eltwise(n.relu, n.relu)
    net = Net(n.to_proto())
    assert between("up", "data", net) == between(n.relu, n.data)
    assert between("scores", "conv", net) == between(n.scores, n.conv)
    assert [a.tolist() for a in coord_map_from_to("up", "data", net)[1:]] == [[2], [-7.5]]
    assert coord_map(net.layer_dict["up"]) == coord_map(n.up.fn)


def test_blobs_that_are_not_there():
    net = Net(up_and_down().to_proto())
    with pytest.raises(CaffeError, match=r"no blob 'dat' in the net\n  did you mean data"):
        between("up", "dat", net)
    with pytest.raises(CaffeError, match="blobs need their net"):
        between("up", "data")
