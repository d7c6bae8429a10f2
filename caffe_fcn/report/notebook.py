"""A trace in a Jupyter notebook: its tables, without scripts, so that they show where the notebook does."""

from __future__ import annotations

from html import escape

from caffe_fcn.report import tables
from caffe_fcn.report.page import table
from caffe_fcn.tracing import Trace


def render(trace: Trace) -> str:
    """Facts, warnings, and the tables, each folded away but for the first."""
    told = (f"<tr><th>{escape(name)}</th><td>{escape(told)}</td></tr>" for name, told in tables.facts(trace))
    parts = [f"<p><b>{escape(trace.name or 'net')}</b> {escape(trace.path)}, phase {trace.phase}</p>"]
    parts += [f"<p><b>Warning:</b> {escape(warning)}</p>" for warning in trace.warnings]
    parts.append(f"<table>{''.join(told)}</table>")
    shown = [tables.layers(trace), tables.costs(trace), *([tables.crops(trace)] if trace.crops else [])]
    parts += [
        f"<details{' open' if i == 0 else ''}><summary>{escape(each.title)}</summary>"
        f'<div style="max-height: 30em; overflow: auto">{table(each)}</div></details>'
        for i, each in enumerate(shown)
    ]
    return "".join(parts)
