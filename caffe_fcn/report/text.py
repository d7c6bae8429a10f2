"""A trace for the terminal: columns of text."""

from __future__ import annotations

import textwrap

from caffe_fcn.report import tables
from caffe_fcn.report.tables import Table
from caffe_fcn.terminal import printable
from caffe_fcn.tracing import Trace, Why

WIDTH = 110  # of paragraphs; tables are as wide as they have to be
WIDEST = 120  # of a column; a longer cell moves what stands behind it, in its own line only


def render(trace: Trace) -> str:
    """Facts, tables, and the arithmetic behind the Crops."""
    head = f"{trace.name or 'net'} ({trace.path}, phase {trace.phase})"
    parts = [printable(head), _facts(trace)]
    parts += [_wrapped(f"warning: {warning}", "  ") for warning in trace.warnings]
    parts += [_table(tables.layers(trace)), _table(tables.costs(trace))]
    if trace.crops:
        parts.append(_table(tables.crops(trace)))
    if trace.whys:
        parts += ["Why", *(_why(why) for why in trace.whys)]
    return "\n\n".join(parts)


def _facts(trace: Trace) -> str:
    found = tables.facts(trace)
    width = max(len(name) for name, _ in found) + 2
    return "\n".join(_wrapped(f"{name:{width}}{told}", " " * width) for name, told in found)


def _table(table: Table) -> str:
    lines = _columns(table)
    if table.title:
        lines.insert(0, table.title)
    if table.note:
        lines.append(_wrapped(f"({table.note})", ""))
    return "\n".join(lines)


def _columns(table: Table) -> list[str]:
    heads = [column.removeprefix(">") for column in table.columns]
    rows = [[printable(cell) for cell in row] for row in table.rows]
    widths = [min(WIDEST, max(map(len, column))) for column in zip(heads, *rows, strict=True)]

    def line(cells: list[str]) -> str:
        padded = (
            cell.rjust(width) if column.startswith(">") else cell.ljust(width)
            for cell, width, column in zip(cells, widths, table.columns, strict=True)
        )
        return "  ".join(padded).rstrip()

    return [line(heads), line(["-" * width for width in widths]), *(line(row) for row in rows)]


def _why(why: Why) -> str:
    lines = [printable(f"* {why.about}")]
    if why.steps:
        lines += [f"    {line}" for line in _columns(tables.steps(why.steps))]
    lines += [_wrapped(f"  {sentence}", "  ") for sentence in why.sentences]
    return "\n".join(lines)


def _wrapped(text: str, indent: str) -> str:
    text = printable(text, keep="\n")
    return textwrap.fill(
        text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
