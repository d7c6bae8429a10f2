"""Show what a net is, layer by layer: shapes and their formulas, weights, cost, place in the image, Crops.

    caffe-fcn trace deploy.prototxt
    caffe-fcn trace deploy.prototxt --input-shape data:1,3,334,500 --weights fcn8s.caffemodel
    caffe-fcn trace val.prototxt --deploy --input-shape data:1,3,500,500 --format markdown
    caffe-fcn trace deploy.prototxt --weights fcn8s.caffemodel --format html -o report.html

Sizes only: no weights are needed, and nothing is run. The HTML page needs no network: the graph, the facts of
every layer, and a box for H and W that all shapes follow; with weights also what their numbers look like.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from typing import Any

from caffe_fcn.cli import input_shapes
from caffe_fcn.errors import CaffeWarning, LayerError


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("prototxt", metavar="PROTOTXT")
    parser.add_argument(
        "--input-shape", action="append", metavar="BLOB:N,C,H,W", help="trace at this size (repeatable)"
    )
    parser.add_argument("--weights", metavar="FILE", help=".caffemodel or .caffemodel.h5: say what it fills")
    forms = ("text", "markdown", "csv", "json", "html")
    parser.add_argument("--format", choices=forms, default="text", help="default text")
    parser.add_argument("-o", "--out", metavar="FILE", help="write there, not to the terminal")
    parser.add_argument(
        "--json", action="store_const", const="json", dest="format", help="the same as --format json"
    )
    parser.add_argument("--phase", choices=("train", "test"), default="test", help="default %(default)s")
    parser.add_argument(
        "--deploy", action="store_true", help="trace what is left of a train/val net to deploy"
    )
    parser.add_argument("--splits", action="store_true", help="show the Splits that Caffe puts in")


def run(args: argparse.Namespace) -> None:
    from caffe_fcn.deploy import to_deploy
    from caffe_fcn.formats.files import atomic_write
    from caffe_fcn.formats.prototxt import read_net
    from caffe_fcn.net import TEST, TRAIN, Net
    from caffe_fcn.report import render
    from caffe_fcn.tracing import trace

    shapes = input_shapes(args.input_shape)
    text = read_net(args.prototxt)
    read = {
        top for layer in text.net.layer if not layer.bottom for top in layer.top if _reads(layer, layer.type)
    }
    if args.deploy or read.intersection(shapes):
        text = to_deploy(text, shapes).text
    phase = TRAIN if args.phase == "train" else TEST
    try:
        net = Net(text, phase)
    except LayerError as error:
        if not any(_reads(layer, error.type) for layer in text.net.layer if layer.name == error.layer):
            raise
        net = Net(to_deploy(text, shapes).text, phase)
        problem = str(error).splitlines()[0]
        warnings.warn(f"{problem}; traced as --deploy does", CaffeWarning, stacklevel=2)
    found = trace(net, shapes, weights=args.weights, splits=args.splits)
    shown = render(found, args.format, net)
    if args.out is None:
        sys.stdout.write(shown)
        return
    with atomic_write(args.out) as file:
        file.write(shown.encode())


def _reads(layer: Any, kind: str) -> bool:
    """Whether a layer of this type takes its data from files, or is an Input whose shape is left to tell."""
    from caffe_fcn.layers import LAYERS, Layer

    return LAYERS.get(kind, Layer).role == "data" or (kind == "Input" and not layer.input_param.shape)
