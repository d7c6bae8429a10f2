"""What a net sees in an image, as pictures: mosaics of blobs, heatmaps of a class, the first filters.

The reference forward pass computes the blobs, so that any of them can be looked at, and nothing is converted.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from math import ceil, floor, sqrt
from pathlib import Path
from typing import Any

import numpy as np

from caffe_fcn import surgery
from caffe_fcn.conversion import PathLike, load, pixels
from caffe_fcn.deploy import pruned, to_deploy
from caffe_fcn.errors import CaffeError, LayerError, nearest
from caffe_fcn.formats.files import atomic_write
from caffe_fcn.formats.prototxt import read_net
from caffe_fcn.labels import labels_of
from caffe_fcn.net import Net
from caffe_fcn.report.page import POLICY, page, png
from caffe_fcn.segment import planes, read_image
from caffe_fcn.tracing import Axis, trace

WIDEST = 2400  # pixels of a mosaic
TILE = 320  # pixels of a channel in a mosaic, at most
MOST = 4096  # channels, or filters, in a mosaic
#: The colours of a heatmap, from the least score to the most.
HEAT = ((13, 8, 135), (126, 3, 168), (204, 71, 120), (248, 149, 64), (240, 249, 33))


@dataclass
class Picture:
    """One picture of the page."""

    name: str  # of its file, without .png
    title: str
    told: str  # what it shows, in a line
    image: np.ndarray  # (H, W) or (H, W, 3) uint8


@dataclass
class Features:
    """What was made of one image."""

    path: str
    image: np.ndarray  # as the net saw it, (H, W, 3) uint8 RGB
    notes: list[str] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)


def features(
    prototxt: PathLike,
    caffemodel: PathLike,
    image: PathLike,
    *,
    blobs: Sequence[str] = (),
    heatmaps: Sequence[str] = (),
    mean: Sequence[float] | None = None,
    scale: float | None = None,
    whole: bool = False,
) -> Features:
    """Run a net on an image and draw what it computes.

    Args:
        blobs: to draw; by default those of the first convolution, of every pooling, and the outputs.
        heatmaps: classes, by name or number, whose score is laid over the image.
        mean, scale: the pixels' preprocessing, B, G, R; by default the data layer's, else ImageNet's mean.
        whole: also draw what lies beyond the image, in the net's padding.

    Raises:
        CaffeError: the files do not fit, a name is unknown, or the net does not take one image.
    """
    cut = to_deploy(read_net(prototxt))
    if blobs and not heatmaps:
        cut = pruned(cut, blobs)
    net = load(cut, caffemodel, {})
    notes = [*surgery.fill_missing(net)]
    picture = fit(net, read_image(image), notes)
    names = list(blobs) or _interesting(net)
    for name in names:
        if name not in net.blobs:
            raise CaffeError(f"{net.path}: no blob '{name}' in the net", nearest(name, net.blobs))
    how = pixels(cut, mean, scale)
    taken_off = np.broadcast_to(np.asarray(how.mean, np.float32), 3)
    net.blobs[net.inputs[0]].data[...] = planes(picture, taken_off, np.float32(how.scale))
    net.forward()
    axes = {top: row.axes for row in trace(net).rows for top in row.tops}
    found = Features(os.fspath(image), picture, notes)
    found.pictures += _filters(net)
    for name in names:
        values = net.blobs[name].data[0]
        part = slice(None) if whole else over_image(values.shape, axes.get(name, []), picture.shape)
        found.pictures.append(_blob(name, values, part))
    for wanted in heatmaps:
        found.pictures += _heat(net, wanted, picture, axes)
    return found


def fit(net: Net, image: np.ndarray, notes: list[str]) -> np.ndarray:
    """Give the net the image's size; where it takes one size only, the image gets that. `notes` says so."""
    if len(net.inputs) != 1 or len(net.blobs[net.inputs[0]].shape) != 4:
        told = ", ".join(f"{name} {net.blobs[name].shape}" for name in net.inputs)
        raise CaffeError(f"{net.path}: takes {told}; `features` gives one image")
    blob = net.blobs[net.inputs[0]]
    _, channels, *own = blob.shape
    if channels != 3:
        raise CaffeError(f"{net.path}: takes {channels} channels; an image has 3")
    try:
        net.infer({net.inputs[0]: (1, 3, *image.shape[:2])})
        size = image.shape[:2]
    except LayerError as error:
        size = tuple(own)
        notes.append(
            f"the image is shown to the net as {own[0]} x {own[1]}: {error.layer} takes no other size"
        )
    blob.reshape(1, 3, *size)
    net.reshape()
    return image if size == image.shape[:2] else _resized(image, size)


def over_image(shape: tuple[int, ...], axes: Sequence[Axis], image: tuple[int, ...]) -> Any:
    """The part of a blob (C, H, W) whose elements lie on the image; all of it, where that is not known."""
    if len(shape) != 3 or len(axes) != 2 or not all(axis.stride for axis in axes):
        return slice(None)
    part = [slice(None)]
    for n, axis, pixels_ in zip(shape[1:], axes, image, strict=False):
        stride = axis.stride or 1
        first, last = ceil(-axis.offset / stride), floor((pixels_ - 1 - axis.offset) / stride)
        first, last = max(0, first), min(n - 1, last)
        part.append(slice(first, last + 1) if first <= last else slice(None))
    return tuple(part)


def mosaic(maps: np.ndarray) -> np.ndarray:
    """(C, H, W) as one grey picture: a tile a channel, each stretched from its least to its most.

    Large maps are averaged to what fits, small ones repeated. Channels go row by row from the upper left.
    """
    maps = maps[:MOST]
    columns = ceil(sqrt(len(maps)))
    room = max(1, min(TILE, WIDEST // columns - 2))
    return _grid([_tile(stretched(channel), room) for channel in maps], columns)


def stretched(values: np.ndarray) -> np.ndarray:
    """The least becomes 0, the most 255; what is all alike, or not finite, 0. uint8."""
    fine = np.isfinite(values)
    least = values.min(where=fine, initial=np.inf)
    span = values.max(where=fine, initial=-np.inf) - least
    if not fine.any() or not span > 0:
        return np.zeros(values.shape, np.uint8)
    return (np.where(fine, (values - least) / span, 0) * 255 + 0.5).astype(np.uint8)


def filters(weights: np.ndarray) -> np.ndarray:
    """(O, I, h, w) as one picture: three inputs (B, G, R) in colour, else a tile for each output and input.

    Each tile is stretched on its own.
    """
    weights = weights[:MOST]
    o, i, h, w = weights.shape
    tiles = weights[:, ::-1].transpose(0, 2, 3, 1) if i == 3 else weights.reshape(o * i, h, w)[:MOST]
    columns = ceil(sqrt(len(tiles)))
    room = max(1, min(64, WIDEST // columns - 2))
    return _grid([_tile(stretched(tile), room) for tile in tiles], columns)


def heatmap(score: np.ndarray, axes: Sequence[Axis], image: np.ndarray) -> np.ndarray:
    """A score (h, w) over an image (H, W, 3): elements where they lie in the image, between them linear."""
    heat = score
    for k, axis in enumerate(axes):
        place = np.arange(image.shape[k]) - float(axis.offset)
        at = np.clip(place / float(axis.stride or 1), 0, score.shape[k] - 1)
        low = np.floor(at).astype(int)
        high = np.minimum(low + 1, score.shape[k] - 1)
        part = (at - low).astype(np.float32)[(slice(None), None) if k == 0 else (None, slice(None))]
        heat = heat.take(low, k) * (1 - part) + heat.take(high, k) * part
    level = stretched(heat)
    stops = np.linspace(0, 255, len(HEAT))
    colours = np.stack([np.interp(np.arange(256), stops, channel) for channel in zip(*HEAT, strict=True)], -1)
    grey = image.mean(axis=2, keepdims=True)
    return (0.4 * grey + 0.6 * colours[level]).astype(np.uint8)


def write(found: Features, folder: PathLike) -> list[Path]:
    """The pictures as PNG files and index.html, which shows them. Returns the paths."""
    from PIL import Image

    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    shown = [Picture("image", "the image", Path(found.path).name, found.image), *found.pictures]
    for i, picture in enumerate(shown):  # a/b and a_b are one name to files, and so may A and a be
        while picture.name.lower() in (other.name.lower() for other in shown[:i]):
            picture.name += "_"
    paths = []
    for picture in shown:
        paths.append(out / f"{picture.name}.png")
        with atomic_write(paths[-1]) as file:
            file.write(png(Image.fromarray(picture.image)))
    paths.append(out / "index.html")
    with atomic_write(paths[-1]) as file:
        file.write(_page(found, shown).encode())
    return paths


def _page(found: Features, shown: Sequence[Picture]) -> str:
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in found.notes)
    figures = "".join(
        f'<figure class="card"><h2>{escape(p.title)}</h2><p class="note">{escape(p.told)}</p>'
        f'<a href="{p.name}.png"><img src="{p.name}.png" alt="{escape(p.title)}" '
        f'width="{p.image.shape[1]}" height="{p.image.shape[0]}" loading="lazy"></a></figure>'
        for p in shown
    )
    title = Path(found.path).name
    parts = {"name": escape(title), "notes": notes, "figures": figures}
    policy = POLICY.replace("img-src data:", "img-src data: file: 'self'")
    return page("features", title, parts, (), ("features.css",), policy)


def _interesting(net: Net) -> list[str]:
    tops = {
        layer.name: net.blob_names[ids[0]] for layer, ids in zip(net.layers, net.top_ids, strict=True) if ids
    }
    first = next((tops[layer.name] for layer in net.layers if layer.type == "Convolution"), None)
    pools = [tops[layer.name] for layer in net.layers if layer.type == "Pooling"]
    return list(dict.fromkeys([*([first] if first else []), *pools, *net.outputs]))


def _blob(name: str, values: np.ndarray, part: Any) -> Picture:
    """A blob of one image: this part of (C, H, W) as a mosaic, anything else as one square of its numbers."""
    shape = " × ".join(map(str, values.shape)) or "one number"
    finite = values[np.isfinite(values)]
    told = f"{shape}, from {finite.min(initial=np.inf):.4g} to {finite.max(initial=-np.inf):.4g}"
    odd = values.size - finite.size
    told += f"; {odd:,} values are not finite" if odd else ""
    if values.ndim == 3 and values.size and max(values.shape[1:]) > 1:
        more = f"; the first {MOST} channels" if len(values) > MOST else ""
        shown = values[part]
        if shown.shape != values.shape:
            told += f"; the {' × '.join(map(str, shown.shape[1:]))} that lie over the image"
        return Picture(_file(name), name, f"{told}; each channel stretched on its own{more}", mosaic(shown))
    side = ceil(sqrt(max(1, values.size)))
    square = np.zeros(side * side, np.float32)
    square[: values.size] = values.ravel()
    return Picture(
        _file(name), name, f"{told}; row by row", _tile(stretched(square.reshape(side, side)), 512)
    )


def _filters(net: Net) -> list[Picture]:
    """Of the first convolution of the image."""
    for layer, ids in zip(net.layers, net.bottom_ids, strict=True):
        if layer.type == "Convolution" and layer.blobs and layer.blobs[0].shape[1:2] == (3,):
            weights = layer.blobs[0].peek()
            if weights.ndim != 4 or not ids:
                return []
            told = f"{' × '.join(map(str, weights.shape))}; each filter stretched on its own, in RGB"
            return [
                Picture(f"filters-{_file(layer.name)}", f"filters of {layer.name}", told, filters(weights))
            ]
    return []


def _heat(net: Net, wanted: str, image: np.ndarray, axes: Mapping[str, Sequence[Axis]]) -> list[Picture]:
    """A class of every output that is a score map."""
    scores = {name: net.blobs[name] for name in net.outputs if len(net.blobs[name].shape) == 4}
    scores = {name: blob for name, blob in scores.items() if blob.shape[1] > 1}
    found, known = [], []
    for name, blob in scores.items():
        labels = labels_of(blob.shape, [b.shape for b in scores.values()])
        names = list(labels.classes) if labels else []
        known += names
        index = names.index(wanted) if wanted in names else int(wanted) if wanted.isdigit() else -1
        if not 0 <= index < blob.shape[1] or len(axes.get(name, [])) != 2:
            continue
        score = blob.data[0, index]
        title = f"{names[index] if names else f'class {index}'} in {name}"
        told = f"the score, from {score.min():.4g} (blue) to {score.max():.4g} (yellow)"
        picture = heatmap(score, axes[name], image)
        found.append(Picture(f"heat-{_file(name)}-{index}", title, told, picture))
    if not found:
        many = f"{min(b.shape[1] for b in scores.values())} classes, from 0 on" if scores else "no score maps"
        raise CaffeError(f"{net.path}: no class '{wanted}'; its outputs have {many}", nearest(wanted, known))
    return found


def _file(name: str) -> str:
    """A blob's name as a file's: blobs may be called a/b, and at any length."""
    return re.sub(r"[^\w.-]+", "_", name).strip(".")[:50] or "blob"


def _tile(values: np.ndarray, room: int) -> np.ndarray:
    """uint8 (h, w, ...) at most `room` on each side: averaged down, or every pixel repeated."""
    h, w = values.shape[:2]
    if max(h, w) > room:
        scale = room / max(h, w)
        return _resized(values, (max(1, int(h * scale)), max(1, int(w * scale))))
    times = room // max(h, w)
    return values.repeat(times, 0).repeat(times, 1)


def _resized(values: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    from PIL import Image

    smaller = size[0] * size[1] < values.shape[0] * values.shape[1]
    how = Image.Resampling.BOX if smaller else Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(values).resize((size[1], size[0]), how))


def _grid(tiles: Sequence[np.ndarray], columns: int) -> np.ndarray:
    h, w = tiles[0].shape[:2]
    gap = max(1, min(h, w) // 20)
    rows = ceil(len(tiles) / columns)
    sheet: Any = np.full(
        (rows * (h + gap) - gap, columns * (w + gap) - gap, *tiles[0].shape[2:]), 90, np.uint8
    )
    for i, tile in enumerate(tiles):
        y, x = i // columns * (h + gap), i % columns * (w + gap)
        sheet[y : y + h, x : x + w] = tile
    return sheet
