"""Pages out of `templates/`: one HTML file each, styles, scripts and pictures inside, no network."""

from __future__ import annotations

import base64
import json
import re
from functools import cache
from html import escape
from importlib import resources
from typing import TYPE_CHECKING, Any

from caffe_fcn._version import __version__
from caffe_fcn.report.tables import Table

if TYPE_CHECKING:
    from PIL.Image import Image

#: A page may run what it brings along and show pictures that it holds, and reach nothing else.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


def page(
    name: str,
    title: str,
    parts: dict[str, str],
    scripts: tuple[str, ...] = (),
    styles: tuple[str, ...] = (),
    policy: str = POLICY,
) -> str:
    """The template `NAME.html` in the frame of all pages, with styles and scripts beside the common ones.

    `parts` take the place of `{{key}}` in the template; they are HTML, escaped by whoever made them.
    Scripts are templates too, put one behind the other into one function of their own.
    """
    body = filled(template(f"{name}.html"), parts)
    code = "\n".join(filled(template(script), parts) for script in scripts)
    frame = {
        "title": escape(title),
        "policy": escape(policy),
        "style": "".join(map(template, ("base.css", *styles))),
        "body": body,
        "script": f"(() => {{\n'use strict';\n{template('base.js')}\n{code}}})();",
        "version": escape(__version__),
    }
    return filled(template("frame.html"), frame)


@cache
def template(name: str) -> str:
    return (resources.files("caffe_fcn.report") / "templates" / name).read_text(encoding="utf-8")


def filled(text: str, parts: dict[str, str]) -> str:
    """The text with every `{{key}}` replaced, once: what is put in is not looked at again."""
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts.get(match[1], match[0]), text)


def data(value: Any) -> str:
    """JSON that can stand inside a script element, whatever strings it holds."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def table(shown: Table) -> str:
    """A table of text as HTML; it scrolls in a box of its own where it is wider than the page."""
    heads = "".join(f'<th scope="col">{escape(name.removeprefix(">"))}</th>' for name in shown.columns)
    rows = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in shown.rows)
    body = f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"
    return f'<div class="scroll">{body}</div>'


def data_uri(content: bytes, kind: str) -> str:
    """Bytes as an address that holds them."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def png(image: Image) -> bytes:
    """A picture as the bytes of a PNG file."""
    from io import BytesIO

    out = BytesIO()
    image.save(out, format="PNG", optimize=True)
    return out.getvalue()
