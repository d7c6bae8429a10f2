"""Cut a train/val prototxt down to its deploy net: data layers become Inputs, labels and losses go."""

from __future__ import annotations

import argparse

from caffe_fcn.cli import input_shapes
from caffe_fcn.deploy import to_deploy
from caffe_fcn.formats.files import atomic_write
from caffe_fcn.formats.prototxt import format as format_
from caffe_fcn.formats.prototxt import read_net
from caffe_fcn.terminal import printable


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="IN.prototxt")
    parser.add_argument("out", metavar="OUT.prototxt")
    parser.add_argument(
        "--input-shape", action="append", metavar="BLOB:N,C,H,W", help="where the file does not tell"
    )


def run(args: argparse.Namespace) -> None:
    cut = to_deploy(read_net(args.source), input_shapes(args.input_shape))
    with atomic_write(args.out) as file:
        file.write(format_(cut.text.net).encode())
    if not args.quiet:
        outputs = f", outputs {', '.join(cut.outputs)}" if cut.outputs else ", which is a deploy net already"
        print(printable(f"{args.out}: {len(cut.text.net.layer)} layers{outputs}"))
