"""What data layers have in common: batches out of files, and `transform_param` (data_transformer.cpp)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property
from typing import TypeVar

from caffe_fcn.errors import CaffeError, LayerError
from caffe_fcn.fillers import random
from caffe_fcn.layers.base import Array, Layer, Shape, fixed, np

T = TypeVar("T")


class _Data(Layer, bottoms=0):
    """A source of batches. It remembers where it stands in its file: the one kind of layer that has a state.

    Files are opened when they are first needed, so that a net can be built and traced without them, as long
    as the prototxt tells the shapes.
    """

    role = "data"
    no_onnx = "reads training data; `caffe-fcn deploy` puts an Input in its place"

    def opened(self, read: Callable[[], T]) -> T:
        """What `read` returns; its CaffeError becomes one of this layer, with a way out."""
        try:
            return read()
        except LayerError:  # of this layer already
            raise
        except CaffeError as error:
            self.check(
                False, str(error), "`caffe-fcn deploy` or `--input-shape BLOB:1,3,H,W` makes do without it"
            )
            raise

    def lines(self, path: str) -> list[str]:
        """The lines of a list of files, without line breaks."""
        try:
            with open(path, encoding="utf-8", errors="surrogateescape") as file:
                return [line.rstrip("\r\n") for line in file]
        except OSError as error:
            raise CaffeError(f"source '{path}': cannot be read: {error.strerror}") from error


class _Transformed(_Data):
    """Images, and `transform_param`: take off the mean, scale, crop, mirror.

    In phase TRAIN crops lie and mirroring happens at random; in phase TEST a crop is the centre and nothing
    is mirrored, so that a net says the same of the same files (Caffe mirrors at random there too).
    """

    def setup(self) -> None:
        p = self.param.transform_param
        self.check(not (p.mean_file and p.mean_value), "mean_file and mean_value are both given", "keep one")
        self.check(
            not (p.force_color and p.force_gray), "force_color and force_gray are both set", "keep one"
        )

    def transformed(self, shape: Shape) -> Shape:
        """The shape of one image of `shape` (C, H, W) after cropping."""
        crop = self.param.transform_param.crop_size
        fits = shape[0] > 0 and min(shape[1:]) >= crop
        self.check(fits, f"crop_size {crop} does not fit into an image of {shape[1]} x {shape[2]}")
        return (shape[0], crop, crop) if crop else shape

    def transform(self, image: Array) -> Array:
        """(C, H, W) of any type -> (C, H', W') float32."""
        p = self.param.transform_param
        _, height, width = self.transformed(image.shape)
        top, left = (
            self._offset(n, fixed(out)) for n, out in zip(image.shape[1:], (height, width), strict=True)
        )
        cut = (slice(None), slice(top, top + height), slice(left, left + width))
        data = (image[cut].astype(np.float32) - self._mean_of(image.shape)[cut]) * np.float32(p.scale)
        return data[:, :, ::-1] if p.mirror and self.training and random().integers(2) else data

    def _offset(self, size: int, out: int) -> int:
        return int(random().integers(size - out + 1)) if self.training else (size - out) // 2

    def _mean_of(self, shape: Shape) -> Array:
        """The mean of an image of `shape`; a view, without memory of its own."""
        p = self.param.transform_param
        if not p.mean_file:
            values = list(p.mean_value) or [0.0]
            fits = len(values) in (1, shape[0])
            self.check(fits, f"{len(values)} mean_value for {shape[0]} channels", "give one, or one for each")
            return np.broadcast_to(np.asarray(values, np.float32)[:, None, None], [fixed(n) for n in shape])
        told = f"mean_file '{p.mean_file}' is {self.mean.shape}, the image {shape}"
        self.check(self.mean.shape == shape, told, "resize the images to the mean's size, or use mean_value")
        return self.mean

    @cached_property
    def mean(self) -> Array:
        """mean_file as (C, H, W)."""
        from caffe_fcn.formats.binaryproto import read_blob

        mean = self.opened(lambda: read_blob(self.param.transform_param.mean_file))
        return np.asarray(mean, np.float32).reshape(
            mean.shape[-3:] if mean.ndim > 3 and mean.shape[0] == 1 else mean.shape
        )

    def batch(self, items: Iterable[tuple[str, Array, float]]) -> list[Array]:
        """(name, image, label) of each item -> (N, C, H, W), (N,)."""
        images: list[Array] = []
        labels = []
        for name, image, label in items:
            images.append(self.transform(image))
            labels.append(label)
            told = f"{name} is {images[-1].shape}, the first of its batch {images[0].shape}"
            alike = images[-1].shape == images[0].shape
            self.check(alike, told, "use crop_size, or batch_size 1; ImageData has new_height and new_width")
        return [np.stack(images), np.asarray(labels, np.float32)][: len(self.param.top)]
