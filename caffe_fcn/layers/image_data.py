"""Data layers that read image files: ImageData and WindowData."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

from caffe_fcn.fillers import random
from caffe_fcn.formats.images import Mode, read_image
from caffe_fcn.layers.base import Array, Sequence, Shape, fixed, np
from caffe_fcn.layers.transform import _Transformed
from caffe_fcn.numeric.image import resize_linear


class ImageData(_Transformed, tops=2):
    """Image files and their labels, from a list with `FILE LABEL` in each line (image_data_layer.cpp).

    Tops: (batch_size, 3 or 1, H, W), H and W those of `new_height` and `new_width`, of `crop_size`, or of the
    next image; labels (batch_size). After the last line comes the first; `shuffle` mixes them before every
    round.
    """

    def setup(self) -> None:
        super().setup()
        p = self.param.image_data_param
        self.check(p.batch_size > 0, f"batch_size {p.batch_size} must be positive")
        both = (p.new_height > 0) == (p.new_width > 0)
        self.check(
            both, f"new_height {p.new_height}, new_width {p.new_width}: one without the other", "give both"
        )
        self._next = 0

    @cached_property
    def entries(self) -> list[tuple[str, int]]:
        """(file, label) in the order in which they are read."""
        p = self.param.image_data_param
        entries = [_entry(line) for line in self.opened(lambda: self.lines(p.source)) if line]
        self.check(bool(entries), f"source '{p.source}' lists no images")
        self._next = int(random().integers(p.rand_skip)) if p.rand_skip else 0
        self.check(self._next < len(entries), f"rand_skip {p.rand_skip} > {len(entries)} images")
        return self._mixed(entries)

    def _mixed(self, entries: list[tuple[str, int]]) -> list[tuple[str, int]]:
        shuffle = self.param.image_data_param.shuffle
        return [entries[i] for i in random().permutation(len(entries))] if shuffle else entries

    def _image(self) -> Array:
        p, (file, _) = self.param.image_data_param, self.entries[self._next]
        mode: Mode = "color" if p.is_color else "gray"
        image = self.opened(lambda: read_image(p.root_folder + file, mode))
        return resize_linear(image, p.new_height, p.new_width) if p.new_height else image

    def reshape(self, bottoms: Sequence[Shape]) -> list[Shape]:
        p, crop = self.param.image_data_param, self.param.transform_param.crop_size
        size = (p.new_height, p.new_width) if p.new_height else (crop, crop)
        image = (3 if p.is_color else 1, *size) if any(size) else self._image().shape
        return [(p.batch_size, *self.transformed(image)), (p.batch_size,)]

    def forward(self, bottoms: Sequence[Array]) -> list[Array]:
        return self.batch(self._items())

    def _items(self) -> Iterator[tuple[str, Array, float]]:
        for _ in range(self.param.image_data_param.batch_size):
            file, label = self.entries[self._next]
            yield f"'{file}'", self._image(), label
            self._next += 1
            if self._next == len(self.entries):
                self._next, self.entries = 0, self._mixed(self.entries)


def _entry(line: str) -> tuple[str, int]:
    """What is in front of the last space, and the whole number behind it, as C's atoi reads it."""
    file, _, label = line.rpartition(" ")
    number = re.match(r"\s*[+-]?\d+", label)
    return file or line, int(number[0]) if number else 0


class _Window(NamedTuple):
    """A rectangle of an image, both ends included, as (first, last) pixel of either axis."""

    file: str
    label: int
    y: tuple[int, int]
    x: tuple[int, int]


class _Warp(NamedTuple):
    """Along one axis: the pixels that are cut out, how many they become, the empty ones on either side."""

    first: int
    last: int
    out: int
    before: int = 0
    after: int = 0


def warp(ends: tuple[int, int], reach: float, size: int, crop: int, scale: float) -> _Warp:
    """How a window of `reach` pixels on both sides of its centre, times `scale`, becomes `crop` pixels."""
    centre = ends[0] + (ends[1] - ends[0] + 1) / 2
    first, last = _round(centre - reach * scale), _round(centre + reach * scale)
    shrink = crop / (last - first + 1)
    inside = max(first, 0), min(last, size - 1)
    before, after = (_round(max(0, n) * shrink) for n in (-first, last - size + 1))
    return _Warp(*inside, _round((inside[1] - inside[0] + 1) * shrink), before, after)


def _round(x: float) -> int:
    """Half away from zero, as C rounds."""
    return int(math.copysign(math.floor(abs(x) + 0.5), x))


class WindowData(_Transformed, tops=2):
    """Windows of images, warped to one size: R-CNN's training data (window_data_layer.cpp).

    Tops: (batch_size, 3, crop_size, crop_size); labels (batch_size), 0 for background. Windows are drawn at
    random, in both phases: `fg_fraction` of them from those that overlap an object by `fg_threshold` or more,
    the others, which come first, from those below `bg_threshold`. `context_pad` pixels of surroundings are
    added on every side; what lies beyond the image is 0. The scale is `window_data_param`'s, all else
    `transform_param`'s.
    """

    def setup(self) -> None:
        super().setup()
        p, crop = self.param.window_data_param, self.param.transform_param.crop_size
        self.check(p.batch_size > 0, f"batch_size {p.batch_size} must be positive")
        self.check(
            crop > 2 * p.context_pad, f"crop_size {crop} must be more than 2 * context_pad {p.context_pad}"
        )
        self.check(0 <= p.fg_fraction <= 1, f"fg_fraction {p.fg_fraction} is not between 0 and 1")

    @cached_property
    def candidates(self) -> tuple[list[_Window], list[_Window]]:
        """Windows of the background, windows of objects."""
        p = self.param.window_data_param
        try:
            found = self._parse(" ".join(self.opened(lambda: self.lines(p.source))).split())
        except (ValueError, IndexError) as error:
            self.check(False, f"source '{p.source}' is not a window file: {error}")
            raise
        for kind, windows in zip(("background", "foreground"), found, strict=True):
            self.check(bool(windows), f"source '{p.source}' holds no {kind} windows")
        return found

    def _parse(self, words: list[str]) -> tuple[list[_Window], list[_Window]]:
        """Of each image: # INDEX FILE CHANNELS HEIGHT WIDTH COUNT, and COUNT of CLASS OVERLAP X1 Y1 X2 Y2."""
        p = self.param.window_data_param
        background: list[_Window] = []
        foreground: list[_Window] = []
        at = 0
        while at < len(words):
            if words[at] != "#":
                raise ValueError(f"word {at + 1} is '{words[at]}', not '#'")
            file, start, count = p.root_folder + words[at + 2], at + 7, int(words[at + 6])
            at = start + 6 * max(count, 0)
            for i in range(start, at, 6):
                label, overlap = int(words[i]), np.float32(words[i + 1])
                x1, y1, x2, y2 = map(int, words[i + 2 : i + 6])
                if overlap >= p.fg_threshold:
                    self.check(label > 0, f"{file}: a foreground window has the label {label}, not above 0")
                    foreground.append(_Window(file, label, (y1, y2), (x1, x2)))
                elif overlap < p.bg_threshold:
                    background.append(_Window(file, 0, (y1, y2), (x1, x2)))
        return background, foreground

    def reshape(self, bottoms: Sequence[Shape]) -> list[Shape]:
        size, crop = self.param.window_data_param.batch_size, self.param.transform_param.crop_size
        return [(size, 3, crop, crop), (size,)]

    def forward(self, bottoms: Sequence[Array]) -> list[Array]:
        p = self.param.window_data_param
        objects = int(np.float32(p.batch_size) * np.float32(p.fg_fraction))
        background, foreground = self.candidates
        drawn = [background[i] for i in random().integers(len(background), size=p.batch_size - objects)]
        drawn += [foreground[i] for i in random().integers(len(foreground), size=objects)]
        return [np.stack([self._cut(w) for w in drawn]), np.asarray([w.label for w in drawn], np.float32)]

    def _cut(self, window: _Window) -> Array:
        """One window as (3, crop_size, crop_size)."""
        crop = self.param.transform_param.crop_size
        image = self.opened(lambda: read_image(window.file))
        y, x = self._warps(window, image.shape)
        mirrored = self.param.transform_param.mirror and self.training and random().integers(2)
        x = x._replace(before=x.after) if mirrored else x
        height, width = (min(w.out, crop - w.before) for w in (y, x))
        inside = all(0 <= w.first <= w.last < n for w, n in zip((y, x), image.shape[1:], strict=True))
        told = f"'{window.file}' is {image.shape}: rows {window.y}, columns {window.x} are not inside it"
        self.check(inside and min(height, width) > 0, told)
        pixels = resize_linear(image[:, y.first : y.last + 1, x.first : x.last + 1], height, width)
        where = (slice(None), slice(y.before, y.before + height), slice(x.before, x.before + width))
        top = np.zeros((3, crop, crop), np.float32)
        top[where] = pixels[:, :, ::-1] if mirrored else pixels
        top[where] -= self._mean_inside()[where]
        return top * np.float32(self.param.window_data_param.scale)

    def _warps(self, window: _Window, shape: Shape) -> tuple[_Warp, _Warp]:
        p, crop = self.param.window_data_param, self.param.transform_param.crop_size
        square = p.crop_mode == "square"
        if not (p.context_pad or square):
            return _Warp(*window.y, crop), _Warp(*window.x, crop)
        reach = [(last - first + 1) / 2 for first, last in (window.y, window.x)]
        reach = [max(reach)] * 2 if square else reach
        scale = crop / (crop - 2 * p.context_pad)
        y, x = (
            warp(ends, r, fixed(n), crop, scale)
            for ends, r, n in zip((window.y, window.x), reach, shape[1:], strict=True)
        )
        return y, x

    def _mean_inside(self) -> Array:
        """The mean's centre; Caffe takes the offset from the width for both axes."""
        crop = self.param.transform_param.crop_size
        if not self.param.transform_param.mean_file:
            return self._mean_of((3, crop, crop))
        offset = (self.mean.shape[-1] - crop) // 2
        self.check(
            offset >= 0 and self.mean.shape[1] >= offset + crop, f"mean {self.mean.shape} is less than {crop}"
        )
        return self.mean[:, offset : offset + crop, offset : offset + crop]
