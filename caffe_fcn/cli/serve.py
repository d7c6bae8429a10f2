"""Serve a page on which one drops an image and sees its labels.

    caffe-fcn serve fcn8s.onnx
    caffe-fcn serve fcn8s.onnx --port 8080 --device cuda

Only this machine can ask, unless --host says otherwise: there is no login.
It needs two packages more: pip install 'caffe-fcn[serve]'
"""

from __future__ import annotations

import argparse
import socket
import sys

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
    parser.add_argument("--max-upload", type=float, default=32, metavar="MIB",
                        help="larger files are refused (default: %(default)s)")  # fmt: skip
    parser.add_argument("--max-pixels", type=float, default=16, metavar="MILLIONS",
                        help="larger images are refused (default: %(default)s)")  # fmt: skip
    parser.add_argument("--allow-host", action="append", default=[], metavar="NAME",
                        help="a name under which others reach it (repeatable; with --host)")  # fmt: skip


def run(args: argparse.Namespace) -> None:
    from caffe_fcn.segment import Segmenter
    from caffe_fcn.serve import MIB, Limits, application, is_loopback, starlette

    starlette()
    import uvicorn

    if args.max_upload <= 0 or args.max_pixels <= 0:
        raise CaffeError("--max-upload and --max-pixels have to be more than 0")
    limits = Limits(upload=int(args.max_upload * MIB), pixels=int(args.max_pixels * 1e6))
    local = is_loopback(args.host)
    hosts = None if local else (args.allow_host or ["*"])
    app = application(Segmenter(args.model, args.device), limits, hosts)
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
