"""Convolutions of each channel by itself, under the names that forks gave them."""

from __future__ import annotations

from caffe_fcn.layers.base import Shape, fixed, register
from caffe_fcn.layers.convolution import Convolution


class DepthwiseConvolution(Convolution):
    """A Convolution whose `group` is the number of channels, unless the prototxt gives it.

    Bottoms: (N, C, H, W). Tops: (N, num_output, H', W'). Weights: (num_output, C / group, *kernel)
    (depthwise_conv_layer.cpp of yonghenglh6 and MobileNet-YOLO).
    """

    fork = "yonghenglh6's DepthwiseConvolution, MobileNet-YOLO"

    def _group(self, bottom: Shape) -> int:
        p = self.param.convolution_param
        return p.group if p.HasField("group") else fixed(bottom[self._channel_axis(bottom)])


@register("ConvolutionDepthWise")
class ConvolutionDepthwise(Convolution):
    """A Convolution of each channel by itself, whatever `num_output` and `group` say.

    Bottoms: (N, C, H, W). Tops: (N, C, H', W'). Weights: (C, 1, *kernel) (conv_dw_layer.cpp of farmingyard).
    """

    fork = "farmingyard's caffe-mobilenet, ShuffleNet"

    def _outputs(self, bottom: Shape) -> int:
        return fixed(bottom[self._channel_axis(bottom)])

    def _group(self, bottom: Shape) -> int:
        return self._outputs(bottom)
