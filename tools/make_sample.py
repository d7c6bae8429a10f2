"""Draw the README's picture: a sample, its labels, and the labels over it (docs/images/sample.png)."""

from __future__ import annotations

import tempfile
from pathlib import Path

from PIL import Image

from caffe_fcn.conversion import convert
from caffe_fcn.segment import Segmenter, read_image

ROOT = Path(__file__).resolve().parent.parent
NET = ROOT / "prototxts" / "shapes-fcn8s"
GAP = 8


def row(segmenter: Segmenter, sample: Path, height: int = 300) -> Image.Image:
    """One sample, its labels and the overlay with its legend, side by side."""
    image = read_image(sample)
    (labels,) = segmenter(image)
    scale = height / image.shape[0]
    size = (round(image.shape[1] * scale), height)
    colours = labels.image().convert("RGB").resize(size, Image.Resampling.NEAREST)
    overlay = labels.overlay(image).convert("RGB")
    tall = (round(overlay.width * scale), round(overlay.height * scale))
    parts = [Image.fromarray(image).resize(size), colours, overlay.resize(tall, Image.Resampling.LANCZOS)]
    sheet = Image.new("RGB", (sum(p.width + GAP for p in parts) - GAP, max(p.height for p in parts)), "white")
    x = 0
    for part in parts:
        sheet.paste(part, (x, 0))
        x += part.width + GAP
    return sheet


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "shapes.onnx"
        convert(NET / "deploy.prototxt", NET / "shapes-fcn8s.caffemodel", model, verify=False)
        row(Segmenter(model, "cpu"), NET / "sample-1.png").save(
            ROOT / "docs" / "images" / "sample.png", optimize=True
        )
