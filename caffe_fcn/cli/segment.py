"""Label the pixels of images with a converted model.

    caffe-fcn segment fcn8s.onnx photo.jpg -o out
    caffe-fcn segment fcn8s.onnx folder_of_images -o out --device cuda --batch 8
    caffe-fcn segment fcn8s.onnx map_of_the_city.tif -o out --tile 1024 --overlap 128

For each image: NAME.label.png, an indexed image whose pixels are the labels, and NAME.overlay.png. With
--html also one page of all images, which needs no network: overlay with a slider, areas, confidence.
A file that cannot be read is reported at the end; the others are done all the same, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from caffe_fcn.errors import CaffeError
from caffe_fcn.folder import Work, stream
from caffe_fcn.progress import Progress
from caffe_fcn.runtime import DEVICES
from caffe_fcn.segment import LABEL, OVERLAY, Labels, Segmenter, images_in, save, save_overlay
from caffe_fcn.tiles import label_tiled, large_images

if TYPE_CHECKING:
    from caffe_fcn.report.segmentation import Gallery

Row = dict[str, Any]
PAGE = "index.html"
WHOLE = 1000  # steps of progress that an image is


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL.onnx")
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="image files, or folders of them")
    parser.add_argument(
        "-o", "--out", default="out", metavar="DIR", help="where to write (default: %(default)s)"
    )
    parser.add_argument("--no-overlay", action="store_true", help="write the label images only")
    parser.add_argument("--html", nargs="?", const="", metavar="FILE.html",
                        help="also a page of all images: overlay, legend, areas, confidence "
                             f"(default: {PAGE} in DIR)")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print files and areas of the classes as JSON")
    run_arguments(parser)
    large = parser.add_argument_group("large images")
    large.add_argument("--tile", type=int, metavar="PIXELS",
                       help="label tiles of this size; scores are averaged where tiles overlap")  # fmt: skip
    large.add_argument("--overlap", type=int, default=128, metavar="PIXELS",
                       help="of neighbouring tiles (default: %(default)s); exact from 4/3 of the net's "
                            "receptive field on")  # fmt: skip


def run_arguments(parser: argparse.ArgumentParser) -> None:
    """How a model runs; also of other commands that run one."""
    group = parser.add_argument_group("how it runs")
    group.add_argument("--device", choices=DEVICES, default="auto",
                       help="auto takes CUDA where it starts; the others fail where they do not")  # fmt: skip
    group.add_argument("--batch", type=int, default=1, metavar="N",
                       help="images, of one size, at a time (default: %(default)s)")  # fmt: skip
    group.add_argument("--tf32", action="store_true",
                       help="CUDA: faster products, rounded to 10 bits of mantissa")  # fmt: skip
    group.add_argument("--threads", type=int, default=0, metavar="N", help="of the CPU")


def segmenter_of(args: argparse.Namespace) -> Segmenter:
    """The model of a command with `run_arguments`."""
    if args.batch < 1:
        raise CaffeError(f"--batch {args.batch}: at least 1")
    segmenter = Segmenter(args.model, args.device, tf32=args.tf32, threads=args.threads)
    if args.batch > 1 and segmenter.count not in (None, args.batch):
        raise CaffeError(
            f"--batch {args.batch}: {args.model} takes {segmenter.count} at a time",
            "convert without --input-shape for any number",
        )
    return segmenter


def run(args: argparse.Namespace) -> int:
    images = images_in(args.images)
    gallery = _gallery(images, args)
    segmenter = segmenter_of(args)
    Path(args.out).mkdir(parents=True, exist_ok=True)
    loud = not args.quiet and not args.json
    if args.device == "auto" and loud:
        print(f"running on {segmenter.session.device}")
    rows: list[Row] = []
    failed: list[str] = []
    with Progress("segmenting", WHOLE * len(images), "of the images", quiet=args.quiet) as step:
        for _, outcome in stream(images, work(segmenter, args, finisher(images, args, gallery), step)):
            if isinstance(outcome, CaffeError):
                failed.append(str(outcome))
            else:
                rows += outcome
            step(0 if args.tile else WHOLE)  # tiles count themselves
    if gallery:
        gallery.write()
    if args.json:
        print(json.dumps({"device": segmenter.session.device, "images": rows, "failed": failed}, indent=2))
    elif loud:
        for row in rows:
            areas = ", ".join(f"{name} {share:.0%}" for name, share in row["areas"].items())
            print(
                "\n  ".join(
                    [f"{row['image']}: {areas}", *(row[k] for k in ("labels", "overlay") if k in row)]
                )
            )
    return report(failed, len(images), "caffe-fcn segment")


def _gallery(images: list[Path], args: argparse.Namespace) -> Gallery | None:
    if args.html is None:
        return None
    from caffe_fcn.report.segmentation import Gallery

    page = Path(args.html or Path(args.out) / PAGE)
    if page.suffix.lower() not in (".html", ".htm"):  # an image, as likely as not
        raise CaffeError(f"--html {page}: is not the name of a page", "end it in .html")
    return Gallery(page, args.model, images)


def finisher(
    images: list[Path], args: argparse.Namespace, gallery: Gallery | None = None
) -> Callable[[Path, np.ndarray, list[Labels]], list[Row]]:
    """What writes an image's files into the folder `args.out`, and puts it on the page.

    Raises CaffeError if files of two images would have one name.
    """
    names, out = _names(images), Path(args.out)

    def finish(path: Path, image: np.ndarray, found: list[Labels]) -> list[Row]:
        if gallery:
            gallery.add(path, image, found)
        several = len(found) > 1
        files = [f"{names[path]}.{file_name(x.output)}" if several else names[path] for x in found]
        return [
            _write(labels, path, image, out / name, args) for labels, name in zip(found, files, strict=True)
        ]

    return finish


def work(
    segmenter: Segmenter, args: argparse.Namespace, finish: Any, step: Callable[[int], Any] | None = None
) -> Work[Any]:
    """What `stream` is to do: whole images in batches, or tiles, of which `step` hears as they are done."""
    if getattr(args, "tile", None) is None:
        # A second pass at a time fills what one leaves idle: a GPU that waits for copies, cores that small
        # layers do not need. Recorded graphs take turns.
        lanes = 1 if segmenter.session.captures else 2
        batch = segmenter.count or args.batch
        label_whole = segmenter.label
        if getattr(args, "html", None) is not None:
            from caffe_fcn.report.segmentation import label_and_confidence

            label_whole = partial(label_and_confidence, segmenter)
        return Work(segmenter.prepare, label_whole, finish, batch, lanes)
    large_images()

    def tell(done: int, total: int) -> None:
        if step:
            step(WHOLE * done // total - WHOLE * (done - 1) // total)

    def label(images: Sequence[np.ndarray]) -> list[list[Labels]]:
        return [label_tiled(segmenter, image, args.tile, args.overlap, tell) for image in images]

    return Work(np.asarray, label, finish)


def report(failed: list[str], total: int, prog: str) -> int:
    """Say what failed; the exit code."""
    for problem in failed:
        print(f"{prog}: {problem}", file=sys.stderr)
    if failed:
        print(f"{prog}: {len(failed)} of {total} images failed", file=sys.stderr)
    return 1 if failed else 0


def file_name(output: str) -> str:
    """An output's name, as part of a file's: blobs may be called a/b."""
    return output.replace("/", "_")


def _names(images: list[Path]) -> dict[Path, str]:
    """What each image's files are called: its name without the suffix, with it where several would be one."""
    names: dict[Path, str] = {}
    stems = Counter(path.stem for path in images)
    owners: dict[str, Path] = {}
    for path in images:
        name = path.stem if stems[path.stem] == 1 else path.name
        if owners.setdefault(name, path) != path:
            raise CaffeError(
                f"{path} and {owners[name]} would both be written as {name}{LABEL}",
                "segment their folders one by one, each with a folder of its own for --out",
            )
        names[path] = name
    return names


def _write(labels: Labels, path: Path, image: np.ndarray, base: Path, args: argparse.Namespace) -> Row:
    row: Row = {"image": str(path), "output": labels.output, "areas": labels.areas()}
    row["labels"] = f"{base}{LABEL}"
    save(labels.image(), Path(row["labels"]))
    if not args.no_overlay:
        row["overlay"] = f"{base}{OVERLAY}"
        save_overlay(labels, image, Path(row["overlay"]))
    return row
