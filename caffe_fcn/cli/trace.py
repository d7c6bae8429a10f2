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

from caffe_fcn.cli import input_shapes


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
    if args.deploy:
        text = to_deploy(text, shapes).text
    net = Net(text, TRAIN if args.phase == "train" else TEST)
    found = trace(net, shapes, weights=args.weights, splits=args.splits)
    shown = render(found, args.format, net)
    if args.out is None:
        sys.stdout.write(shown)
        return
    with atomic_write(args.out) as file:
        file.write(shown.encode())
