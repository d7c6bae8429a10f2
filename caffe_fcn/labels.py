"""The label sets of the FCN family: what its classes are called, and the colours they are shown in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np


class LabelSet(NamedTuple):
    name: str
    classes: tuple[str, ...]


VOC = LabelSet(
    "PASCAL VOC",
    (
        "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat",
        "chair", "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant",
        "sheep", "sofa", "train", "tvmonitor",
    ),
)  # fmt: skip
CONTEXT = LabelSet(
    "PASCAL-Context 59",
    (
        *VOC.classes, "bag", "bed", "bench", "book", "building", "cabinet", "ceiling", "clothes",
        "computer", "cup", "door", "fence", "floor", "flower", "food", "grass", "ground",
        "keyboard", "light", "mountain", "mouse", "curtain", "platform", "sign", "plate", "road",
        "rock", "shelves", "sidewalk", "sky", "snow", "bedcloth", "track", "tree", "truck", "wall",
        "water", "window", "wood",
    ),
)  # fmt: skip
NYUD = LabelSet(
    "NYUDv2 40",
    (
        "wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf",
        "picture", "counter", "blinds", "desk", "shelves", "curtain", "dresser", "pillow", "mirror",
        "floor mat", "clothes", "ceiling", "books", "refridgerator", "television", "paper", "towel",
        "shower curtain", "box", "whiteboard", "person", "night stand", "toilet", "sink", "lamp",
        "bathtub", "bag", "otherstructure", "otherfurniture", "otherprop",
    ),
)  # fmt: skip
SIFTFLOW = LabelSet(
    "SIFT Flow 33",
    (
        "awning", "balcony", "bird", "boat", "bridge", "building", "bus", "car", "cow", "crosswalk",
        "desert", "door", "fence", "field", "grass", "moon", "mountain", "person", "plant", "pole",
        "river", "road", "rock", "sand", "sea", "sidewalk", "sign", "sky", "staircase",
        "streetlight", "sun", "tree", "window",
    ),
)  # fmt: skip
GEOMETRIC = LabelSet("SIFT Flow geometric 3", ("sky", "horizontal", "vertical"))
SHAPES = LabelSet("shapes", ("background", "circle", "square", "triangle", "star", "ring", "cross"))

#: A net's number of classes tells which set it was trained on, as far as the FCN family goes.
_BY_COUNT = {len(s.classes): s for s in (VOC, CONTEXT, NYUD, SIFTFLOW, SHAPES)}


def labels_of(score: Sequence[Any], scores: Sequence[Sequence[Any]]) -> LabelSet | None:
    """The label set of a score map of this shape among a net's score maps; None if it is none of ours."""
    if score[1] == len(GEOMETRIC.classes) and any(s[1] == len(SIFTFLOW.classes) for s in scores):
        return GEOMETRIC
    return _BY_COUNT.get(score[1])


def palette(count: int = 256) -> np.ndarray:
    """(count, 3) uint8 RGB: the VOC colour of each label, which sets labels that are near far apart.

    Bit 0, 1 and 2 of a label are the highest bit of red, green and blue; bits 3, 4, 5 the next, and so on.
    """
    labels = np.arange(count)
    colours = np.zeros((count, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= ((labels >> (3 * bit + channel) & 1) << (7 - bit)).astype(np.uint8)
    return colours
