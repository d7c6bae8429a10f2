"""caffe.Classifier: a net that says what an image is (python/caffe/classifier.py)."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from caffe_fcn.net import TEST
from caffe_fcn.pycaffe import io
from caffe_fcn.pycaffe.net import Net


class ImageNet(Net):
    """What Classifier and Detector share: a net with one image input and a Transformer for it."""

    def __init__(
        self,
        model_file: str | os.PathLike[str],
        pretrained_file: str | os.PathLike[str],
        mean: np.ndarray | None = None,
        input_scale: float | None = None,
        raw_scale: float | None = None,
        channel_swap: Sequence[int] | None = None,
    ) -> None:
        super().__init__(model_file, TEST, weights=pretrained_file)
        name = self.inputs[0]
        self.transformer = io.Transformer({name: self.blobs[name].shape})
        self.transformer.set_transpose(name, (2, 0, 1))
        if mean is not None:
            self.transformer.set_mean(name, mean)
        if input_scale is not None:
            self.transformer.set_input_scale(name, input_scale)
        if raw_scale is not None:
            self.transformer.set_raw_scale(name, raw_scale)
        if channel_swap is not None:
            self.transformer.set_channel_swap(name, channel_swap)

    def scores(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """The net's first output for images (H, W, K): one row each."""
        name = self.inputs[0]
        made = np.stack([self.transformer.preprocess(name, image) for image in images])
        return self.forward_all(blobs=None, **{name: made})[self.outputs[0]]


class Classifier(ImageNet):
    """A net for whole images.

    Args:
        model_file: the prototxt.
        pretrained_file: the weights.
        image_dims: (height, width) that an image is brought to before crops are taken; the input's size by
            default.
        mean: see `io.Transformer`, as input_scale, raw_scale and channel_swap.
    """

    def __init__(
        self,
        model_file: str | os.PathLike[str],
        pretrained_file: str | os.PathLike[str],
        image_dims: Sequence[int] | None = None,
        mean: np.ndarray | None = None,
        input_scale: float | None = None,
        raw_scale: float | None = None,
        channel_swap: Sequence[int] | None = None,
    ) -> None:
        super().__init__(model_file, pretrained_file, mean, input_scale, raw_scale, channel_swap)
        self.crop_dims = np.array(self.blobs[self.inputs[0]].shape[2:])
        self.image_dims = self.crop_dims if image_dims is None else image_dims

    def predict(self, inputs: Sequence[np.ndarray], oversample: bool = True) -> np.ndarray:
        """Class probabilities (N, C) of images (H, W, K).

        With `oversample` the mean over corners, centre and their mirror images, else those of the centre.
        """
        images = [io.resize_image(image, list(self.image_dims)) for image in inputs]
        if oversample:
            found = self.scores(list(io.oversample(images, list(self.crop_dims))))
            return np.asarray(found.reshape(len(images), 10, -1).mean(1))
        height, width = (int(n) for n in self.crop_dims)
        top, left = (int((n - crop) / 2) for n, crop in zip(self.image_dims, self.crop_dims, strict=True))
        return self.scores([image[top : top + height, left : left + width] for image in images])
