"""Images of any size, a tile at a time: scores averaged where tiles overlap, then the largest taken."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from itertools import pairwise, product
from typing import Any, NamedTuple

import numpy as np

from caffe_fcn import memory
from caffe_fcn.errors import CaffeError
from caffe_fcn.segment import Labels, Segmenter, label_map

#: Tiles start on multiples of the FCN nets' total stride, so that their pools fall as in the whole image.
GRID = 32
#: How much of an overlap, around its middle, is averaged. With the shapes net and tiles of 320, 0.3 % of
#: the labels are not the whole image's; 0.45 % if all of it is averaged, 1.5 % if by the plain mean.
SHARED = 0.25
BYTES = 9  # for a pixel: Pillow's four, the array's three while it is copied, labels
MOST = 1 << 32  # pixels


class Strip(NamedTuple):
    """One tile along one axis, in pixels."""

    start: int  # what the net sees
    stop: int
    first: int  # what it has a say in
    last: int
    before: int  # how many of these it shares with the tile before, and with the one after
    after: int


def strips(size: int, tile: int, overlap: int, grid: int = GRID) -> list[Strip]:
    """Tiles along one axis that cover `size` pixels, neighbours overlapping by `overlap` or more.

    All are of one length, less than `grid` shorter than `tile`: every new size costs a session memory, and a
    GPU time. Near its cut edges a tile does not see what lies beyond, so neighbours share only the middle of
    their overlap, where the weight of one falls from 1 to 0 as the other's rises.

    Raises:
        CaffeError: the tiles would hardly move on.
    """
    least = max(2 * overlap, overlap + 2 * grid - 1)
    if overlap < 0 or tile < least:
        raise CaffeError(f"tiles of {tile} pixels cannot overlap by {overlap}", f"they take {least} at least")
    reach = -(-max(0, size - tile) // grid)  # the start of the last tile, in steps of the grid
    length = size - reach * grid
    step = (length - overlap) // grid
    count = -(-reach // max(1, step)) + 1
    starts = [i * reach // max(1, count - 1) * grid for i in range(count)]
    stops = [start + length for start in starts]
    overlaps = [stop - start for start, stop in zip(starts[1:], stops, strict=False)]
    middles = [(start + stop) // 2 for start, stop in zip(starts[1:], stops, strict=False)]
    apart = [b - a for a, b in pairwise(middles)]
    shared = min([int(n * SHARED) for n in overlaps] + apart, default=0)
    cuts = [0, *(middle - shared // 2 for middle in middles), size]
    return [
        Strip(
            *(starts[i], stops[i], cuts[i], cuts[i + 1] + (shared if i < count - 1 else 0)),
            *(shared if i else 0, shared if i < count - 1 else 0),
        )
        for i in range(count)
    ]


def large_images() -> None:
    """Let Pillow read images as large as there is memory for: whoever asks for tiles means large ones.

    A small file can say that it holds any number of pixels, so there has to be a limit.
    """
    from PIL import Image

    had = memory.free()
    most = MOST if had is None else min(MOST, had // BYTES)
    Image.MAX_IMAGE_PIXELS = max(most // 2, Image.MAX_IMAGE_PIXELS or 0)  # it refuses from twice that on
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # from once


def label_tiled(
    segmenter: Segmenter,
    image: np.ndarray,
    tile: int = 1024,
    overlap: int = 128,
    progress: Callable[[int, int], Any] | None = None,
) -> list[Labels]:
    """Label an image (H, W, 3) uint8 RGB of any size; one `Labels` for each output that is a map.

    Where the overlap is 4/3 of the net's receptive field or more the scores are those of the whole image.
    Where the file fixes the size of images that is the tile's, and pools may fall otherwise in it.
    The memory it takes beside the image and its labels grows with the tile, and with overlap times width.

    `progress` is called after each tile with how many are done, and how many there are.

    Raises:
        CaffeError: the model gives labels, or maps of another size than the image; or see `strips`.
    """
    for name, shape in segmenter.maps.items():
        if len(shape) != 4:
            raise CaffeError(
                f"{segmenter.path}: gives labels ('{name}'), and tiles are joined by their scores",
                "convert it without --argmax",
            )
    rows, columns = (_axis(segmenter, image.shape, axis, tile, overlap) for axis in (0, 1))
    canvases: dict[str, _Canvas] = {}
    for i, (row, column) in enumerate(product(rows, columns)):
        view = image[row.start : row.stop, column.start : column.stop]
        for name, value in segmenter.run([segmenter.prepare(view)]).items():
            if value.shape[2:] != view.shape[:2]:
                raise CaffeError(
                    f"{segmenter.path}: '{name}' is {value.shape[2]}x{value.shape[3]} for a tile of "
                    f"{view.shape[0]}x{view.shape[1]}; tiles are joined from maps of their own size"
                )
            if name not in canvases:
                canvases[name] = _Canvas(len(value[0]), image.shape[:2], rows[0].after)
            canvases[name].add(value[0], row, column)
        if progress:
            progress(i + 1, len(rows) * len(columns))
    return [segmenter.labels(name, canvas.labels) for name, canvas in canvases.items()]


def _axis(segmenter: Segmenter, shape: tuple[int, ...], axis: int, tile: int, overlap: int) -> list[Strip]:
    fixed = segmenter.sides[axis]
    if not isinstance(fixed, int):
        return strips(shape[axis], tile, overlap)
    if shape[axis] < fixed:
        raise CaffeError(
            f"{segmenter.path}: takes tiles of {segmenter.sides[0]}x{segmenter.sides[1]} only, "
            f"the image is {shape[0]}x{shape[1]}",
            "convert without --input-shape for any size",
        )
    return strips(shape[axis], fixed, overlap, grid=1)


class _Canvas:
    """One output's labels so far, and the weighted scores that wait for the next tile or row of tiles."""

    def __init__(self, classes: int, size: tuple[int, int], shared: int) -> None:
        self.labels = np.zeros(size, np.uint8 if classes <= 256 else np.int32)
        self.below = np.zeros((classes, shared, size[1]), np.float32)
        self.right = np.zeros((classes, 0, 0), np.float32)

    def add(self, scores: np.ndarray, row: Strip, column: Strip) -> None:
        """Scores (classes, height, width) of the tile at a row and a column; row by row, left to right."""
        part = scores[
            :,
            row.first - row.start : row.last - row.start,
            column.first - column.start : column.last - column.start,
        ].astype(np.float32)
        _fade(part, row.before, row.after)
        _fade(part.swapaxes(1, 2), column.before, column.after)
        if column.before:
            part[:, :, : column.before] += self.right
        last = column.last - column.after
        self.right = part[:, :, part.shape[2] - column.after :].copy()
        part, below = part[:, :, : last - column.first], self.below[:, :, column.first : last]
        part[:, : row.before] += below[:, : row.before]
        done = part.shape[1] - row.after
        below[:, : row.after] = part[:, done:]
        self.labels[row.first : row.first + done, column.first : last] = label_map(part[:, :done])


def _fade(part: np.ndarray, before: int, after: int) -> None:
    """Let the weight rise over the first rows of (classes, rows, columns), and fall over the last."""
    ramp = ((np.arange(before) + 0.5) / max(before, 1)).astype(np.float32)
    part[:, :before] *= ramp[:, None]
    ramp = ((np.arange(after) + 0.5) / max(after, 1)).astype(np.float32)
    part[:, part.shape[1] - after :] *= ramp[::-1, None]
