"""Image files as OpenCV hands them to Caffe: 8-bit, blue first. Pillow is imported when one is read."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from caffe_fcn.errors import CaffeError
from caffe_fcn.formats.files import file_size

if TYPE_CHECKING:
    from PIL.Image import Image

#: What Pillow raises for files that are damaged in one way or another.
DAMAGE = (
    OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, IndexError, KeyError, TypeError,
    AttributeError, OverflowError, ZeroDivisionError, RuntimeError, MemoryError,
)  # fmt: skip

STRIP = 1 << 20  # pixels of a large image that are taken over at a time
ORIENTATION = 0x0112  # EXIF's tag; 1 is upright

#: cv::imread's flags: three channels, one, or what the file holds (then without regard to EXIF orientation)
Mode = Literal["color", "gray", "native"]


def read_image(source: str | os.PathLike[str] | bytes, mode: Mode = "color", name: str = "") -> np.ndarray:
    """Decode a file, or the bytes of one called `name` in messages: (channels, height, width) uint8, BGR.

    CaffeError as `opened` has it, and for more than 8 bits in mode "native".
    """
    name = _called(source, name)
    with opened(source, name) as image:
        pixels = np.asarray(_converted(image, mode))
    if pixels.dtype == np.bool_:
        pixels = pixels.astype(np.uint8) * np.uint8(255)
    if pixels.dtype != np.uint8:
        raise CaffeError(f"{name}: holds {pixels.dtype} values; Caffe takes images of 8 bits a channel")
    if pixels.ndim == 2:
        return pixels[None]
    order = [2, 1, 0, 3][: pixels.shape[2]]
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[order])


@contextmanager
def opened(source: str | os.PathLike[str] | bytes, name: str = "") -> Iterator[Image]:
    """An image file, or the bytes of one, to be decoded in the block.

    CaffeError if it is none, damaged, or too large: 179 million pixels are Pillow's limit.
    """
    from PIL import Image

    name = _called(source, name)
    if not isinstance(source, bytes):
        file_size(source, "an image")
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            yield image
    except (*DAMAGE, Image.DecompressionBombError) as error:
        told = getattr(error, "strerror", None) or error
        raise CaffeError(f"{name}: cannot be read as an image: {told}") from error


def _called(source: str | os.PathLike[str] | bytes, name: str) -> str:
    """What messages call a file, or the bytes of one."""
    return name or (os.fspath(source) if not isinstance(source, bytes) else "<bytes>")


def upright(image: Image) -> np.ndarray:
    """An opened file as (H, W, 3) uint8 RGB, turned as its EXIF says.

    A large one is taken over in strips: Pillow would hold its pixels three times.
    """
    rgb = _converted(image, "color")
    if rgb.width * rgb.height <= 8 * STRIP:
        return np.asarray(rgb)
    pixels = np.empty((rgb.height, rgb.width, 3), np.uint8)
    rows = max(1, STRIP // rgb.width)
    for top in range(0, rgb.height, rows):
        bottom = min(top + rows, rgb.height)
        pixels[top:bottom] = np.asarray(rgb.crop((0, top, rgb.width, bottom)))
    return pixels


def _converted(image: Any, mode: Mode) -> Any:
    from PIL import Image, ImageOps

    if mode == "native":
        return image if image.mode in ("1", "L", "RGB", "RGBA", "I", "I;16") else image.convert("RGB")
    image = ImageOps.exif_transpose(image) if image.getexif().get(ORIENTATION, 1) != 1 else image
    if image.mode.startswith("I"):  # 16 bits: OpenCV keeps the upper eight, Pillow would cut at 255
        image = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    wanted = "RGB" if mode == "color" else "L"
    return image if image.mode == wanted else image.convert(wanted)
