"""Label the pixels of images with a converted model.

    caffe-fcn segment fcn8s.onnx photo.jpg -o out
    caffe-fcn segment fcn8s.onnx folder_of_images -o out --device cuda

For each image: NAME.label.png, an indexed image whose pixels are the labels, and NAME.overlay.png.
A file that cannot be read is reported at the end; the others are done all the same, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from caffe_fcn.errors import CaffeError
from caffe_fcn.progress import Progress
from caffe_fcn.segment import Labels, Segmenter, images_in, read_image, save


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL.onnx")
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="image files, or folders of them")
    parser.add_argument(
        "-o", "--out", default="out", metavar="DIR", help="where to write (default: %(default)s)"
    )
    parser.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto",
                        help="cuda fails where it does not start; auto takes it where it does")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print files and areas of the classes as JSON")


def run(args: argparse.Namespace) -> int:
    images = images_in(args.images)
    segmenter = Segmenter(args.model, args.device)
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    loud = not args.quiet and not args.json
    if args.device == "auto" and loud:
        print(f"running on {segmenter.session.device}")
    done: list[dict[str, Any]] = []
    failed: list[str] = []
    with Progress("segmenting", len(images), "images", quiet=args.quiet) as step:
        for path in images:
            try:
                done += _one(segmenter, path, out)
            except CaffeError as error:
                failed.append(str(error))
            step()
    if args.json:
        print(json.dumps({"device": segmenter.session.device, "images": done, "failed": failed}, indent=2))
    elif loud:
        for row in done:
            areas = ", ".join(f"{name} {share:.0%}" for name, share in row["areas"].items())
            print(f"{row['image']}: {areas}\n  {row['labels']}\n  {row['overlay']}")
    for problem in failed:
        print(f"caffe-fcn segment: {problem}", file=sys.stderr)
    if failed:
        print(f"caffe-fcn segment: {len(failed)} of {len(images)} images failed", file=sys.stderr)
    return 1 if failed else 0


def _one(segmenter: Segmenter, path: Path, out: Path) -> list[dict[str, Any]]:
    image = read_image(path)
    results = segmenter(image)
    return [_write(labels, image, path, out, several=len(results) > 1) for labels in results]


def _write(labels: Labels, image: Any, path: Path, out: Path, several: bool) -> dict[str, Any]:
    stem = f"{path.stem}.{labels.output}" if several else path.stem
    files = {"labels": out / f"{stem}.label.png", "overlay": out / f"{stem}.overlay.png"}
    save(labels.image(), files["labels"])
    save(labels.overlay(image), files["overlay"])
    return {"image": str(path), "output": labels.output, "areas": labels.areas(),
            **{k: str(v) for k, v in files.items()}}  # fmt: skip
