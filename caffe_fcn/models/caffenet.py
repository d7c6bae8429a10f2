"""CaffeNet, BVLC's AlexNet: its convolutions, and the net that classifies ImageNet with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from caffe_fcn.models.vgg16 import classify
from caffe_fcn.net_spec import NetSpec, Top
from caffe_fcn.net_spec import layers as L  # noqa: N812 (pycaffe's custom)
from caffe_fcn.net_spec import params as P  # noqa: N812 (pycaffe's custom)

# conv1 to conv5: channels, kernel, the rest
CONVOLUTIONS: tuple[tuple[int, int, dict[str, int]], ...] = (
    (96, 11, {"stride": 4}),
    (256, 5, {"pad": 2, "group": 2}),
    (384, 3, {"pad": 1}),
    (384, 3, {"pad": 1, "group": 2}),
    (256, 3, {"pad": 1, "group": 2}),
)


def convolutions(n: NetSpec, data: Top, convolution: Callable[..., Top], pad: int | None = None) -> Top:
    """Add conv1 to pool5 on `data`, and return pool5.

    `convolution(bottom, num_output=, kernel_size=, ...)` makes a convolution; `pad` is conv1's.
    """
    top = data
    for i, (width, kernel, more) in enumerate(CONVOLUTIONS, start=1):
        first = {"pad": pad} if i == 1 and pad is not None else {}
        n[f"conv{i}"] = convolution(top, num_output=width, kernel_size=kernel, **more, **first)
        n[f"relu{i}"] = top = L.ReLU(n[f"conv{i}"], in_place=True)
        if i in (1, 2, 5):
            n[f"pool{i}"] = top = L.Pooling(top, pool=P.Pooling.MAX, kernel_size=3, stride=2)
        if i in (1, 2):
            n[f"norm{i}"] = top = L.LRN(top, local_size=5, alpha=1e-4, beta=0.75)
    return top


def classifier() -> Any:
    """CaffeNet: (10, 3, 227, 227), BGR less its mean -> `prob` (10, 1000)."""
    n = NetSpec()
    n.data = L.Input(shape={"dim": [10, 3, 227, 227]})
    classify(n, convolutions(n, n.data, L.Convolution))
    net = n.to_proto()
    net.name = "CaffeNet"
    return net
