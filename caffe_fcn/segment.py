"""image -> preprocessing -> scores -> label image and overlay."""

from __future__ import annotations

import base64
import io
import json
import os
import threading
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from caffe_fcn.errors import CaffeError
from caffe_fcn.formats.files import atomic_write
from caffe_fcn.formats.images import opened, upright
from caffe_fcn.formats.png import write_png, write_strips
from caffe_fcn.labels import palette
from caffe_fcn.runtime import Bound, Device, Session

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}
LABEL, OVERLAY = ".label.png", ".overlay.png"  # what `caffe-fcn segment` writes for an image
OPACITY = 140  # of the colours over the image, of 255
ALONE = 1 << 17  # pixels; passes over more take turns on a CPU: one fills the cores, two would its memory
SHOWN = 1024  # pixels of the longer side of what a notebook shows
KEPT = 2  # shapes of which a thread keeps its buffers
STRIP = 1 << 20  # pixels worked on at a time, where an image may be large
BLOCK = 1 << 15  # pixels whose scores are compared at a time: they stay in the cache


@dataclass
class Labels:
    """One output's label image, and what its labels mean."""

    output: str
    labels: np.ndarray  # (H, W) integers
    classes: list[str] = field(default_factory=list)
    colours: np.ndarray = field(default_factory=palette)  # (n, 3) uint8 RGB

    def name(self, label: int) -> str:
        return self.classes[label] if label < len(self.classes) else f"class {label}"

    def colour(self, label: int) -> tuple[int, int, int]:
        """(red, green, blue) of 0 to 255."""
        r, g, b = (int(c) for c in self.colours[label % len(self.colours)])
        return r, g, b

    def counts(self) -> dict[int, int]:
        """Pixels of each label that occurs, the most frequent first."""
        from PIL import Image

        found = np.zeros(0, np.int64)
        rows = max(1, STRIP // max(1, self.labels.shape[1]))
        for top in range(0, len(self.labels), rows):
            strip = self.labels[top : top + rows]
            if strip.dtype == np.uint8:  # three times as fast as bincount
                counts = np.array(Image.fromarray(strip).histogram())
            else:
                counts = np.bincount(strip.ravel(), minlength=len(found))
            counts[: len(found)] += found
            found = counts
        order = np.argsort(-found, kind="stable")
        return {int(n): int(found[n]) for n in order if found[n]}

    def areas(self) -> dict[str, float]:
        """Share of the pixels of each class that occurs, the largest first."""
        return {self.name(n): count / self.labels.size for n, count in self.counts().items()}

    def image(self) -> Image:
        """An indexed image: each pixel is its label, the palette gives the colours.

        Raises CaffeError for labels above 255, which such an image cannot hold.
        """
        from PIL import Image

        if self.labels.dtype != np.uint8 and self.labels.max(initial=0) > 255:
            raise CaffeError(
                f"{self.output}: label {self.labels.max()} does not fit an indexed image (0 to 255)"
            )
        picture = Image.fromarray(self.labels.astype(np.uint8, copy=False))
        picture.putpalette(self.colours.astype(np.uint8).tobytes())
        return picture

    def overlay(self, image: np.ndarray, legend: bool = True) -> Image:
        """The colours over the image (background left clear), a legend of the classes found below it.

        Labels coarser than the image are drawn larger.
        """
        from PIL import Image

        _, strips = self.overlay_strips(image, legend)
        return Image.fromarray(np.concatenate(list(strips)))

    def overlay_strips(
        self, image: np.ndarray, legend: bool = True
    ) -> tuple[tuple[int, int], Iterator[np.ndarray]]:
        """Height and width of the overlay, and its rows, some at a time: large ones need no memory."""
        height, width = image.shape[:2]
        entries = self._legend(max(width, 180)) if legend else []
        bottom = entries[-1][1] + 22 if entries else 0
        wide = max(width, 180) if legend else width
        return (height + bottom, wide), self._strips(image, wide, entries, bottom)

    def _strips(
        self, image: np.ndarray, wide: int, entries: list[tuple[int, int, str, int]], bottom: int
    ) -> Iterator[np.ndarray]:
        from PIL import Image

        height, width = image.shape[:2]
        labels = self.labels if self.labels.shape == (height, width) else self._at(height, width)
        mask = [OPACITY] * 256
        mask[0] = 0 if self.name(0) == "background" else OPACITY
        rows = max(1, STRIP // max(1, width))
        for top in range(0, height, rows):
            part = image[top : top + rows]
            sheet = Image.new("RGB", (wide, len(part)), "white")
            sheet.paste(Image.fromarray(part), (0, 0))
            strip = Labels(self.output, labels[top : top + rows], colours=self.colours).image()
            alpha = Image.fromarray(np.asarray(strip)).point(mask)
            sheet.paste(strip.convert("RGB"), (0, 0), alpha)
            yield np.asarray(sheet)
        if bottom:
            sheet = Image.new("RGB", (wide, bottom), "white")
            self._draw(sheet, entries)
            yield np.asarray(sheet)

    def _at(self, height: int, width: int) -> np.ndarray:
        """The labels at another size, each pixel the nearest label."""
        rows, columns = (
            np.arange(n) * have // n for n, have in zip((height, width), self.labels.shape, strict=True)
        )
        return self.labels[rows[:, None], columns]

    def _legend(self, width: int) -> list[tuple[int, int, str, int]]:
        """(x, y, text, label) of each class found, in rows no wider than `width`."""
        from PIL import ImageFont

        font = ImageFont.load_default(13)
        entries, x, y = [], 6, 4
        for label, count in self.counts().items():
            share = count / self.labels.size
            text = f"{self.name(label)} {share:.0%}" if share >= 0.01 else f"{self.name(label)} <1%"
            length = int(font.getlength(text)) + 32
            if x > 6 and x + length > width:
                x, y = 6, y + 20
            entries.append((x, y, text, label))
            x += length
        return entries

    def _draw(self, sheet: Image, entries: list[tuple[int, int, str, int]]) -> None:
        from PIL import ImageDraw, ImageFont

        draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
        for x, y, text, label in entries:
            draw.rectangle((x, y + 3, x + 12, y + 15), fill=self.colour(label), outline="black")
            draw.text((x + 18, y + 1), text, fill="black", font=font)

    def _repr_html_(self) -> str:
        """What Jupyter shows: the labels, and a legend of the classes found."""
        picture = base64.b64encode(self._repr_png_()).decode("ascii")
        legend = ", ".join(
            f'<span style="color: rgb{self.colour(n)}">■</span> {escape(self.name(n))} '
            f"{count / self.labels.size:.1%}"
            for n, count in self.counts().items()
        )
        told = escape(f"{self.output}, {' × '.join(map(str, self.labels.shape))}")
        image = f'<img src="data:image/png;base64,{picture}" alt="{told}">'
        return f"<p>{told}</p>{image}<p>{legend}</p>"

    def _repr_png_(self) -> bytes:
        """What Jupyter shows: no larger than SHOWN, for a notebook keeps it; colours repeat from 256 on."""
        buffer, scale = io.BytesIO(), min(1.0, SHOWN / max(*self.labels.shape, 1))
        height, width = (max(1, round(n * scale)) for n in self.labels.shape)
        small = self.labels if scale == 1 else self._at(height, width)
        Labels(self.output, small & 255, colours=self.colours).image().save(buffer, format="PNG")
        return buffer.getvalue()


class Segmenter:
    """A converted model that labels pixels: call it with an RGB image. Threads may share it.

    Takes files with and without --preprocess, --softmax and --argmax; mean, channel order and classes are
    read from the file's metadata. `options` are those of `runtime.Session`.

    Raises:
        CaffeError: the model's input is not one image of three channels, or it gives no map.
        DeviceError: see `runtime.Session`.
    """

    def __init__(self, model: str | os.PathLike[str], device: Device = "auto", **options: Any) -> None:
        self.session = Session(model, device, **options)
        self.path = self.session.path
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
        self.count: int | None = info.shape[0] if isinstance(info.shape[0], int) else None  # images at a time
        given = {o.name: o.shape for o in self.session.session.get_outputs()}
        #: outputs that are maps: labels (N, H, W) or scores (N, classes, H, W)
        self.maps = {name: shape for name, shape in given.items() if len(shape) in (3, 4)}
        if not self.maps:
            raise CaffeError(f"{model}: gives {given}, not a label for each pixel")
        try:
            self._read(self.session.metadata)
        except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise CaffeError(f"{model}: its metadata is not as convert-fcn writes it: {error}") from error
        self._kept = threading.local()
        self._alone = threading.Lock()

    def _read(self, meta: Mapping[str, str]) -> None:
        self.mean = np.broadcast_to(np.asarray(json.loads(meta.get("mean", "0")), np.float32), 3)
        self.scale = np.float32(json.loads(meta.get("scale", "1")))
        #: of each output the names of its classes, and their colours (n, 3)
        self.classes: dict[str, list[str]] = {
            output: list(map(str, names)) for output, names in json.loads(meta.get("classes", "{}")).items()
        }
        self.colours: dict[str, np.ndarray] = {
            output: np.asarray(colours, np.uint8).reshape(-1, 3)[:256]
            for output, colours in json.loads(meta.get("palette", "{}")).items()
        }

    def __call__(self, image: np.ndarray) -> list[Labels]:
        """Label an image (H, W, 3) uint8 RGB; one `Labels` for each output that is a map.

        Raises CaffeError for an array that is none, or of a size that the model does not take.
        """
        return self.label([self.prepare(image)])[0]

    def batch(self, images: Sequence[np.ndarray]) -> list[list[Labels]]:
        """Label images of one size in one pass, or in as few as the model's batch size allows."""
        prepared = [self.prepare(image) for image in images]
        step = self.count or max(1, len(prepared))
        return [found for i in range(0, len(prepared), step) for found in self.label(prepared[i : i + step])]

    def scores(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """The outputs that are maps, as the model gives them: (classes, H, W), or labels (H, W)."""
        return {name: value[0].copy() for name, value in self.run([self.prepare(image)]).items()}

    def prepare(self, image: np.ndarray) -> np.ndarray:
        """What the model takes for this image: pixels as they are, or (1, 3, H, W) BGR without the mean."""
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise CaffeError(f"{self.path}: takes images (H, W, 3) uint8, got {image.shape} {image.dtype}")
        for have, want in zip(image.shape[:2], self.sides, strict=True):
            if isinstance(want, int) and have != want:
                raise CaffeError(
                    f"{self.path}: takes images of {self.sides[0]}x{self.sides[1]} only, "
                    f"this one is {image.shape[0]}x{image.shape[1]}",
                    "convert without --input-shape for any size",
                )
        if self.pixels:
            return image[None]
        return planes(image, self.mean, self.scale)

    def run(self, prepared: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """One pass over what `prepare` made of images of one size: the maps, one row an image.

        They lie in buffers of the calling thread, which its next pass overwrites.
        """
        bound = self._bound((self.count or len(prepared), *prepared[0].shape[1:]))
        slots = bound.inputs[self.input]
        for slot, one in zip(slots, prepared, strict=False):
            slot[...] = one[0]
        alone = self.session.device == "cpu" and np.prod(bound.inputs[self.input].shape) > 3 * ALONE
        with self._alone if alone else nullcontext():
            values = bound()
        return {name: values[name][: len(prepared)] for name in self.maps}

    def label(self, prepared: Sequence[np.ndarray]) -> list[list[Labels]]:
        """`run`, and the label images of each of its images."""
        values = self.run(prepared)
        return [[self.labels(name, value[i]) for name, value in values.items()] for i in range(len(prepared))]

    def labels(self, output: str, value: np.ndarray) -> Labels:
        """What an output says: scores (classes, H, W), or labels (H, W), which are copied."""
        if value.ndim == 2 and (value.dtype.kind not in "iu" or value.min(initial=0) < 0):
            raise CaffeError(f"{self.path}: output '{output}' is {value.dtype}, and no label of a class")
        labels = value.copy() if value.ndim == 2 else label_map(value)
        colours = self.colours.get(output)
        found = palette() if colours is None or not len(colours) else colours
        return Labels(output, labels, self.classes.get(output, []), found)

    def _bound(self, shape: tuple[int, ...]) -> Bound:
        """The calling thread's buffers for inputs of a shape; those of the last shapes are kept."""
        kept: OrderedDict[tuple[int, ...], Bound] = self._kept.__dict__.setdefault("bounds", OrderedDict())
        if shape not in kept:
            while len(kept) >= KEPT and not self.session.captures:  # a recorded graph holds its memory anyway
                kept.popitem(last=False)
            kept[shape] = self.session.bound({self.input: shape})
        kept.move_to_end(shape)
        return kept[shape]


def planes(image: np.ndarray, mean: np.ndarray, scale: np.float32) -> np.ndarray:
    """(H, W, 3) uint8 RGB as Caffe takes it: (1, 3, H, W) float32, blue first, (pixel - mean) * scale."""
    data = np.empty((1, 3, *image.shape[:2]), np.float32)
    for channel, each in enumerate(mean):
        np.subtract(image[:, :, 2 - channel], each, out=data[0, channel])
    if scale != 1:
        data *= scale
    return data


def label_map(scores: np.ndarray) -> np.ndarray:
    """The index of the largest of (classes, H, W) at each pixel, the first of equals: uint8 if it fits.

    As `scores.argmax(axis=0)`, several times as fast: the classes are compared a block of pixels at a time.
    """
    classes = len(scores)
    flat = scores.reshape(classes, -1)
    kind = np.uint8 if classes <= 256 else np.int32
    found = np.zeros(flat.shape[1], kind)
    for start in range(0, flat.shape[1], BLOCK):
        block = flat[:, start : start + BLOCK]
        best, labels = block[0].astype(np.float32), found[start : start + BLOCK]
        for k in range(1, classes):
            larger = block[k] > best
            np.maximum(block[k], best, out=best)
            np.maximum(labels, larger * kind(k), out=labels)  # k grows, so the last that was larger stays
    return found.reshape(scores.shape[1:])


def read_image(path: str | os.PathLike[str]) -> np.ndarray:
    """An image file as (H, W, 3) uint8 RGB, upright. Raises CaffeError if it is none."""
    with opened(path) as file:
        return upright(file)


def images_in(paths: list[str]) -> list[Path]:
    """The files named, and the images in the folders named, but for what `caffe-fcn segment` wrote there.

    Raises CaffeError for a path that is none.
    """
    found: list[Path] = []
    for text in paths:
        path = Path(text)
        if path.is_dir():
            inside = sorted(
                p
                for p in path.iterdir()
                if p.suffix.lower() in SUFFIXES and not p.name.endswith((LABEL, OVERLAY))
            )
            if not inside:
                raise CaffeError(f"{text}: no images in this folder")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise CaffeError(f"{text}: no such file or folder")
    return list(dict.fromkeys(found))


def save(image: Image, path: Path) -> None:
    """Write a PNG under a temporary name, then rename it."""
    with atomic_write(path) as file:
        if image.mode == "RGB":
            write_png(file, np.asarray(image))
        else:
            image.save(file, format="PNG", compress_level=1, compress_type=zlib.Z_RLE)


def save_overlay(labels: Labels, image: np.ndarray, path: Path) -> None:
    """Write `labels.overlay(image)` as `save` does, in strips."""
    size, strips = labels.overlay_strips(image)
    with atomic_write(path) as file:
        write_strips(file, size, strips)
