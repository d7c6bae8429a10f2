"""Carry weights over into a net whose layers have other shapes, as VGG-16's fully connected ones into an FCN.

    caffe-fcn transplant vgg16/deploy.prototxt vgg16.caffemodel voc-fcn32s/deploy.prototxt fcn.caffemodel

Layers are matched by name. A parameter of another shape but as many values is copied as it lies in memory:
25088x4096 becomes 4096x512x7x7. Deconvolutions that get nothing are filled with the bilinear kernel; other
layers that get nothing are left out of the file, to be learned.
"""

from __future__ import annotations

import argparse
import sys

from caffe_fcn import surgery
from caffe_fcn.cli import input_shapes
from caffe_fcn.deploy import to_deploy
from caffe_fcn.errors import CaffeError
from caffe_fcn.formats import caffemodel, hdf5
from caffe_fcn.formats.prototxt import read_net
from caffe_fcn.net import TEST, Net


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SOURCE.prototxt")
    parser.add_argument("weights", metavar="SOURCE.caffemodel", help=".caffemodel or .caffemodel.h5")
    parser.add_argument("target", metavar="TARGET.prototxt")
    parser.add_argument("out", metavar="OUT.caffemodel", help="with the ending .h5 it is written as HDF5")
    parser.add_argument(
        "--suffix", default="", help="what the target has behind the names of the source's layers"
    )
    parser.add_argument(
        "--onto", metavar="WEIGHTS", help="the target's weights to start from, from a first transplant"
    )
    parser.add_argument(
        "--input-shape", action="append", metavar="BLOB:N,C,H,W", help="where a train net does not tell"
    )
    parser.add_argument(
        "--verbose", action="store_true", help="name also the parameters that were copied as they are"
    )


def run(args: argparse.Namespace) -> None:
    shapes = input_shapes(args.input_shape)
    source, target = (
        Net(to_deploy(read_net(path), shapes).text, TEST) for path in (args.source, args.target)
    )
    source.copy_from(args.weights)
    if args.onto:
        target.copy_from(args.onto)
    moves = surgery.transplant(target, source, args.suffix)
    if all(move.action == "dropped" for move in moves):
        names = ", ".join(list(target.params)[:3])
        raise CaffeError(
            f"{args.source}: no layer with parameters has a name of {args.target}'s ({names} ...)",
            "--suffix TEXT puts a text behind the source's names",
        )
    filled = surgery.interp_missing(target)
    left = surgery.unfilled(target)
    kept = (
        (layer.name, layer.param.type, layer.weights)
        for layer in target.layers
        if layer.blobs and layer.name not in left
    )
    if args.out.endswith(".h5"):
        hdf5.write(args.out, kept)
    else:
        caffemodel.write(args.out, target.name, kept)
    if not args.quiet:
        _summary(args, moves, filled, left)


def _summary(
    args: argparse.Namespace, moves: list[surgery.Moved], filled: list[str], left: list[str]
) -> None:
    say = sys.stdout.write
    copied = sum(move.action == "copied" for move in moves)
    say(f"{args.out}: {copied} parameters copied as they are\n")
    for move in moves:
        if args.verbose or move.action != "copied":
            say(f"  {move}\n")
    for line in filled:
        say(f"  filled {line}\n")
    if left:
        say(f"  left out, to be learned: {', '.join(left)}\n")
