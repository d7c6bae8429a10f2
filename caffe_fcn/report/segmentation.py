"""Labels of images as one page: image, labels, overlay, a legend with areas, and how sure the net is."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from caffe_fcn.formats.files import atomic_write
from caffe_fcn.report.page import data, data_uri, page, png, template
from caffe_fcn.segment import Labels, Segmenter

SIDE = 1024  # pixels of the longer side of a picture on the page; larger ones are shown smaller
MOST = 40  # images on a page
STRIP = 1 << 18  # pixels whose scores are looked at together


@dataclass
class Sure(Labels):
    """Labels, and the share of the winning class in the softmax over all: (H, W) float32, 0 to 1."""

    confidence: np.ndarray | None = None  # None where the model gives labels only


def label_and_confidence(segmenter: Segmenter, prepared: Sequence[np.ndarray]) -> list[list[Labels]]:
    """What `segmenter.label` gives, and how sure the net is where the model gives scores."""
    values = segmenter.run(prepared)
    found: list[list[Labels]] = []
    for i in range(len(prepared)):
        one: list[Labels] = []
        for name, value in values.items():
            sure = confidence(value[i]) if value[i].ndim == 3 else None
            one.append(Sure(**vars(segmenter.labels(name, value[i])), confidence=sure))
        found.append(one)
    return found


def confidence(scores: np.ndarray) -> np.ndarray:
    """The largest of the softmax over (classes, H, W); scores that are a softmax already stay as they are."""
    flat = scores.reshape(len(scores), -1)
    found = np.empty(flat.shape[1], np.float32)
    for start in range(0, flat.shape[1], STRIP):
        part = flat[:, start : start + STRIP]
        most = part.max(axis=0)
        sums = part.sum(axis=0, dtype=np.float32)
        if part.min(initial=0) < 0 or abs(sums - 1).max(initial=0) > 1e-2:
            most = 1 / np.exp(part - most, dtype=np.float32).sum(axis=0)
        found[start : start + STRIP] = most
    return found.reshape(scores.shape[1:])


def entry(name: str, image: np.ndarray, labels: Sequence[Labels]) -> dict[str, Any]:
    """What the page needs of one image (H, W, 3) uint8 RGB, as plain data for JSON."""
    from PIL import Image

    height, width = image.shape[:2]
    scale = min(1, SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    picture = Image.fromarray(image)
    out = BytesIO()
    (picture if scale == 1 else picture.resize(size, Image.Resampling.BOX)).save(out, "JPEG", quality=88)
    return {
        "name": name,
        "size": [height, width],
        "shown": [size[1], size[0]],
        "image": data_uri(out.getvalue(), "image/jpeg"),
        "outputs": [_output(each, size) for each in labels],
    }


def _output(labels: Labels, size: tuple[int, int]) -> dict[str, Any]:
    from PIL import Image

    shown = _nearest(labels.labels, size)
    bytes_ = (
        np.stack([shown & 255, shown >> 8, np.zeros_like(shown)], axis=-1) if shown.max() > 255 else shown
    )
    sure = labels.confidence if isinstance(labels, Sure) else None
    found: dict[str, Any] = {
        "name": labels.output,
        "labels": data_uri(png(Image.fromarray(bytes_.astype(np.uint8))), "image/png"),
        "classes": _classes(labels, sure),
    }
    if sure is not None:
        grey = (_nearest(sure, size) * 255 + 0.5).astype(np.uint8)
        found["confidence"] = data_uri(png(Image.fromarray(grey)), "image/png")
        found["sure"] = round(float(sure.mean()), 4)
    return found


def _classes(labels: Labels, sure: np.ndarray | None) -> list[dict[str, Any]]:
    """The classes found, the largest first."""
    found: list[dict[str, Any]] = []
    counts = labels.counts()
    sums = np.bincount(labels.labels.ravel(), sure.ravel()) if sure is not None else None
    for n, pixels in counts.items():
        each = {"label": n, "name": labels.name(n), "colour": labels.colour(n), "pixels": pixels}
        each["share"] = pixels / labels.labels.size
        if sums is not None:
            each["sure"] = round(float(sums[n]) / pixels, 4)
        found.append(each)
    return found


def _nearest(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W) at another size (width, height), each pixel the nearest value."""
    rows, columns = (np.arange(n) * have // n for n, have in zip(size[::-1], values.shape, strict=True))
    return values if values.shape == size[::-1] else values[rows[:, None], columns]


def render(entries: Sequence[dict[str, Any]], model: str, left_out: int = 0) -> str:
    """The page of one run; `left_out` images are mentioned only."""
    names = ", ".join(e["name"] for e in entries) if len(entries) < 3 else f"{len(entries)} images"
    note = f"<p class='warning'>{left_out} more images are not on this page.</p>" if left_out else ""
    parts = {
        "name": escape(names or "no image"),
        "where": escape(f"labelled by {model}"),
        "note": note,
        "viewer": template("viewer.html"),
        "data": data(list(entries)),
    }
    return page("segment", names, parts, ("viewer.js", "segment.js"), styles=("viewer.css",))


class Gallery:
    """Collects the images of a run, from any thread, and writes their page."""

    def __init__(self, path: str | os.PathLike[str], model: str, order: Sequence[Path]) -> None:
        self.path, self.model = path, model
        self.order = {image: i for i, image in enumerate(order)}
        self.entries: dict[int, dict[str, Any]] = {}
        self.left_out = 0
        self._lock = threading.Lock()

    def add(self, path: Path, image: np.ndarray, labels: Sequence[Labels]) -> None:
        """Put an image on the page, if it is among the first MOST of the run."""
        place = self.order[path]
        if place >= MOST:
            with self._lock:
                self.left_out += 1
            return
        made = entry(path.name, image, labels)
        with self._lock:
            self.entries[place] = made

    def write(self) -> None:
        """Write the page. Raises CaffeError if it cannot be written."""
        shown = [self.entries[i] for i in sorted(self.entries)]
        with atomic_write(self.path) as file:
            file.write(render(shown, self.model, self.left_out).encode())
