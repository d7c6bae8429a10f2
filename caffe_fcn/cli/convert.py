"""Write an ONNX model from a prototxt and its weights, and check it against the reference forward pass.

    convert-fcn deploy.prototxt fcn8s.caffemodel fcn8s.onnx
    convert-fcn deploy.prototxt fcn8s.caffemodel bytes.onnx --preprocess --argmax
    convert-fcn deploy.prototxt fcn8s.caffemodel fixed.onnx --input-shape data:1,3,500,500
    convert-fcn train_val.prototxt net.caffemodel net.onnx --input-shape data:1,3,32,32

The file takes any batch size, height and width that the net takes, unless --input-shape fixes them.
`-` in place of the caffemodel means a net without weights.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from caffe_fcn.cli import input_shapes
from caffe_fcn.conversion import Options, Result, convert
from caffe_fcn.formats.binaryproto import read_blob
from caffe_fcn.progress import Progress
from caffe_fcn.terminal import printable
from caffe_fcn.units import bytes_text


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("prototxt", metavar="PROTOTXT")
    parser.add_argument("caffemodel", metavar="CAFFEMODEL", help=".caffemodel or .caffemodel.h5; - for none")
    parser.add_argument("out", metavar="OUT.onnx")
    what = parser.add_argument_group("what is exported")
    what.add_argument("--input-shape", action="append", metavar="BLOB:N,C,H,W", help="fix an input's shape")
    what.add_argument(
        "--output", action="append", default=[], metavar="BLOB", help="stop at this blob (repeatable)"
    )
    what.add_argument("--softmax", action="store_true", help="class probabilities in place of scores")
    what.add_argument("--argmax", action="store_true", help="a uint8 label map in place of scores")
    what.add_argument("--preprocess", action="store_true",
                      help="take uint8 RGB pixels (N,H,W,3); the graph does BGR, mean, layout")  # fmt: skip
    what.add_argument("--fp16", action="store_true", help="half-precision weights and arithmetic")
    what.add_argument("--keep-fp32", action="append", default=[], metavar="LAYER",
                      help="with --fp16: a layer that stays float32 (repeatable)")  # fmt: skip
    how = parser.add_argument_group("how")
    how.add_argument(
        "--init-missing", action="store_true", help="fill layers that the weights lack by their fillers"
    )
    how.add_argument("--opset", type=int, default=Options.opset, help="17 to 20 (default %(default)s)")
    how.add_argument("--ir-version", type=int, default=Options.ir_version, help="default %(default)s")
    how.add_argument("--external-data", action="store_true", help="tensors into OUT.onnx.data, as above 2 GB")
    how.add_argument("--no-pass", action="append", default=[], metavar="NAME",
                     help="leave out a rewrite (repeatable; `all`: the plain graph)")  # fmt: skip
    how.add_argument("--list-passes", action=_ListPasses, nargs=0, help="list the rewrites, and stop")
    how.add_argument("--mean", metavar="B,G,R|FILE", help="what --preprocess subtracts (default: the data "
                     "layer's, else ImageNet's); a mean.binaryproto is averaged per channel")  # fmt: skip
    how.add_argument("--scale", type=float, help="what --preprocess multiplies (pixel - mean) by")
    how.add_argument("--verify", action=argparse.BooleanOptionalAction, default=True,
                     help="compare with the reference forward pass, blob by blob")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    parser.add_argument("--verbose", action="store_true", help="name the layers that were left out")


class _ListPasses(argparse.Action):
    """--list-passes: the names, and the first line of each module."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from caffe_fcn.export.passes import PASSES

        for each in PASSES:
            print(f"{each.NAME:24} {(each.__doc__ or '').splitlines()[0]}")
        parser.exit()


def mean_of(text: str | None) -> list[float] | None:
    """`104,117,123`, or the mean of a file per channel."""
    if text is None:
        return None
    try:
        return [float(value) for value in text.split(",")]
    except ValueError:
        blob = read_blob(text)
        return [float(channel.mean()) for channel in blob.reshape(blob.shape[-3:])]


def run(args: argparse.Namespace) -> None:
    options = Options(
        outputs=args.output, input_shapes=input_shapes(args.input_shape), softmax=args.softmax,
        argmax=args.argmax, preprocess=args.preprocess, fp16=args.fp16, keep_fp32=args.keep_fp32,
        init_missing=args.init_missing, opset=args.opset, ir_version=args.ir_version,
        external_data=args.external_data, verify=args.verify, skip_passes=args.no_pass,
        mean=mean_of(args.mean), scale=args.scale,
    )  # fmt: skip

    def progress(what: str, total: int) -> Any:
        return Progress(what, total, quiet=args.quiet)

    caffemodel = None if args.caffemodel == "-" else args.caffemodel
    result = convert(args.prototxt, caffemodel, args.out, options, progress)
    if args.json:
        print(json.dumps(result.to_dict(), indent=2))
    elif not args.quiet:
        _summary(result, args.verbose)


def _summary(result: Result, verbose: bool) -> None:
    def say(line: str) -> None:
        print(printable(line))

    say(f"{result.path}: {bytes_text(result.bytes)}")
    for kind, values in (("input", result.inputs), ("output", result.outputs)):
        for name, shape in values.items():
            say(f"  {kind:7} {name}: {' x '.join(map(str, shape))}")
    for note in result.filled:
        say(f"  filled  {note}")
    for symbol, layer in result.fixed.items():
        say(f"  fixed   {symbol}, because of layer '{layer}'")
    for variant, count in result.variants.items():
        say(f"  taken   {count} layer{'s' * (count > 1)} for {variant}")
    for what, names in (("of the net that no output depends on", result.dropped),
                        ("of the weights file that the net lacks", result.ignored)):  # fmt: skip
        if names:
            say(f"  left out {len(names)} layers {what}{': ' + ', '.join(names) if verbose else ''}")
    say(f"  verified {result.verified}" if result.verified else "  not verified")
