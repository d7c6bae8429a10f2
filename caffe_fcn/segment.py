"""image -> preprocessing -> scores -> label image and overlay."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from caffe_fcn.errors import CaffeError
from caffe_fcn.formats.files import atomic_write
from caffe_fcn.labels import palette
from caffe_fcn.runtime import Device, Session

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}
OPACITY = 0.55  # of the colours over the image


@dataclass
class Labels:
    """One output's label image, and what its labels mean."""

    output: str
    labels: np.ndarray  # (H, W) integers
    classes: list[str] = field(default_factory=list)
    colours: np.ndarray = field(default_factory=palette)  # (n, 3) uint8 RGB

    def name(self, label: int) -> str:
        return self.classes[label] if label < len(self.classes) else f"class {label}"

    def areas(self) -> dict[str, float]:
        """Share of the pixels of each class that occurs, the largest first."""
        found, counts = np.unique(self.labels, return_counts=True)
        order = np.argsort(-counts, kind="stable")
        return {self.name(int(found[i])): float(counts[i]) / self.labels.size for i in order}

    def image(self) -> Image:
        """An indexed image: each pixel is its label, the palette gives the colours."""
        from PIL import Image

        picture = Image.fromarray(self.labels.astype(np.uint8), mode=None)
        picture.putpalette(self.colours.astype(np.uint8).tobytes())
        return picture

    def overlay(self, image: np.ndarray, legend: bool = True) -> Image:
        """The colours over the image (background left clear), a legend of the classes found below it."""
        from PIL import Image

        colour = self.colours[self.labels % len(self.colours)]
        clear = (self.labels == 0) & (self.name(0) == "background")
        alpha = np.where(clear, 0, OPACITY)[..., None]
        mixed = Image.fromarray((image * (1 - alpha) + colour * alpha + 0.5).astype(np.uint8))
        return _with_legend(mixed, self) if legend else mixed


class Segmenter:
    """A converted model that labels pixels: call it with an RGB image.

    Takes files with and without --preprocess, --softmax and --argmax; mean, channel order and classes are
    read from the file's metadata.

    Raises:
        CaffeError: the model's input is not one image of three channels.
        DeviceError: see `runtime.Session`.
    """

    def __init__(self, model: str | os.PathLike[str], device: Device = "auto", **options: Any) -> None:
        self.session = Session(model, device, **options)
        if len(self.session.inputs) != 1:
            names = ", ".join(self.session.inputs)
            raise CaffeError(
                f"{model}: takes {names}; `segment` gives one image", "run it with caffe_fcn.Session"
            )
        ((self.input, info),) = self.session.inputs.items()
        self.pixels = info.type == "tensor(uint8)"
        channels = info.shape[3 if self.pixels else 1] if len(info.shape) == 4 else None
        if channels != 3:
            raise CaffeError(f"{model}: takes {info.shape}; an image is (N, 3, H, W)")
        self.sides = tuple(info.shape[1:3] if self.pixels else info.shape[2:])
        meta = self.session.metadata
        self.mean = np.asarray(json.loads(meta.get("mean", "[0, 0, 0]")), np.float32)
        self.scale = float(json.loads(meta.get("scale", "1")))
        self.classes: dict[str, list[str]] = json.loads(meta.get("classes", "{}"))
        self.colours: dict[str, list[list[int]]] = json.loads(meta.get("palette", "{}"))

    def __call__(self, image: np.ndarray) -> list[Labels]:
        """Label an image (H, W, 3) uint8 RGB; one `Labels` for each output that is a map."""
        for have, want in zip(image.shape[:2], self.sides, strict=True):
            if isinstance(want, int) and have != want:
                raise CaffeError(
                    f"{self.session.path}: takes images of {self.sides[0]}x{self.sides[1]} only, "
                    f"this one is {image.shape[0]}x{image.shape[1]}",
                    "convert without --input-shape for any size",
                )
        values = self.session.run({self.input: self.prepare(image)})
        return [self._labels(name, value) for name, value in values.items() if value.ndim in (3, 4)]

    def prepare(self, image: np.ndarray) -> np.ndarray:
        """What the model takes for this image: pixels as they are, or (1, 3, H, W) BGR without the mean."""
        if self.pixels:
            return image[None]
        bgr = image[:, :, ::-1].astype(np.float32) - self.mean
        return np.ascontiguousarray((bgr * self.scale if self.scale != 1 else bgr).transpose(2, 0, 1)[None])

    def _labels(self, name: str, value: np.ndarray) -> Labels:
        labels = value[0] if value.ndim == 3 else value[0].argmax(axis=0)
        classes = self.classes.get(name, [])
        return Labels(name, labels, classes, np.asarray(self.colours.get(name) or palette(), np.uint8))


def read_image(path: str | os.PathLike[str]) -> np.ndarray:
    """An image file as (H, W, 3) uint8 RGB, upright. Raises CaffeError if it is none."""
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as file:
            return np.asarray(ImageOps.exif_transpose(file).convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise CaffeError(f"{path}: cannot be read as an image: {error}") from error


def images_in(paths: list[str]) -> list[Path]:
    """The files named, and the images in the folders named. Raises CaffeError for a path that is none."""
    found: list[Path] = []
    for text in paths:
        path = Path(text)
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES)
            if not inside:
                raise CaffeError(f"{text}: no images in this folder")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise CaffeError(f"{text}: no such file or folder")
    return found


def save(image: Image, path: Path) -> None:
    """Write a PNG under a temporary name, then rename it."""
    with atomic_write(path) as file:
        image.save(file, format="PNG")


def _with_legend(picture: Image, labels: Labels) -> Image:
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(13)
    entries = list(labels.areas().items())
    numbers = {labels.name(int(n)): int(n) for n in np.unique(labels.labels)}
    width, row, box, gap = max(picture.width, 180), 20, 12, 14
    places, x, y = [], 6, 4
    for name, share in entries:
        text = f"{name} {share:.0%}" if share >= 0.01 else f"{name} <1%"
        length = int(font.getlength(text)) + box + 6 + gap
        if x > 6 and x + length > width:
            x, y = 6, y + row
        places.append((x, y, text, name))
        x += length
    sheet = Image.new("RGB", (width, picture.height + y + row + 2), "white")
    sheet.paste(picture, (0, 0))
    draw = ImageDraw.Draw(sheet)
    for x, y, text, name in places:
        top = picture.height + y + 3
        colour = tuple(int(c) for c in labels.colours[numbers[name] % len(labels.colours)])
        draw.rectangle((x, top, x + box, top + box), fill=colour, outline="black")
        draw.text((x + box + 6, top - 2), text, fill="black", font=font)
    return sheet
