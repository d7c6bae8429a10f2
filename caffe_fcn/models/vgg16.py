"""VGG-16 (Simonyan and Zisserman 2015): its convolutions, and the net that classifies ImageNet with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from caffe_fcn.net_spec import NetSpec, Top
from caffe_fcn.net_spec import layers as L  # noqa: N812 (pycaffe's custom)
from caffe_fcn.net_spec import params as P  # noqa: N812 (pycaffe's custom)

WIDTHS = (64, 128, 256, 512, 512)  # channels of conv1 to conv5
DEPTHS = (2, 2, 3, 3, 3)  # convolutions in each


def convolutions(
    n: NetSpec,
    data: Top,
    convolution: Callable[[Top, int, bool], Top],
    widths: Sequence[int] = WIDTHS,
    suffix: str = "",
    first: str = "conv1_1",
) -> Top:
    """Add conv1_1 to pool5 on `data`, and return pool5.

    `convolution(bottom, width, is_first)` makes a convolution of `width` channels. `suffix` goes behind every
    name; `first` is the name of the first layer, which inputs of another kind need to be another.
    """
    top = data
    for block, (width, depth) in enumerate(zip(widths, DEPTHS, strict=True), start=1):
        for i in range(1, depth + 1):
            name = f"{block}_{i}"
            conv = convolution(top, width, name == "1_1")
            n[(first if name == "1_1" else f"conv{name}") + suffix] = conv
            n[f"relu{name}{suffix}"] = top = L.ReLU(conv, in_place=True)
        n[f"pool{block}{suffix}"] = top = L.Pooling(top, pool=P.Pooling.MAX, kernel_size=2, stride=2)
    return top


def classifier() -> Any:
    """VGG_ILSVRC_16_layers: (10, 3, 224, 224), BGR less its mean -> `prob` (10, 1000)."""
    n = NetSpec()
    n.data = L.Input(shape={"dim": [10, 3, 224, 224]})
    pool5 = convolutions(
        n, n.data, lambda top, width, _: L.Convolution(top, num_output=width, pad=1, kernel_size=3)
    )
    classify(n, pool5)
    net = n.to_proto()
    net.name = "VGG_ILSVRC_16_layers"
    return net


def classify(n: NetSpec, pool5: Top) -> None:
    """Add the fully connected fc6, fc7 and fc8 (1000 classes) and the softmax: VGG-16's and CaffeNet's."""
    top = pool5
    for i in (6, 7):
        n[f"fc{i}"] = L.InnerProduct(top, num_output=4096)
        n[f"relu{i}"] = L.ReLU(n[f"fc{i}"], in_place=True)
        n[f"drop{i}"] = top = L.Dropout(n[f"relu{i}"], dropout_ratio=0.5, in_place=True)
    n.fc8 = L.InnerProduct(top, num_output=1000)
    n.prob = L.Softmax(n.fc8)
