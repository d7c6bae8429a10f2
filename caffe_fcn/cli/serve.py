"""Serve a page on which one drops an image and sees its labels; of other models classes or pictures.

    caffe-fcn serve fcn8s.onnx
    caffe-fcn serve fcn8s.onnx --port 8080 --device cuda
    caffe-fcn serve caffenet.onnx --names synset_words.txt

Only this machine can ask, unless --host says otherwise: there is no login.
It needs two packages more: pip install 'caffe-fcn[serve]'
"""

from __future__ import annotations

import argparse
import math
import socket
import sys
from pathlib import Path

from caffe_fcn.errors import CaffeError
from caffe_fcn.runtime import DEVICES


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL.onnx")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: %(default)s, this machine)"
    )
    parser.add_argument("--port", type=int, default=8000, help="0: any free one (default: %(default)s)")
    parser.add_argument("--device", choices=DEVICES, default="auto",
                        help="auto takes CUDA where it starts; others fail where they do not")  # fmt: skip
    parser.add_argument("--names", metavar="FILE", help="a line a class, for models that classify images")
    parser.add_argument("--max-upload", type=float, default=32, metavar="MIB",
                        help="larger files are refused (default: %(default)s)")  # fmt: skip
    parser.add_argument("--max-pixels", type=float, default=16, metavar="MILLIONS",
                        help="larger images are refused (default: %(default)s)")  # fmt: skip
    parser.add_argument("--allow-host", action="append", default=[], metavar="NAME",
                        help="a name under which others reach it (repeatable; with --host)")  # fmt: skip


def run(args: argparse.Namespace) -> None:
    from caffe_fcn.serve import MIB, Limits, application, is_loopback, starlette
    from caffe_fcn.serve_model import model_of

    starlette()
    import uvicorn

    if not all(0 < limit < math.inf for limit in (args.max_upload, args.max_pixels)):
        raise CaffeError("--max-upload and --max-pixels have to be more than 0")
    if args.port not in range(1 << 16):  # getaddrinfo takes the last 16 bits of a larger one
        raise CaffeError(f"--port {args.port} is not one of 0 to 65535")
    limits = Limits(upload=int(args.max_upload * MIB), pixels=int(args.max_pixels * 1e6))
    local = is_loopback(args.host)
    hosts = None if local else (args.allow_host or ["*"])
    app = application(model_of(args.model, args.device, _names(args.names)), limits, hosts)
    listening = _listen(args.host, args.port)
    host, port = listening.getsockname()[:2]
    if not args.quiet:
        shown = f"[{host}]" if ":" in host else host
        print(f"http://{shown}:{port}/ (Ctrl-C stops it)", flush=True)
        if not local:
            print("warning: other machines can reach this address, and there is no login", file=sys.stderr)
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, timeout_keep_alive=5,
        limit_concurrency=64, h11_max_incomplete_event_size=1 << 14,
    )  # fmt: skip
    uvicorn.Server(config).run(sockets=[listening])


def _names(path: str | None) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines() if path else []
    except (OSError, UnicodeDecodeError) as error:
        raise CaffeError(f"{path}: cannot be read as names of classes: {error}") from error


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens, so that what is wrong with the address is said before the page is announced."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen()
    except (OSError, OverflowError) as error:
        raise CaffeError(
            f"cannot listen on {host} port {port}: {error}", "--port 0 takes any that is free"
        ) from error
    return listening
