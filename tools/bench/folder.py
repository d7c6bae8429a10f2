"""What a folder of images costs beyond its passes: `caffe-fcn segment DIR` beside the bare session.

    python tools/bench/folder.py [MODEL.onnx] [--images 40] [--size 300x400] [--batch 1] [--device cpu]

Both see the same images and take turns; medians are printed, and the processor's time for an image, which
other jobs on the machine hardly change. The bare session gets its inputs ready-made, one after the other, and
its outputs are dropped; the folder's files are read and decoded, and labels and overlays are written.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
NET = ROOT / "prototxts" / "shapes-fcn8s"
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

from draw_shapes import draw  # noqa: E402

from caffe_fcn.cli import segment  # noqa: E402
from caffe_fcn.conversion import convert  # noqa: E402
from caffe_fcn.folder import stream  # noqa: E402
from caffe_fcn.segment import Segmenter, images_in, read_image  # noqa: E402


def timed(job: Callable[[], None], images: int) -> tuple[float, float]:
    """Images a second of a job, and milliseconds of the processor for each."""
    start, processor = time.perf_counter(), time.process_time()
    job()
    return images / (time.perf_counter() - start), 1e3 * (time.process_time() - processor) / images


def bare(segmenter: Segmenter, inputs: list[np.ndarray]) -> None:
    """Nothing but passes."""
    for data in inputs:
        segmenter.session.session.run(None, {segmenter.input: data})


def folder(segmenter: Segmenter, images: list[Path], args: argparse.Namespace) -> None:
    """From file to file."""
    done = [row for _, row in stream(images, segment.work(segmenter, args, segment.finisher(images, args)))]
    if any(isinstance(row, Exception) for row in done):
        sys.exit(str(done))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?", help="the shapes net by default")
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--size", default="300x400")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-overlay", action="store_true")
    segment.run_arguments(parser)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="caffe-fcn-bench.") as name:
        home = Path(name)
        args.out = str(home)
        if args.model is None:
            args.model = str(home / "shapes.onnx")
            convert(NET / "deploy.prototxt", NET / "shapes-fcn8s.caffemodel", args.model, verify=False)
        height, width = map(int, args.size.split("x"))
        (home / "images").mkdir()
        for i in range(args.images):
            picture, _ = draw(np.random.default_rng(i), height, width)
            Image.fromarray(picture).save(home / "images" / f"{i:04}.jpg", quality=92)
        images = images_in([str(home / "images")])
        segmenter = segment.segmenter_of(args)
        step = segmenter.count or args.batch
        prepared = [segmenter.prepare(read_image(path)) for path in images]
        inputs = [np.concatenate(prepared[i : i + step]) for i in range(0, len(prepared), step)]
        jobs = (lambda: bare(segmenter, inputs), lambda: folder(segmenter, images, args))
        rows = [[x for job in jobs for x in timed(job, len(images))] for _ in range(args.rounds + 1)][1:]
        session, bare_ms, whole, whole_ms = (statistics.median(column) for column in zip(*rows, strict=True))
        share = statistics.median(row[2] / row[0] for row in rows)
        print(
            f"{Path(args.model).name} at {args.size}, batch {step}, on {segmenter.session.device}: "
            f"bare session {session:.2f} images/s, folder {whole:.2f} images/s: {share:.1%}; "
            f"processor {bare_ms:.1f} ms an image, folder {whole_ms:.1f} ms"
        )


if __name__ == "__main__":
    main()
