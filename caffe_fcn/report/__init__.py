"""What is known of a net or of an image's labels, as something to read: text, Markdown, CSV, JSON, pages.

tables.py  what the tables of a trace hold     text.py  markdown.py  data.py (CSV and JSON)  its plain forms
html.py    a trace as one page                 layout.py  graph.py  its drawing
lowering.py  the ONNX operators of a layer     statistics.py  what its weights look like
page.py    pages out of templates/             segmentation.py  an image's labels as one page
"""

from __future__ import annotations

from collections.abc import Callable

from caffe_fcn.errors import CaffeError, nearest
from caffe_fcn.net import Net
from caffe_fcn.report import data, html, markdown, text
from caffe_fcn.tracing import Trace

FORMATS: dict[str, Callable[..., str]] = {
    "text": text.render,
    "markdown": markdown.render,
    "csv": data.to_csv,
    "json": data.to_json,
    "html": html.render,
}


def render(trace: Trace, format: str = "text", net: Net | None = None) -> str:  # noqa: A002 (the command's option)
    """The trace in one of FORMATS, with a line break at the end. Raises CaffeError for another.

    With its net a page also shows each layer's text, weights and ONNX operators.
    """
    if format not in FORMATS:
        raise CaffeError(
            f"unknown format '{format}'; there are {', '.join(FORMATS)}", nearest(format, FORMATS)
        )
    more = [net] if format == "html" else []
    return FORMATS[format](trace, *more).rstrip("\n") + "\n"
