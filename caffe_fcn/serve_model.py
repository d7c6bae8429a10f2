"""What a model that labels no pixels says of an image: its best classes, a picture, or numbers."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from caffe_fcn.errors import CaffeError, DeviceError
from caffe_fcn.report.page import data_uri, png
from caffe_fcn.runtime import Device, Session
from caffe_fcn.segment import Segmenter, planes

BEST = 5  # classes that are told
FIRST = 8  # numbers of an output that are told
GREY = (299, 587, 114)  # thousandths of red, green and blue in a grey value (ITU-R 601), as Pillow and OpenCV


class Model:
    """A converted model of one image, of three channels or of one, whatever it gives. Threads may share it.

    Where the file fixes the size of images, they are made to cover it and their middle is shown. One channel
    is the grey of the image from 0 to 1, unless the file's metadata states a scale.

    Args:
        names: of the classes, for outputs that are a score for each.

    Raises CaffeError if the model takes anything else.
    """

    def __init__(self, session: Session, names: Sequence[str] = ()) -> None:
        self.session, self.names, self.path = session, list(names), session.path
        inputs = list(session.inputs.items())
        shape = inputs[0][1].shape
        self.pixels = inputs[0][1].type == "tensor(uint8)"
        channels = shape[3 if self.pixels else 1] if len(shape) == 4 else None
        if len(inputs) != 1 or channels not in (1, 3):
            told = ", ".join(f"{name} {info.shape}" for name, info in inputs)
            raise CaffeError(f"{self.path}: takes {told}; an image is (N, 3, H, W), or (N, 1, H, W)")
        self.input, self.channels = inputs[0][0], channels
        self.count = shape[0] if isinstance(shape[0], int) else 1
        self.sides = tuple(shape[1:3] if self.pixels else shape[2:])
        self.mean, self.scale = _pixels(session.metadata, channels)

    def answers(self, image: np.ndarray) -> list[dict[str, Any]]:
        """What each output says of an image (H, W, 3) uint8 RGB, as plain data for JSON.

        "top": the best classes of one score a class; "picture": a map of one channel or three, its numbers
        read as the input's are; "numbers": anything else.
        """
        data = self._prepared(self._fitted(image))
        feeds = {self.input: np.repeat(data, self.count, axis=0)}
        return [self._answer(name, value) for name, value in self.session.run(feeds).items()]

    def _fitted(self, image: np.ndarray) -> np.ndarray:
        from PIL import Image, ImageOps

        want = [
            n if isinstance(n, int) else have for n, have in zip(self.sides, image.shape[:2], strict=True)
        ]
        if want == list(image.shape[:2]):
            return image
        return np.asarray(ImageOps.fit(Image.fromarray(image), (want[1], want[0])))

    def _prepared(self, image: np.ndarray) -> np.ndarray:
        if self.pixels:
            return image[None]
        if self.channels == 1:
            grey = (image @ np.asarray(GREY, np.float32) / 1000)[None, None]
            return ((grey - self.mean[0]) * self.scale).astype(np.float32)
        return planes(image, self.mean, self.scale)

    def _answer(self, name: str, value: np.ndarray) -> dict[str, Any]:
        one = np.asarray(value[0] if value.ndim > 1 else value)
        if one.ndim == 3 and one.shape[0] in (1, 3) and one.shape[1] * one.shape[2] > 1:
            return {"name": name, "kind": "picture", **self._picture(one)}
        if one.dtype.kind == "f" and one.size == max(one.shape, default=0) and one.size > 1:
            return {"name": name, "kind": "top", "classes": self._best(one.ravel()), "of": one.size}
        shape = " × ".join(map(str, value.shape)) or "one number"
        flat = value.ravel()[:FIRST].tolist()
        return {"name": name, "kind": "numbers", "shape": shape, "first": [_told(x) for x in flat]}

    def _best(self, scores: np.ndarray) -> list[dict[str, Any]]:
        """The largest; their share in the softmax, which scores that are one keep."""
        wide = np.nan_to_num(scores.astype(np.float64))
        if wide.min() < 0 or abs(wide.sum() - 1) > 1e-2:
            wide = np.exp(wide - wide.max())
            wide /= wide.sum()
        order = np.argsort(-wide, kind="stable")[:BEST]
        names = self.names if len(self.names) == len(wide) else [f"class {i}" for i in range(len(wide))]
        return [
            {"label": int(i), "name": names[i], "share": float(wide[i]), "score": _told(scores[i])}
            for i in order
        ]

    def _picture(self, value: np.ndarray) -> dict[str, Any]:
        from PIL import Image

        mean = self.mean if len(self.mean) == len(value) else np.zeros(len(value), np.float32)
        shown = np.nan_to_num(value.astype(np.float32)) / self.scale + mean[:, None, None]
        least, most = float(shown.min()), float(shown.max())
        stretched = most - least < 4 or least < -255 or most > 510  # it is not read as the input is
        if stretched:
            shown = (shown - least) * (255 / max(most - least, 1e-20))
        rgb = (shown.clip(0, 255) + 0.5).astype(np.uint8)[::-1].transpose(1, 2, 0)
        picture = Image.fromarray(rgb if len(value) == 3 else rgb[:, :, 0])
        return {
            "picture": data_uri(png(picture), "image/png"),
            "size": list(value.shape[1:]),
            "told": f"stretched, from {least:.4g} to {most:.4g}" if stretched else "",
        }


def model_of(
    path: str | os.PathLike[str], device: Device = "auto", names: Sequence[str] = ()
) -> Segmenter | Model:
    """What answers for a model file: a Segmenter if it labels pixels.

    Raises CaffeError if it takes no image; DeviceError as `Session`.
    """
    try:
        segmenter = Segmenter(path, device)
    except DeviceError:
        raise
    except CaffeError:
        return Model(Session(path, device), names)
    return (
        segmenter
        if any(_labels(segmenter, *each) for each in segmenter.maps.items())
        else Model(segmenter.session, names)
    )


def _labels(segmenter: Segmenter, name: str, shape: Sequence[Any]) -> bool:
    """Whether an output is labels, or scores of classes: one channel is none, nor are three without names."""
    if len(shape) == 3 or name in segmenter.classes:
        return True
    return shape[1] not in (1, 3) and list(shape[2:]) != [1, 1]


def _pixels(meta: Mapping[str, str], channels: int) -> tuple[np.ndarray, np.float32]:
    """Mean in B, G, R, and scale."""
    try:
        mean = np.atleast_1d(np.asarray(json.loads(meta.get("mean", "0")), np.float32))
        scale = np.float32(json.loads(meta.get("scale", "1")))
    except (ValueError, TypeError) as error:
        raise CaffeError(f"the metadata is not as convert-fcn writes it: {error}") from error
    if channels == 3:
        return np.broadcast_to(mean, 3), scale
    mean = mean if len(mean) == 1 else np.zeros(1, np.float32)
    return mean, np.float32(1 / 255) if scale == 1 else scale


def _told(value: Any) -> Any:
    """A number as JSON takes it."""
    number = float(value)
    return float(f"{number:.6g}") if np.isfinite(number) else str(number)
