"""Show what a net computes of an image: mosaics of blobs, heatmaps of classes, the first filters.

    caffe-fcn features deploy.prototxt fcn8s.caffemodel photo.jpg -o out
    caffe-fcn features deploy.prototxt fcn8s.caffemodel photo.jpg --blob conv1_1 pool5 --heatmap cat person

PNG files, and index.html, which shows them. Each channel of a mosaic is stretched from its least to its most.
The image has its own size, unless the net takes one size only.
"""

from __future__ import annotations

import argparse
import json

from caffe_fcn.cli.convert import mean_of
from caffe_fcn.terminal import printable


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("prototxt", metavar="PROTOTXT")
    parser.add_argument("caffemodel", metavar="CAFFEMODEL", help=".caffemodel or .caffemodel.h5")
    parser.add_argument("image", metavar="IMAGE")
    parser.add_argument("--blob", nargs="+", action="extend", default=[], metavar="NAME",
                        help="default: the first convolution, every pooling, the outputs")  # fmt: skip
    parser.add_argument("--heatmap", nargs="+", action="extend", default=[], metavar="CLASS",
                        help="the score of a class over the image, by its name or number")  # fmt: skip
    parser.add_argument("--whole", action="store_true", help="also what lies in the net's padding")
    parser.add_argument("-o", "--out", default="features", metavar="DIR", help="default: %(default)s")
    parser.add_argument("--mean", metavar="B,G,R|FILE", help="what is subtracted from pixels (default: the "
                        "data layer's, else ImageNet's)")  # fmt: skip
    parser.add_argument("--scale", type=float, help="what (pixel - mean) is multiplied by")
    parser.add_argument("--json", action="store_true", help="print the files as JSON")


def run(args: argparse.Namespace) -> None:
    from caffe_fcn.features import features, write

    found = features(
        args.prototxt, args.caffemodel, args.image,
        blobs=args.blob, heatmaps=args.heatmap, mean=mean_of(args.mean), scale=args.scale, whole=args.whole,
    )  # fmt: skip
    paths = write(found, args.out)
    if args.json:
        print(
            json.dumps(
                {"image": found.path, "notes": found.notes, "files": [str(p) for p in paths]}, indent=2
            )
        )
    elif not args.quiet:
        for note in found.notes:
            print(printable(note))
        print(f"{paths[-1]}: {len(found.pictures)} pictures")
