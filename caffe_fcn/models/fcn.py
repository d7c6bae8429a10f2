"""Fully convolutional nets (Long, Shelhamer and Darrell 2015) on VGG-16 and on CaffeNet.

A net's input is padded by 100, so that it works at any size; its scores, a 32nd of the input's size, are
upsampled by Deconvolutions that hold a bilinear kernel and learn nothing, and cropped to the input. FCN-16s
and FCN-8s add the scores of pool4, and of pool3, on the way. No offset is written down here: `coords.crop`
derives them all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from caffe_fcn.coords import crop
from caffe_fcn.models import caffenet, vgg16
from caffe_fcn.net_spec import NetSpec, Top
from caffe_fcn.net_spec import layers as L  # noqa: N812 (pycaffe's custom)
from caffe_fcn.net_spec import params as P  # noqa: N812 (pycaffe's custom)

PAD = 100
LEARNED = [{"lr_mult": 1, "decay_mult": 1}, {"lr_mult": 2, "decay_mult": 0}]  # weight, bias
FROZEN = [{"lr_mult": 0}]
SKIPS: dict[int, tuple[int, ...]] = {32: (), 16: (4,), 8: (4, 3)}  # stride of the finest scores -> pools used


class Head(NamedTuple):
    """What a net predicts: a map of `classes` per pixel."""

    classes: int
    label: str = "label"  # the blob with the truth
    suffix: str = ""  # behind the names of this head's layers
    loss: str = "loss"
    normalize: bool = False  # whether the loss is the mean over pixels, or their sum

    def score(self, bottom: Top) -> Top:
        """A 1x1 convolution to the classes."""
        return L.Convolution(bottom, num_output=self.classes, kernel_size=1, pad=0, param=LEARNED)

    def upsample(self, bottom: Top, stride: int, kernel: int | None = None) -> Top:
        """A Deconvolution that interpolates; its kernel is filled by `surgery.interp`."""
        size = {"num_output": self.classes, "kernel_size": kernel or 2 * stride, "stride": stride}
        return L.Deconvolution(bottom, convolution_param={**size, "bias_term": False}, param=FROZEN)


Features = Callable[[NetSpec, Top, bool], Top]


def vgg(
    n: NetSpec,
    data: Top,
    dropout: bool,
    *,
    widths: Sequence[int] = vgg16.WIDTHS,
    fc: int = 4096,
    suffix: str = "",
    first: str = "conv1_1",
) -> Top:
    """VGG-16 as convolutions, up to what feeds score_fr; `fc` channels in fc6 and fc7."""

    def conv(bottom: Top, width: int, pad: int, size: int = 3) -> Top:
        return L.Convolution(bottom, num_output=width, kernel_size=size, stride=1, pad=pad, param=LEARNED)

    def padded(top: Top, width: int, is_first: bool) -> Top:
        return conv(top, width, PAD if is_first else 1)

    top = vgg16.convolutions(n, data, padded, widths, suffix, first)
    top = _fully(n, 6, conv(top, fc, 0, 7), dropout, suffix)
    return _fully(n, 7, conv(top, fc, 0, 1), dropout, suffix)


def alexnet(n: NetSpec, data: Top, dropout: bool) -> Top:
    """CaffeNet as convolutions, up to what feeds score_fr."""

    def conv(bottom: Top, **given: Any) -> Top:
        return L.Convolution(bottom, **{"stride": 1, "pad": 0, "group": 1, **given})

    top = caffenet.convolutions(n, data, conv, pad=PAD)
    top = _fully(n, 6, conv(top, num_output=4096, kernel_size=6), dropout)
    return _fully(n, 7, conv(top, num_output=4096, kernel_size=1), dropout)


def _fully(n: NetSpec, i: int, conv: Top, dropout: bool, suffix: str = "") -> Top:
    n[f"fc{i}{suffix}"] = conv
    n[f"relu{i}{suffix}"] = top = L.ReLU(conv, in_place=True)
    if dropout:
        n[f"drop{i}{suffix}"] = top = L.Dropout(top, dropout_ratio=0.5, in_place=True)
    return top


def fcn(
    n: NetSpec,
    heads: Sequence[Head],
    train: bool,
    *,
    stride: int = 32,
    kernel: int | None = None,
    scales: Mapping[int, float] | None = None,
    features: Features = vgg,
) -> None:
    """Add a net on `n.data`: features, and for each head its scores; to `train`, Dropout and losses too."""
    top = features(n, n.data, train)
    for head in heads:
        n[f"score_fr{head.suffix}"] = coarse = head.score(top)
        _decode(n, coarse, n.data, head, train, stride, kernel, scales or {})


def early_fusion(n: NetSpec, heads: Sequence[Head], train: bool) -> None:
    """FCN-32s on color and depth, concatenated to one input of 4 channels."""
    n.data = L.Concat(n.color, n.depth)
    fcn(n, heads, train, features=partial(vgg, first="conv1_1_bgrd"))


def late_fusion(n: NetSpec, heads: Sequence[Head], train: bool) -> None:
    """FCN-32s on color and on HHA, a net each; their scores are averaged."""
    for head in heads:
        for modality in ("color", "hha"):
            top = vgg(n, n[modality], train, suffix=modality)
            n[f"score_fr{modality}"] = head.score(top)
        n.score_fused = L.Eltwise(n.score_frcolor, n.score_frhha, operation=P.Eltwise.SUM, coeff=[0.5, 0.5])
        _decode(n, n.score_fused, n.color, head, train)


def _decode(
    n: NetSpec,
    coarse: Top,
    data: Top,
    head: Head,
    train: bool,
    stride: int = 32,
    kernel: int | None = None,
    scales: Mapping[int, float] = {},
) -> None:
    """From the coarse scores to scores of the size of `data`, over the skips that `stride` says.

    `scales` multiplies a pool before it is scored, so that all the skips can learn at once.
    """
    top, up, s = coarse, "upscore2", head.suffix
    for pool in SKIPS[stride]:
        n[up + s] = upscored = head.upsample(top, 2)
        skip = n[f"pool{pool}"]
        if pool in scales:
            filler = {"type": "constant", "value": scales[pool]}
            n[f"scale_pool{pool}{s}"] = skip = L.Scale(skip, filler=filler, param=FROZEN)
        n[f"score_pool{pool}{s}"] = head.score(skip)
        n[f"score_pool{pool}{s}c"] = cropped = crop(n[f"score_pool{pool}{s}"], upscored)
        n[f"fuse_pool{pool}{s}"] = top = L.Eltwise(upscored, cropped, operation=P.Eltwise.SUM)
        up = f"upscore_pool{pool}"
    n[("upscore" if stride == 32 else f"upscore{stride}") + s] = full = head.upsample(top, stride, kernel)
    n[f"score{s}"] = score = crop(full, data)
    if train:
        how = {"normalize": head.normalize, "ignore_label": 255}
        n[head.loss] = L.SoftmaxWithLoss(score, n[head.label], loss_param=how)
