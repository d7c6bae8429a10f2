"""Crops of forks, which begin where the layers between their bottoms say."""

from __future__ import annotations

import warnings

import pytest

from caffe_fcn.errors import CaffeWarning, LayerError
from caffe_fcn.formats.prototxt import read_net
from caffe_fcn.net import Net
from tests.small_nets import PROTOTXTS

FAMILY = sorted(path.parent.name for path in PROTOTXTS.glob("*fcn*/deploy.prototxt"))
HEAD = """
input: 'data' input_dim: [1, 1, 16, 20]
layers { name: 'conv' type: CONVOLUTION bottom: 'data' top: 'conv'
  convolution_param { num_output: 1 kernel_size: 3 pad: 4 } }
layers { name: 'relu' type: RELU bottom: 'conv' top: 'conv' }
"""


@pytest.mark.parametrize("name", FAMILY)
def test_the_family_needs_no_offsets(name):
    text = read_net(PROTOTXTS / name / "deploy.prototxt")
    wanted = []
    for layer in text.net.layer:
        if layer.type == "Crop":
            wanted.append([*layer.crop_param.offset] * 2)
            layer.ClearField("crop_param")
            layer.type = "CROP"
    crops = [layer.param for layer in Net(text).layers if layer.param.type == "Crop"]
    assert wanted
    assert [list(param.crop_param.offset) for param in crops] == wanted
    assert {param.crop_param.axis for param in crops} == {2}


def test_a_crop_of_v1_is_read_without_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net = Net(HEAD + "layers { name: 'crop' type: CROP bottom: 'conv' bottom: 'data' top: 'crop' }")
    assert list(net.layer_dict["crop"].param.crop_param.offset) == [3, 3]
    assert net.blobs["crop"].shape == (1, 1, 16, 20)


def test_a_crop_that_meets_nothing_is_refused():
    text = HEAD.replace("kernel_size: 3", "kernel_size: 4") + (
        "layers { name: 'crop' type: CROP bottom: 'conv' bottom: 'data' top: 'crop' }"
    )
    with pytest.raises(LayerError, match=r"'crop' \(CROP\): where it begins does not follow"):
        Net(text)


def test_stock_caffe_begins_at_0_and_says_so():
    text = read_net(
        "net", text=HEAD + "layers { name: 'crop' type: CROP bottom: 'conv' bottom: 'data' top: 'c' }"
    )
    text.net.layer[-1].type = "Crop"
    with pytest.warns(CaffeWarning, match="begins at 0, as in Caffe 1.0; in forks of 2015 .* at 3, 3"):
        net = Net(text)
    assert net.layer_dict["crop"].param.crop_param.offset == []
