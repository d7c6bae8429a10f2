"""A small local page on which one drops an image and sees what a model makes of it: labels, or what
`serve_model` tells of other models. Needs Starlette and uvicorn.

Three addresses: `/` is the page, `/segment` takes the bytes of one image and gives what the page shows of it,
`/health` says that it runs. Nothing else is served, and nothing is written. Requests are answered by a few
threads that share the model; what is over the limits is refused.
"""

from __future__ import annotations

import asyncio
import importlib
import ipaddress
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from html import escape
from io import BytesIO
from typing import Any

import numpy as np

from caffe_fcn.errors import CaffeError
from caffe_fcn.formats.images import DAMAGE, upright
from caffe_fcn.report.page import POLICY, page, template
from caffe_fcn.report.segmentation import entry, label_and_confidence
from caffe_fcn.segment import Segmenter
from caffe_fcn.serve_model import Model
from caffe_fcn.tiles import label_tiled

MIB = 1 << 20
PATIENCE = 8  # times the limit that is read of a file before the connection is closed
#: The page runs its own script, and asks this server only.
SERVED = f"{POLICY}; connect-src 'self'; base-uri 'none'; form-action 'none'"
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@dataclass(frozen=True)
class Limits:
    """What is taken; more is refused."""

    upload: int = 32 * MIB  # bytes of a file
    pixels: int = 16_000_000  # of an image
    seconds: float = 60  # until a file has to be here
    waiting: int = 16  # requests that are read or wait for the model at a time
    passes: int = 2  # that compute at a time; each thread keeps buffers
    whole: int = 1_500_000  # pixels of an image that is labelled in one pass; larger ones in tiles


class Refused(Exception):  # noqa: N818 - an answer
    """A request that gets `status` and `told` as its answer."""

    def __init__(self, status: int, told: str) -> None:
        self.status, self.told = status, told
        super().__init__(told)


def application(
    model: Segmenter | Model, limits: Limits | None = None, hosts: list[str] | None = None
) -> Any:
    """The server as an ASGI application.

    `hosts`: names under which it may be asked for (a page elsewhere cannot pass off its own name for ours);
    None for those of this machine.

    Raises CaffeError if Starlette is not installed.
    """
    starlette()
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.routing import Route

    handlers = _Handlers(model, limits or Limits())
    routes = [
        Route("/", handlers.page),
        Route("/segment", handlers.segment, methods=["POST"]),
        Route("/health", handlers.health),
    ]
    allowed = ["localhost", "127.0.0.1", "[::1]"] if hosts is None else hosts
    return Starlette(routes=routes, middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=allowed)])


class _Handlers:
    def __init__(self, model: Segmenter | Model, limits: Limits) -> None:
        self.model, self.limits = model, limits
        self.name = model.path.replace("\\", "/").rsplit("/", 1)[-1]
        self.busy = 0
        self.threads = ThreadPoolExecutor(limits.passes)
        self.html = _page(self.name, model.session.device, limits)

    async def page(self, _: Any) -> Any:
        from starlette.responses import HTMLResponse

        return HTMLResponse(self.html, headers={**HEADERS, "Content-Security-Policy": SERVED})

    async def health(self, _: Any) -> Any:
        return _json({"status": "ok", "model": self.name, "device": self.model.session.device})

    async def segment(self, request: Any) -> Any:
        if self.busy >= self.limits.waiting:
            return _refusal(503, "too many images at a time; try again", {"Retry-After": "2"})
        self.busy += 1
        try:
            _own(request)
            body = await asyncio.wait_for(self._body(request), self.limits.seconds)
            name = request.query_params.get("name", "image")
            loop = asyncio.get_running_loop()
            return _json(await loop.run_in_executor(self.threads, self._answered, body, name))
        except asyncio.TimeoutError:
            return _refusal(408, f"the file did not arrive within {self.limits.seconds} seconds")
        except Refused as refused:
            return _refusal(refused.status, refused.told)
        finally:
            self.busy -= 1

    async def _body(self, request: Any) -> bytes:
        """The file. One that is too large is read past, or the answer would not be seen; but not for ever."""
        body, got, most = bytearray(), 0, self.limits.upload
        async for piece in request.stream():
            got += len(piece)
            if got <= most:
                body += piece
            elif got > PATIENCE * most:
                break
        if got > most:
            raise Refused(413, f"the file is larger than {most / MIB:g} MiB")
        if not body:
            raise Refused(400, "there is no file in the request")
        return bytes(body)

    def _answered(self, body: bytes, name: str) -> dict[str, Any]:
        image = decode(body, self.limits.pixels)
        try:
            if isinstance(self.model, Segmenter):
                return self._labelled(self.model, image, name[:200])
            return self._told(self.model, image, name[:200])
        except CaffeError as error:
            raise Refused(422, str(error).replace(self.model.path, self.name)) from error

    def _labelled(self, segmenter: Segmenter, image: np.ndarray, name: str) -> dict[str, Any]:
        open_ = not any(isinstance(n, int) for n in segmenter.sides)
        if open_ and image.shape[0] * image.shape[1] > self.limits.whole:
            return {**entry(name, image, label_tiled(segmenter, image)), "tiled": True}
        (labels,) = label_and_confidence(segmenter, [segmenter.prepare(image)])
        if all(each.labels.size == 1 for each in labels):  # a classifier whose size is open
            return self._told(Model(segmenter.session), image, name)
        return entry(name, image, labels)

    def _told(self, model: Model, image: np.ndarray, name: str) -> dict[str, Any]:
        height, width = image.shape[:2]
        if not all(isinstance(n, int) for n in model.sides) and height * width > self.limits.whole:
            raise Refused(
                413, f"the image is {width} x {height}; this model is given {self.limits.whole:,} pixels"
            )
        return {**entry(name, image, []), "answers": model.answers(image)}


def _own(request: Any) -> None:
    """Refuse what another site's page sends: it could not read the answer, but it could keep us busy."""
    origin = request.headers.get("origin")
    if origin is not None and origin.split("://", 1)[-1] != request.headers.get("host"):
        raise Refused(403, f"asked for by another site: {origin}")


def decode(body: bytes, most: int) -> np.ndarray:
    """An image file's bytes as (H, W, 3) uint8 RGB, upright.

    Its size is looked at before its pixels are. Raises Refused: no image, damaged, more than `most` pixels.
    """
    from PIL import Image

    try:
        with Image.open(BytesIO(body), formats=FORMATS) as file:
            if file.width * file.height > most:
                told = f"the image is {file.width} x {file.height}; at most {most:,} pixels are taken"
                raise Refused(413, told)
            return np.array(upright(file))
    except Image.UnidentifiedImageError:
        raise Refused(415, f"this is no image of a kind that is taken ({', '.join(FORMATS)})") from None
    except (*DAMAGE, Image.DecompressionBombError) as error:
        raise Refused(422, f"the image is damaged: {error}") from error


def _json(content: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> Any:
    from starlette.responses import Response

    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    return Response(text, status, {**HEADERS, **(headers or {})}, "application/json")


def _refusal(status: int, told: str, headers: dict[str, str] | None = None) -> Any:
    """An error; what the other side still sends is not read."""
    return _json({"error": told}, status, {"Connection": "close", **(headers or {})})


def _page(name: str, device: str, limits: Limits) -> str:
    parts = {
        "name": escape(name),
        "where": escape(f"running on {device}; nothing leaves this machine, nothing is kept"),
        "bytes": str(limits.upload),
        "size": f"{limits.upload / MIB:g} MiB",
        "most": f"{limits.upload / MIB:g} MiB, {limits.pixels / 1e6:g} million pixels",
        "viewer": template("viewer.html"),
    }
    return page("serve", name, parts, ("viewer.js", "serve.js"), ("viewer.css", "serve.css"), SERVED)


def starlette() -> None:
    """CaffeError unless Starlette and uvicorn are there."""
    try:
        importlib.import_module("starlette")
        importlib.import_module("uvicorn")
    except ImportError as error:
        raise CaffeError(
            f"`caffe-fcn serve` needs Starlette and uvicorn: {error}", "pip install 'caffe-fcn[serve]'"
        ) from error


def is_loopback(host: str) -> bool:
    """Whether only this machine can ask."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
