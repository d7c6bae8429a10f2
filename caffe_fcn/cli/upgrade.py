"""Write an old net in today's form: V0 and V1 layers, `input:` fields, renamed params.

    caffe-fcn upgrade old.prototxt new.prototxt
    caffe-fcn upgrade old.caffemodel new.caffemodel

Text in, text out; a binary file stays binary. Equal as messages to what Caffe's own upgrade tools write.
"""

from __future__ import annotations

import argparse

from caffe_fcn.formats.binary_net import read_upgraded
from caffe_fcn.formats.files import atomic_write, file_size
from caffe_fcn.formats.prototxt import format as format_
from caffe_fcn.formats.prototxt import read_net


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="IN")
    parser.add_argument("out", metavar="OUT")


def run(args: argparse.Namespace) -> None:
    file_size(args.source, "a net")
    with open(args.source, "rb") as file:
        text = _is_text(file.read(4096))
    data = (
        format_(read_net(args.source).net).encode()
        if text
        else read_upgraded(args.source).SerializeToString()
    )
    with atomic_write(args.out) as out:
        out.write(data)
    if not args.quiet:
        print(f"{args.out}: {'text' if text else 'binary'}, {len(data)} bytes")


def _is_text(head: bytes) -> bool:
    """Whether a file starts as text does: no control characters but white space."""
    return not any(byte < 9 or 13 < byte < 32 for byte in head)
