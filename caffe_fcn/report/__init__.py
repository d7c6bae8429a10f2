"""A trace as something to read: text for a terminal, Markdown, CSV, JSON.

tables.py  what the tables hold     text.py  markdown.py  data.py (CSV and JSON)  the forms
"""

from __future__ import annotations

from collections.abc import Callable

from caffe_fcn.errors import CaffeError, nearest
from caffe_fcn.report import data, markdown, text
from caffe_fcn.tracing import Trace

FORMATS: dict[str, Callable[[Trace], str]] = {
    "text": text.render,
    "markdown": markdown.render,
    "csv": data.to_csv,
    "json": data.to_json,
}


def render(trace: Trace, format: str = "text") -> str:  # noqa: A002 (the command's option)
    """The trace in one of FORMATS, with a line break at the end. Raises CaffeError for another."""
    if format not in FORMATS:
        raise CaffeError(
            f"unknown format '{format}'; there are {', '.join(FORMATS)}", nearest(format, FORMATS)
        )
    return FORMATS[format](trace).rstrip("\n") + "\n"
