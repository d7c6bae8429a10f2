"""Compare a converted model with the reference forward pass, or with stored blobs, blob by blob.

    caffe-fcn verify deploy.prototxt fcn8s.caffemodel fcn8s.onnx
    caffe-fcn verify deploy.prototxt fcn8s.caffemodel fcn8s.onnx --input-shape data:1,3,334,500
    caffe-fcn verify deploy.prototxt fcn8s.caffemodel fcn8s.onnx --blobs caffe_blobs.npz

A file of blobs (.npz or .h5) holds arrays by blob name; those of inputs are fed, all others compared.
Names may carry the prefixes in: and out:.
"""

from __future__ import annotations

import argparse
import json

from caffe_fcn import surgery
from caffe_fcn.cli import input_shapes
from caffe_fcn.conversion import load
from caffe_fcn.deploy import to_deploy
from caffe_fcn.formats.arrays import read_arrays
from caffe_fcn.formats.prototxt import read_net
from caffe_fcn.terminal import printable
from caffe_fcn.verification import TOLERANCE, verify


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("prototxt", metavar="PROTOTXT")
    parser.add_argument("caffemodel", metavar="CAFFEMODEL", help="- for none")
    parser.add_argument("model", metavar="MODEL.onnx")
    parser.add_argument("--input-shape", action="append", metavar="BLOB:N,C,H,W")
    parser.add_argument("--blobs", metavar="FILE", help=".npz or .h5 to compare with instead")
    parser.add_argument("--device", choices=("auto", "cuda", "cpu"), default="cpu")
    parser.add_argument("--tolerance", type=float, default=TOLERANCE, help="default %(default)s")
    parser.add_argument("--json", action="store_true", help="print every blob's difference as JSON")
    parser.add_argument("--verbose", action="store_true", help="list every blob's difference")


def run(args: argparse.Namespace) -> None:
    shapes = input_shapes(args.input_shape)
    net = load(
        to_deploy(read_net(args.prototxt), shapes),
        None if args.caffemodel == "-" else args.caffemodel,
        shapes,
    )
    if args.caffemodel != "-":
        surgery.fill_missing(net)
    values = expected = None
    if args.blobs:
        stored = read_arrays(args.blobs)
        values = {n: stored[n] for n in net.inputs if n in stored} or None
        expected = {n: a for n, a in stored.items() if n not in net.inputs}
    report = verify(net, args.model, shapes=shapes, values=values, expected=expected,
                    device=args.device, tolerance=args.tolerance)  # fmt: skip
    if args.json:
        print(json.dumps(report.to_dict(), indent=2))
    elif not args.quiet:
        if args.verbose:
            for name, value in report.differences.items():
                print(printable(f"{value:8.1e}  {name}"))
        print(printable(str(report)))
