"""Dropout. Semantics: src/caffe/layers/dropout_layer.cpp."""

from __future__ import annotations

from caffe_fcn.fillers import random
from caffe_fcn.layers.base import Array, Builder, Value, np
from caffe_fcn.layers.neuron import _Neuron


class Dropout(_Neuron):
    """In phase TRAIN each element is 0 with probability `dropout_ratio`; in phase TEST nothing happens.

    Bottom: any shape. Top: the same. What is kept is scaled up by 1 / (1 - ratio) when training, so that
    nothing is left to do in TEST. With `scale_train: false` (DeepLab, PSPNet, Fast R-CNN) it is scaled
    down in TEST instead.
    """

    def setup(self) -> None:
        self.ratio = self.param.dropout_param.dropout_ratio
        self.scale_train = bool(self.fields.get("dropout_param", {}).get("scale_train", True))
        self.check(0 <= self.ratio < 1, f"dropout_ratio {self.ratio} is not in [0, 1)")

    def apply(self, x: Array) -> Array:
        if not self.training:
            return x if self.scale_train else x * np.float32(1 - self.ratio)
        kept = x * (random().random(x.shape, np.float32) >= self.ratio)
        return kept / np.float32(1 - self.ratio) if self.scale_train else kept

    def lower(self, g: Builder, x: Value) -> str:
        if self.training:
            self.unsupported("drops elements at random in phase TRAIN", "build the net in phase TEST")
        return str(x) if self.scale_train else g.op("Mul", x, g.scalar(1 - self.ratio))
