"""Draw the pictures of the shapes data set: coloured shapes on textured backgrounds, with true labels.

    python3 tools/draw_shapes.py --out prototxts/shapes-fcn8s      # writes the sample pictures

The pictures teach and test the small net of prototxts/shapes-fcn8s. A picture follows from its seed alone,
so nothing need be stored: the samples, the training set and the held-out set are ranges of seeds. NumPy and
Pillow only, so that a test can draw what a training run on another machine has seen.

>>> picture, label = draw(np.random.default_rng(1), 96, 128)
>>> picture.shape, picture.dtype, label.shape, label.dtype
((96, 128, 3), dtype('uint8'), (96, 128), dtype('uint8'))
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

Array = np.ndarray
Rng = np.random.Generator

CLASSES = ("background", "circle", "square", "triangle", "star", "ring", "cross")

# Colour of each class in a label picture: the first seven of the Pascal VOC palette.
PALETTE = ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128), (0, 128, 128))

# The mean colour of Pascal VOC, as the FCN nets subtract it, in BGR order.
MEAN_BGR = (104.00698793, 116.66876762, 122.67891434)

# seed, height, width of sample-1.png and so on. Training and held-out pictures use seed pairs, never these.
SAMPLES = ((18, 150, 200), (45, 180, 180), (61, 210, 160), (105, 128, 224))

RADIUS = (24.0, 56.0)  # of the circle around a shape, in pixels
PIXELS_PER_SHAPE = 6500
SMALLEST_PART_INSIDE = 0.8  # of a shape's area, when the border cuts it
SMALLEST_PART_SEEN = 0.8  # of a shape's area, when others cover it: a smaller rest could be any class


# --- Shapes: signed distance to the outline, negative inside, for a circle of radius 1 around the shape. ---


def _circle(x: Array, y: Array) -> Array:
    return np.hypot(x, y) - 0.9


def _square(x: Array, y: Array) -> Array:
    return np.maximum(np.abs(x), np.abs(y)) - 0.72


def _triangle(x: Array, y: Array) -> Array:
    return np.maximum(np.abs(x) * np.sqrt(0.75) + y / 2, -y) - 0.5


def _star(x: Array, y: Array) -> Array:
    # Fold the plane onto half a point of the star: there the outline is one straight edge, tip to notch.
    half = np.pi / 5
    angle = np.abs(np.mod(np.arctan2(y, x), 2 * half) - half)  # 0 at the notch, `half` at the tip
    radius, notch = np.hypot(x, y), 0.45
    edge = np.array([np.cos(half) - notch, np.sin(half)])
    normal = np.array([edge[1], -edge[0]]) / np.hypot(*edge)
    return (radius * np.cos(angle) - notch) * normal[0] + radius * np.sin(angle) * normal[1]


def _ring(x: Array, y: Array) -> Array:
    return np.abs(np.hypot(x, y) - 0.72) - 0.2


def _cross(x: Array, y: Array) -> Array:
    x, y = np.abs(x), np.abs(y)
    return np.minimum(np.maximum(x - 0.95, y - 0.3), np.maximum(x - 0.3, y - 0.95))


OUTLINES: dict[str, Callable[[Array, Array], Array]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "ring": _ring,
    "cross": _cross,
}


# --- Backgrounds: a field of values 0 to 1, which mixes two colours. ---


def _along(height: int, width: int, angle: float) -> Array:
    """Each pixel's coordinate along a direction, in pixels."""
    return np.cos(angle) * np.arange(width)[None, :] + np.sin(angle) * np.arange(height)[:, None]


def _noise(rng: Rng, height: int, width: int) -> Array:
    cell = rng.uniform(4, 24)
    rows, columns = np.arange(height) / cell, np.arange(width) / cell
    grid = rng.random((int(rows[-1]) + 2, int(columns[-1]) + 2))
    top, left = rows.astype(int), columns.astype(int)
    down, right = (rows - top)[:, None], (columns - left)[None, :]
    upper = grid[np.ix_(top, left)] * (1 - right) + grid[np.ix_(top, left + 1)] * right
    lower = grid[np.ix_(top + 1, left)] * (1 - right) + grid[np.ix_(top + 1, left + 1)] * right
    return upper * (1 - down) + lower * down


def _stripes(rng: Rng, height: int, width: int) -> Array:
    wave = np.sin(_along(height, width, rng.uniform(0, np.pi)) * (2 * np.pi / rng.uniform(6, 32)))
    return np.clip(0.5 + wave * rng.uniform(0.5, 4), 0, 1)  # from soft waves to hard stripes


def _gradient(rng: Rng, height: int, width: int) -> Array:
    field = _along(height, width, rng.uniform(0, 2 * np.pi))
    return (field - field.min()) / np.ptp(field)


def _checkers(rng: Rng, height: int, width: int) -> Array:
    angle, cell = rng.uniform(0, np.pi), rng.uniform(5, 18)
    steps = [np.floor(_along(height, width, turn) / cell) for turn in (angle, angle + np.pi / 2)]
    return np.mod(steps[0] + steps[1], 2)


TEXTURES: tuple[Callable[[Rng, int, int], Array], ...] = (_noise, _stripes, _gradient, _checkers)


def _stand_out(rng: Rng, used: list[Array]) -> Array:
    """A random colour far from those used: the best of eight, so that no shape melts into what it covers."""
    candidates = rng.uniform(0, 255, (8, 3))
    distances = np.linalg.norm(candidates[:, None] - np.array(used)[None], axis=2)
    return candidates[distances.min(axis=1).argmax()]


def _paint_shape(
    rng: Rng, picture: Array, label: Array, owner: Array, areas: list[int], used: list[Array]
) -> None:
    """Paint one random shape over the picture, unless too little of it or of another would be seen.

    `owner` holds the number of the shape that each pixel shows (0 none), `areas` each shape's whole area,
    `used` the colours so far; all are brought up to date.
    """
    height, width = label.shape
    kind = int(rng.integers(1, len(CLASSES)))
    radius = min(rng.uniform(*RADIUS), 0.45 * min(height, width))
    row, column = rng.uniform(0, height), rng.uniform(0, width)
    angle = rng.uniform(0, 2 * np.pi)

    # The square around the shape, not cut at the border yet, so that the mask's sum is the whole area.
    top, left, reach = int(row - radius) - 1, int(column - radius) - 1, int(2 * radius) + 4
    down = (np.arange(top, top + reach)[:, None] - row) / radius
    right = (np.arange(left, left + reach)[None, :] - column) / radius
    across = right * np.cos(angle) + down * np.sin(angle)
    along = down * np.cos(angle) - right * np.sin(angle)
    distance = OUTLINES[CLASSES[kind]](across, along) * radius
    area = int((distance < 0).sum())

    inside = (slice(max(0, -top), min(reach, height - top)), slice(max(0, -left), min(reach, width - left)))
    distance, across = distance[inside], across[inside]
    window = (slice(max(0, top), min(height, top + reach)), slice(max(0, left), min(width, left + reach)))
    mask = distance < 0
    covered = np.bincount(owner[window][mask], minlength=len(areas))
    seen = np.bincount(owner.ravel(), minlength=len(areas)) - covered
    hidden = seen < SMALLEST_PART_SEEN * np.array(areas)
    if mask.sum() < SMALLEST_PART_INSIDE * area or hidden.any():
        return

    colour = _stand_out(rng, used)
    shade = 1 + rng.uniform(-0.2, 0.2) * across[..., None]
    opacity = np.clip(0.5 - distance, 0, 1)[..., None]  # antialiasing: an edge pixel mixes both colours
    picture[window] += opacity * (colour * shade - picture[window])
    label[window][mask] = kind
    owner[window][mask] = len(areas)
    areas.append(area)
    used.append(colour)


def draw(rng: Rng, height: int, width: int) -> tuple[Array, Array]:
    """Draw a picture, (height, width, 3) uint8 in RGB, and its label, (height, width) uint8 of classes.

    Shapes may cover each other and stick out of the picture. The picture has soft edges, noise and a random
    brightness; the label has crisp edges.
    """
    first = rng.uniform(50, 205) + rng.uniform(-45, 45, 3)  # backgrounds are rather grey, shapes are not
    second = np.clip(first + rng.uniform(-70, 70, 3), 0, 255)
    texture = TEXTURES[rng.integers(len(TEXTURES))](rng, height, width)[..., None]
    picture = first + texture * (second - first)
    label = np.zeros((height, width), np.uint8)

    owner, areas, used = np.zeros((height, width), np.intp), [0], [first, second, (first + second) / 2]
    wanted = max(1, rng.poisson(height * width / PIXELS_PER_SHAPE))
    for _ in range(4 * wanted):
        if len(areas) <= wanted:
            _paint_shape(rng, picture, label, owner, areas, used)

    picture = picture * rng.uniform(0.75, 1.15) + rng.uniform(-15, 15)
    picture += rng.uniform(0, 10) * rng.standard_normal(picture.shape, np.float32)
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8), label


def draw_any_size(rng: Rng) -> tuple[Array, Array]:
    """Draw a picture whose sides, 96 to 224 pixels, are random too."""
    height, width = rng.integers(96, 225, 2)
    return draw(rng, int(height), int(width))


def to_input(picture: Array) -> Array:
    """Turn an RGB picture (h, w, 3) into the net's input (3, h, w): BGR float32, the mean subtracted."""
    bgr = picture[..., ::-1].astype(np.float32) - np.array(MEAN_BGR, np.float32)
    return np.ascontiguousarray(bgr.transpose(2, 0, 1))


def save_label(path: Path, label: Array) -> None:
    """Write a label as an indexed PNG: pixel values are classes, colours are PALETTE."""
    image = Image.fromarray(label)
    image.putpalette([value for colour in PALETTE for value in colour])
    image.save(path, optimize=True)


def main() -> None:
    """Write the sample pictures and their labels."""
    parser = argparse.ArgumentParser(description="Write the sample pictures of shapes and their labels.")
    parser.add_argument("--out", type=Path, default=Path("prototxts/shapes-fcn8s"), help="folder to write to")
    folder = parser.parse_args().out
    for number, (seed, height, width) in enumerate(SAMPLES, start=1):
        picture, label = draw(np.random.default_rng(seed), height, width)
        Image.fromarray(picture).save(folder / f"sample-{number}.png", optimize=True)
        save_label(folder / f"sample-{number}-label.png", label)


if __name__ == "__main__":
    main()
