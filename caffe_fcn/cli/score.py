"""Compare label images with what was predicted: accuracies and intersections over union.

    caffe-fcn score SegmentationClass out --classes voc
    caffe-fcn score SegmentationClass --model fcn8s.onnx --images JPEGImages

A label and its prediction have the same name, up to the ending; `.label`, as `caffe-fcn segment` writes it,
`-label` and `_label` are part of the ending, and in a folder that has such files only they are taken. The
numbers are those of the FCN repository's score.py: pixels labelled 255 do not count, and means are over the
classes that occur.
"""

from __future__ import annotations

import argparse
import json
import re
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from caffe_fcn import labels
from caffe_fcn.cli.segment import file_name, report, run_arguments, segmenter_of, work
from caffe_fcn.errors import CaffeError, nearest
from caffe_fcn.folder import Pool, ahead, stream
from caffe_fcn.progress import Progress
from caffe_fcn.scoring import IGNORE, Confusion, read_labels
from caffe_fcn.segment import SUFFIXES, Labels, images_in

SETS = {
    "voc": labels.VOC,
    "context": labels.CONTEXT,
    "nyud": labels.NYUD,
    "siftflow": labels.SIFTFLOW,
    "geometric": labels.GEOMETRIC,
    "shapes": labels.SHAPES,
}
UNKNOWN = 255  # classes, where nobody says how many: all that fit beside the label to ignore
ENDING = re.compile(r"[._-]label$")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("labels", metavar="LABELS", help="a folder of label images, or one")
    parser.add_argument("predictions", nargs="?", metavar="PREDICTIONS", help="a folder of them, or one")
    parser.add_argument("--model", metavar="MODEL.onnx", help="predict with this model instead")
    parser.add_argument("--images", metavar="DIR", help="what the model is given")
    parser.add_argument("--output", metavar="NAME", help="which output, if the model has several")
    parser.add_argument("--classes", metavar="N|SET",
                        help=f"how many, or a label set: {', '.join(SETS)} (default: the model's, "
                             "else as many as occur)")  # fmt: skip
    parser.add_argument("--ignore", type=int, default=IGNORE, metavar="LABEL",
                        help="label of pixels that do not count (default: %(default)s)")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print as JSON, with the confusion matrix")
    run_arguments(parser)


def run(args: argparse.Namespace) -> int:
    if bool(args.predictions) == bool(args.model) or bool(args.model) != bool(args.images):
        raise CaffeError("give LABELS and PREDICTIONS, or LABELS --model MODEL.onnx --images DIR")
    true = _files(args.labels)
    classes = _classes(args.classes)
    confusion, failed = (_of_model if args.model else _of_files)(args, true, classes)
    if not confusion.pairs:
        report(failed, len(true), "caffe-fcn score")
        raise CaffeError(f"{args.labels}: nothing to compare")
    if len(confusion.names) == UNKNOWN:
        confusion = confusion.occurring()
    if args.json:
        print(json.dumps({**confusion.to_dict(), "failed": failed}, indent=2))
    else:
        print(confusion)
        print(f"{confusion.pairs} images, {confusion.ignored:,} pixels labelled {args.ignore} left out")
        if confusion.strange:
            print(f"{confusion.strange:,} pixels left out whose label is no class: are there more classes?")
    return report(failed, len(true), "caffe-fcn score")


def _of_files(
    args: argparse.Namespace, true: dict[str, Path], classes: list[str] | int | None
) -> tuple[Confusion, list[str]]:
    confusion = Confusion(classes or UNKNOWN, args.ignore)
    said = _files(args.predictions, args.output)
    if len(true) == len(said) == 1 and Path(args.labels).is_file():
        said = dict(zip(true, said.values(), strict=True))
    pairs = [(path, said[name]) for name, path in true.items() if name in said]
    failed = [
        f"{path}: {args.predictions} holds no prediction for it"
        for name, path in true.items()
        if name not in said
    ]

    def read(pair: tuple[Path, Path]) -> tuple[np.ndarray, np.ndarray]:
        return read_labels(pair[0]), read_labels(pair[1])

    with Pool(4) as pool, Progress("scoring", len(pairs), "images", quiet=args.quiet) as step:
        for (_, path), both in zip(pairs, ahead(pool, read, pairs, 16), strict=True):
            failed += _try(path, lambda both=both: confusion.add(*both.result()))  # type: ignore[misc]
            step()
    return confusion, failed


def _of_model(
    args: argparse.Namespace, true: dict[str, Path], classes: list[str] | int | None
) -> tuple[Confusion, list[str]]:
    segmenter = segmenter_of(args)
    output = args.output or next(iter(segmenter.maps))
    if output not in segmenter.maps or (len(segmenter.maps) > 1 and not args.output):
        raise CaffeError(
            f"{args.model}: which output is to be compared? --output {' or '.join(segmenter.maps)}",
            nearest(output, segmenter.maps),
        )
    shape = segmenter.maps[output]
    known = shape[1] if len(shape) == 4 and isinstance(shape[1], int) else UNKNOWN
    confusion, lock = (
        Confusion(classes or segmenter.classes.get(output) or known, args.ignore),
        threading.Lock(),
    )
    images = {path.stem: path for path in images_in([args.images]) if not ENDING.search(path.stem)}
    failed = [
        f"{path}: {args.images} holds no image for it" for name, path in true.items() if name not in images
    ]

    def finish(path: Path, _: np.ndarray, found: list[Labels]) -> None:
        (prediction,) = (each.labels for each in found if each.output == output)
        label = read_labels(true[path.stem])
        with lock:
            confusion.add(label, prediction)

    chosen = [images[name] for name in true if name in images]
    with Progress("scoring", len(chosen), "images", quiet=args.quiet) as step:
        for path, outcome in stream(chosen, work(segmenter, args, finish)):
            if isinstance(outcome, CaffeError):
                failed.append(_named(path, outcome))
            step()
    return confusion, failed


def _try(path: Path, action: Callable[[], None]) -> Iterable[str]:
    """What went wrong, if anything."""
    try:
        action()
    except CaffeError as error:
        return [_named(path, error)]
    return []


def _named(path: Path, error: CaffeError) -> str:
    return str(error) if str(path) in str(error) else f"{path}: {error}"


def _files(text: str, output: str | None = None) -> dict[str, Path]:
    """The label images at a path by their names, in order."""
    path = Path(text)
    if path.is_file():
        return {_key(path): path}
    if not path.is_dir():
        raise CaffeError(f"{text}: no such file or folder")
    found = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES)
    found = [p for p in found if ENDING.search(p.stem)] or found
    if output:
        tail = f".{file_name(output)}"
        keys = {_key(p).removesuffix(tail): p for p in found if _key(p).endswith(tail)} or {
            _key(p): p for p in found
        }
    else:
        keys = {_key(p): p for p in found}
    if not keys:
        raise CaffeError(f"{text}: no label images in this folder")
    return keys


def _key(path: Path) -> str:
    return ENDING.sub("", path.stem)


def _classes(text: str | None) -> Any:
    """Names, a number, or None where nobody said."""
    if text is None:
        return None
    if text.isdecimal() and int(text) > 0:
        return int(text)
    if text not in SETS:
        raise CaffeError(f"--classes {text}: a number, or one of {', '.join(SETS)}", nearest(text, SETS))
    return list(SETS[text].classes)
