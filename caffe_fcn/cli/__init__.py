"""Commands. Each is a module here with `arguments(parser)` and `run(args) -> int | None`."""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys
import warnings

from caffe_fcn.errors import CaffeError
from caffe_fcn.terminal import printable

COMMANDS = {  # in the order of --help; a module is imported only when its command runs
    "convert": "write an ONNX model from a prototxt and its weights (also `convert-fcn`)",
    "trace": "show every layer: shapes and their formulas, offsets, parameters, cost",
    "segment": "label the pixels of images with a converted model",
    "features": "show blobs as pictures: mosaics, heatmaps of a class, filters",
    "serve": "a local page on which one drops an image and sees what a model makes of it",
    "score": "compare label images with what was predicted: accuracies and IU",
    "bench": "time converted models beside what the device could do at most",
    "verify": "compare a converted model with the reference forward pass, blob by blob",
    "deploy": "cut a train/val prototxt down to its deploy net",
    "upgrade": "write an old prototxt or caffemodel in today's form",
    "transplant": "carry weights over into a net of other layer shapes",
    "weights": "list what a weights file holds",
    "doctor": "say what is installed, and which devices really start",
}


def main(argv: list[str] | None = None) -> int:
    """Run `caffe-fcn COMMAND ...`; returns the exit code."""
    import caffe_fcn

    top = argparse.ArgumentParser(
        "caffe-fcn",
        description="Read, check and convert Caffe nets.",
        epilog="commands:\n"
        + "\n".join(f"  {n:12}{h}" for n, h in COMMANDS.items())
        + "\n\n`caffe-fcn COMMAND --help` tells more of each.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"caffe-fcn {caffe_fcn.__version__}")
    top.add_argument("command", choices=COMMANDS, metavar="COMMAND")
    top.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...")
    chosen = top.parse_args(argv)
    return call(chosen.command, chosen.arguments, prog=f"caffe-fcn {chosen.command}")


def convert_main() -> int:
    """`convert-fcn deploy.prototxt model.caffemodel out.onnx`: the name of `caffe-fcn convert` on its own."""
    return call("convert", sys.argv[1:], prog="convert-fcn")


def call(command: str, argv: list[str], prog: str) -> int:
    """Run one command. 0: done; 1: the input is wrong or a check failed; 2: wrong usage."""
    module = importlib.import_module(f"caffe_fcn.cli.{command}")
    parser = argparse.ArgumentParser(
        prog, description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    module.arguments(parser)
    parser.add_argument("--layers", action="append", default=[], metavar="FILE.py",
                        help="layer types of your own (repeatable; docs/adding-a-layer.md)")  # fmt: skip
    parser.add_argument("--quiet", action="store_true", help="say nothing but errors")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    args = parser.parse_args(argv)
    for stream in (sys.stdout, sys.stderr):  # a console's encoding may lack what a name or a formula holds
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore" if args.quiet else "always")
            warnings.showwarning = _show
            _load(args.layers)
            code = module.run(args) or 0
            sys.stdout.flush()
            return code
    except BrokenPipeError:  # who read our output has gone; what is left in the buffer goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (CaffeError, OSError) as error:
        if args.debug:
            raise
        print(f"{prog}: error: {printable(str(error), keep=chr(10))}", file=sys.stderr)
        return 1
    except MemoryError:
        if args.debug:
            raise
        print(f"{prog}: error: there is not enough memory", file=sys.stderr)
        return 1
    except Exception as error:
        if args.debug:
            raise
        told = f"{type(error).__name__}: {error}".splitlines()[0]
        print(f"{prog}: internal error: {printable(told)}", file=sys.stderr)
        print("  please report it, with what --debug shows", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{prog}: stopped", file=sys.stderr)
        return 130


def _load(files: list[str]) -> None:
    if files:  # the layers take a while to import, and some commands do without
        from caffe_fcn.layers.custom import load_layers

        for file in files:
            load_layers(file)


def _show(message: Warning | str, *_: object, **__: object) -> None:
    print(f"warning: {printable(str(message), keep=chr(10))}", file=sys.stderr)


def input_shapes(texts: list[str] | None) -> dict[str, tuple[int, ...]]:
    """`--input-shape data:1,3,500,500` (any number of them) as {blob: shape}. Raises CaffeError."""
    shapes: dict[str, tuple[int, ...]] = {}
    for text in texts or []:
        name, _, dims = text.rpartition(":")
        try:
            shape = tuple(int(n) for n in dims.replace("x", ",").split(","))
        except ValueError:
            shape = ()
        if not name or not shape or min(shape) < 1:
            raise CaffeError(f"--input-shape {text}: expected BLOB:N,C,H,W, for example data:1,3,500,500")
        shapes[name] = shape
    return shapes
