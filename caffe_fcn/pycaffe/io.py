"""caffe.io: messages <-> arrays, and images on their way into a net (python/caffe/io.py).

Images are arrays (height, width, channels), RGB, float32 in [0, 1]. What pycaffe left to scikit-image is done
here as its versions of that time did it: bilinear, pixel centres aligned, without smoothing when it shrinks.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from caffe_fcn.errors import CaffeError, nearest
from caffe_fcn.formats import caffe_pb2
from caffe_fcn.formats.images import opened

__all__ = [
    "Transformer", "array_to_blobproto", "array_to_datum", "arraylist_to_blobprotovector_str",
    "blobproto_to_array", "blobprotovector_str_to_arraylist", "caffe_pb2", "datum_to_array", "load_image",
    "oversample", "resize_image",
]  # fmt: skip

_LUMINANCE = np.array([0.2125, 0.7154, 0.0721])  # of red, green, blue (scikit-image's rgb2gray)


# --- messages


def blobproto_to_array(blob: Any, return_diff: bool = False) -> np.ndarray:
    """The data (or the diff) of a BlobProto, float64, in its shape. ValueError if that does not fit."""
    data = np.array(blob.diff if return_diff else blob.data or blob.double_data, np.float64)
    four = ("num", "channels", "height", "width")
    legacy = any(blob.HasField(name) for name in four)
    return data.reshape([getattr(blob, name) for name in four] if legacy else list(blob.shape.dim))


def array_to_blobproto(arr: np.ndarray, diff: np.ndarray | None = None) -> Any:
    """A BlobProto of an array, and of its gradient if one is given."""
    blob = caffe_pb2.BlobProto()
    blob.shape.dim.extend(arr.shape)
    blob.data.extend(np.asarray(arr, np.float64).ravel())
    if diff is not None:
        blob.diff.extend(np.asarray(diff, np.float64).ravel())
    return blob


def arraylist_to_blobprotovector_str(arraylist: Iterable[np.ndarray]) -> bytes:
    """The bytes of a BlobProtoVector of these arrays."""
    return caffe_pb2.BlobProtoVector(
        blobs=[array_to_blobproto(array) for array in arraylist]
    ).SerializeToString()


def blobprotovector_str_to_arraylist(str: bytes) -> list[np.ndarray]:  # noqa: A002 (pycaffe's name)
    """The arrays of a BlobProtoVector in bytes."""
    return [blobproto_to_array(blob) for blob in caffe_pb2.BlobProtoVector.FromString(str).blobs]


def array_to_datum(arr: np.ndarray, label: int | None = None) -> Any:
    """A Datum of an array (C, H, W): bytes if it is uint8, else floats. ValueError for other axes."""
    if arr.ndim != 3:
        raise ValueError(f"a Datum is (channels, height, width), not {arr.shape}")
    datum = caffe_pb2.Datum(channels=arr.shape[0], height=arr.shape[1], width=arr.shape[2])
    if arr.dtype == np.uint8:
        datum.data = arr.tobytes()
    else:
        datum.float_data.extend(arr.astype(np.float64).ravel())
    if label is not None:
        datum.label = label
    return datum


def datum_to_array(datum: Any) -> np.ndarray:
    """The array (C, H, W) of a Datum: uint8, or float64 if it holds floats. ValueError if it is encoded."""
    flat = np.frombuffer(datum.data, np.uint8) if datum.data else np.array(datum.float_data, np.float64)
    return flat.reshape(datum.channels, datum.height, datum.width).copy()


# --- images


def load_image(filename: str | os.PathLike[str], color: bool = True) -> np.ndarray:
    """An image file as (H, W, 3) RGB, or (H, W, 1) if not `color`; float32 in [0, 1], without alpha.

    Raises CaffeError for what is not an image.
    """
    with opened(filename) as image:
        plain = image.mode in ("L", "RGB", "I", "I;16", "F")
        pixels = np.asarray(image if plain else image.convert("L" if image.mode == "1" else "RGB"))
    values = pixels.astype(np.float64)
    if pixels.dtype.kind in "iu":
        values /= 65535 if image.mode.startswith("I") else 255
    if values.ndim == 3 and not color:
        values = values @ _LUMINANCE
    if values.ndim == 2:
        values = np.repeat(values[:, :, None], 3 if color else 1, axis=2)
    return values.astype(np.float32)


def resize_image(im: np.ndarray, new_dims: Sequence[int], interp_order: int = 1) -> np.ndarray:
    """(H, W, K) -> (new_dims[0], new_dims[1], K), float32; `interp_order` 1 is linear, 0 the nearest pixel.

    With 1 or 3 channels pixel centres are aligned, and beyond its edge an image is as dark as its darkest
    pixel; with other numbers of channels the corner pixels stay in the corners, as pycaffe has it.
    """
    if interp_order not in (0, 1):
        raise CaffeError(f"resize_image: interp_order {interp_order} is not there", "0 is nearest, 1 linear")
    centred = im.shape[-1] in (1, 3)
    floor = float(im.min()) if centred else 0.0
    data = im.astype(np.float64) - floor
    for axis in (0, 1):
        data = _resample(data, axis, int(new_dims[axis]), interp_order, centred)
    return (data + floor).astype(np.float32)


def _resample(data: np.ndarray, axis: int, out: int, order: int, centred: bool) -> np.ndarray:
    size = data.shape[axis]
    if centred:
        at = (np.arange(out) + 0.5) * size / out - 0.5
    else:
        at = np.arange(out) * ((size - 1) / max(out - 1, 1))
    if order == 0:
        return np.take(data, np.floor(at + 0.5).clip(0, size - 1).astype(np.int64), axis)
    first = np.floor(at).astype(np.int64)
    total: Any = 0
    for index, weight in ((first, first + 1 - at), (first + 1, at - first)):
        weight = np.where((index >= 0) & (index < size), weight, 0.0)
        weight = weight.reshape([-1 if i == axis else 1 for i in range(data.ndim)])
        total = total + np.take(data, index.clip(0, size - 1), axis) * weight
    return np.asarray(total)


def oversample(images: Sequence[np.ndarray], crop_dims: Sequence[int]) -> np.ndarray:
    """The four corners and the centre of each image, then the same mirrored: (10 * N, h, w, K), float32."""
    height, width = (int(n) for n in crop_dims)
    rows, columns = images[0].shape[0] - height, images[0].shape[1] - width
    corners = [(top, left) for top in (0, rows) for left in (0, columns)]
    starts = [*corners, (int(rows / 2), int(columns / 2))]
    crops = []
    for image in images:
        cut = [image[top : top + height, left : left + width] for top, left in starts]
        crops += [*cut, *(crop[:, ::-1] for crop in cut)]
    return np.stack(crops).astype(np.float32)


class Transformer:
    """What has to be done to an image before it goes into a net, for each input.

    Args:
        inputs: the shape of each input blob, (N, K, H, W) by name.

    In this order: resize to the input, `transpose`, `channel_swap`, times `raw_scale`, minus `mean`, times
    `input_scale`; each only if it was set.
    """

    def __init__(self, inputs: Mapping[str, Sequence[int]]) -> None:
        self.inputs = inputs
        self.transpose: dict[str, Sequence[int]] = {}
        self.channel_swap: dict[str, Sequence[int]] = {}
        self.raw_scale: dict[str, float] = {}
        self.mean: dict[str, np.ndarray] = {}
        self.input_scale: dict[str, float] = {}

    def preprocess(self, in_: str, data: np.ndarray) -> np.ndarray:
        """(H', W', K) -> what the input takes, (K, H, W) float32."""
        height, width = self._shape(in_)[2:]
        made = data.astype(np.float32)
        if made.shape[:2] != (height, width):
            made = resize_image(made, (height, width))
        if in_ in self.transpose:
            made = made.transpose(self.transpose[in_])
        if in_ in self.channel_swap:
            made = made[list(self.channel_swap[in_])]
        if in_ in self.raw_scale:
            made *= self.raw_scale[in_]
        if in_ in self.mean:
            made -= self.mean[in_]
        if in_ in self.input_scale:
            made *= self.input_scale[in_]
        return made

    def deprocess(self, in_: str, data: np.ndarray) -> np.ndarray:
        """`preprocess` backwards, but for the resizing: (1, K, H, W) or (K, H, W) -> (H, W, K)."""
        self._shape(in_)
        made = data.copy().squeeze()
        if in_ in self.input_scale:
            made /= self.input_scale[in_]
        if in_ in self.mean:
            made += self.mean[in_]
        if in_ in self.raw_scale:
            made /= self.raw_scale[in_]
        if in_ in self.channel_swap:
            made = made[np.argsort(self.channel_swap[in_])]
        if in_ in self.transpose:
            made = made.transpose(np.argsort(self.transpose[in_]))
        return made

    def set_transpose(self, in_: str, order: Sequence[int]) -> None:
        """The order of the axes: (2, 0, 1) makes (K, H, W) of (H, W, K)."""
        self._count(in_, "transpose order", order, len(self._shape(in_)) - 1)
        self.transpose[in_] = order

    def set_channel_swap(self, in_: str, order: Sequence[int]) -> None:
        """The order of the channels, after transposing: (2, 1, 0) makes BGR of RGB."""
        self._count(in_, "channel swap", order, self._shape(in_)[1])
        self.channel_swap[in_] = order

    def set_raw_scale(self, in_: str, scale: float) -> None:
        """What values are multiplied by before the mean is taken off: 255 for nets of 8-bit pixels."""
        self._shape(in_)
        self.raw_scale[in_] = scale

    def set_mean(self, in_: str, mean: np.ndarray) -> None:
        """What is taken off: a value for each channel, or an image, which is resized to the input.

        ValueError for another number of channels or axes.
        """
        shape = self._shape(in_)[1:]
        if mean.ndim == 1:
            if len(mean) != shape[0]:
                raise ValueError(f"a mean of {len(mean)} channels for the {shape[0]} of input '{in_}'")
            mean = mean[:, None, None]
        elif mean.ndim not in (2, 3):
            raise ValueError(f"a mean of {mean.ndim} axes: (K,), (H, W) or (K, H, W) are needed")
        elif (1,) * (3 - mean.ndim) + mean.shape != shape:
            image = mean.reshape(-1, *mean.shape[-2:])
            mean = resize_image(image.transpose(1, 2, 0), shape[1:]).transpose(2, 0, 1)
        self.mean[in_] = mean

    def set_input_scale(self, in_: str, scale: float) -> None:
        """What values are multiplied by at last."""
        self._shape(in_)
        self.input_scale[in_] = scale

    def _shape(self, in_: str) -> tuple[int, ...]:
        if in_ not in self.inputs:
            raise CaffeError(
                f"'{in_}' is not one of the net's inputs: {list(self.inputs)}", nearest(in_, self.inputs)
            )
        return tuple(self.inputs[in_])

    def _count(self, in_: str, what: str, order: Sequence[int], wanted: int) -> None:
        if len(order) != wanted:
            raise CaffeError(f"{what} {tuple(order)} has {len(order)} entries, input '{in_}' needs {wanted}")
