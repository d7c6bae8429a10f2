"""A trace as Markdown."""

from __future__ import annotations

import re

from caffe_fcn.report import tables
from caffe_fcn.report.tables import Table
from caffe_fcn.terminal import printable
from caffe_fcn.tracing import Trace, Why


def render(trace: Trace) -> str:
    """Facts, tables, and the arithmetic behind the Crops."""
    parts = [f"# {_text(trace.name or 'net')}", f"`{printable(trace.path)}`, phase {trace.phase}"]
    parts.append("\n".join(f"- {name}: {_text(told)}" for name, told in tables.facts(trace)))
    parts += [f"> **Warning:** {_text(warning)}" for warning in trace.warnings]
    parts += [_titled(tables.layers(trace)), _titled(tables.costs(trace))]
    if trace.crops:
        parts.append(_titled(tables.crops(trace)))
    if trace.whys:
        parts += ["## Why", *(_why(why) for why in trace.whys)]
    return "\n\n".join(parts)


def _titled(table: Table) -> str:
    return "\n\n".join([f"## {table.title}", _table(table), _text(table.note)])


def _table(table: Table) -> str:
    heads = [column.removeprefix(">") for column in table.columns]
    rules = ["---:" if column.startswith(">") else "---" for column in table.columns]
    rows = [heads, *table.rows]
    lines = ["| " + " | ".join(_text(cell) for cell in row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "|".join(rules) + "|", *lines[1:]])


def _why(why: Why) -> str:
    parts = [f"### {_text(why.about)}"]
    if why.steps:
        parts.append(_table(tables.steps(why.steps)))
    return "\n\n".join([*parts, _text(" ".join(why.sentences))])


def _text(cell: str) -> str:
    """In one line, with what Markdown would read as its own marks escaped."""
    return re.sub(r"([\\`*_|<>\[\]#])", r"\\\1", printable(cell))
