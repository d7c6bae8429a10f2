"""caffe.Detector: a classifier run on windows of images, as in R-CNN (python/caffe/detector.py)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

import numpy as np

from caffe_fcn.errors import CaffeError
from caffe_fcn.pycaffe import io
from caffe_fcn.pycaffe.classifier import ImageNet

Window = Sequence[int]  # top, left, bottom, right


class Detector(ImageNet):
    """A net for windows of images.

    Args:
        model_file: the prototxt.
        pretrained_file: the weights.
        mean: see `io.Transformer`, as input_scale, raw_scale and channel_swap.
        context_pad: pixels of the net's input that show what is around the window, on each side.
    """

    def __init__(
        self,
        model_file: str | os.PathLike[str],
        pretrained_file: str | os.PathLike[str],
        mean: np.ndarray | None = None,
        input_scale: float | None = None,
        raw_scale: float | None = None,
        channel_swap: Sequence[int] | None = None,
        context_pad: int | None = None,
    ) -> None:
        super().__init__(model_file, pretrained_file, mean, input_scale, raw_scale, channel_swap)
        self.configure_crop(context_pad)

    def configure_crop(self, context_pad: int | None) -> None:
        """Set the context, and what stands where a window reaches beyond its image: the mean, as pixels."""
        name = self.inputs[0]
        channels, height, width = self.blobs[name].shape[1:]
        self.crop_dims = np.array((height, width, channels))
        self.context_pad = context_pad
        self.crop_mean = np.zeros((height, width, channels), np.float32)
        if name in self.transformer.mean:
            mean = self.transformer.mean[name].transpose(1, 2, 0)
            swap = self.transformer.channel_swap.get(name, range(channels))
            self.crop_mean += mean[:, :, np.argsort(swap)] / self.transformer.raw_scale.get(name, 1)

    def detect_windows(self, images_windows: Iterable[tuple[str, Iterable[Window]]]) -> list[dict[str, Any]]:
        """A dict of filename, window and prediction for each window of each image file."""
        pairs: list[tuple[str, Window]] = []
        crops: list[np.ndarray] = []
        for filename, windows in images_windows:
            image = io.load_image(filename)
            for window in windows:
                pairs.append((filename, window))
                crops.append(self.crop(image, window))
        found = self.scores(crops)
        return [
            {"window": window, "prediction": prediction, "filename": filename}
            for (filename, window), prediction in zip(pairs, found, strict=True)
        ]

    def detect_selective_search(self, *_: Any) -> NoReturn:
        """Not there: selective search ran in MATLAB. Raises CaffeError."""
        raise CaffeError("selective search is not there", "give windows of your own to detect_windows")

    def crop(self, im: np.ndarray, window: Window) -> np.ndarray:
        """A window of an image (H, W, K), with the context around it if there is to be some."""
        top, left, bottom, right = (int(n) for n in window)
        if not self.context_pad:
            return im[top:bottom, left:right]
        size = int(self.crop_dims[1])  # the input is taken for a square
        grow = size / (size - 2.0 * self.context_pad)
        half = np.array([bottom - top + 1, right - left + 1]) / 2.0
        centre = np.array([top, left]) + half
        box = np.round([*(centre - grow * half), *(centre + grow * half)])
        scale = size / (box[2:] - box[:2] + 1)
        pad = np.round(np.maximum(0, -box[:2]) * scale).astype(int)
        limits = np.array([*im.shape[:2], *im.shape[:2]])
        inside = np.clip(box, 0, limits).astype(int)
        wanted = np.round((inside[2:] - inside[:2] + 1) * scale).astype(int)
        height, width = np.minimum(wanted, size - pad)
        made = self.crop_mean.copy()
        context = im[inside[0] : inside[2], inside[1] : inside[3]]
        made[pad[0] : pad[0] + height, pad[1] : pad[1] + width] = io.resize_image(context, (height, width))
        return made
