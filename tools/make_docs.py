"""Write what the documentation takes from the code: the table of layers in README.md (`make docs`)."""

from __future__ import annotations

import re
from pathlib import Path

from caffe_fcn.layers import LAYERS, Layer

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
START, END = "<!-- layers: made by tools/make_docs.py -->", "<!-- end of layers -->"


def group(kind: type[Layer]) -> str:
    """The row of the table that a type stands in."""
    if kind.fork:
        return "layers of forks"
    return {"data": "data layers", "loss": "losses and metrics", "metric": "losses and metrics"}.get(
        kind.role, "layers of Caffe 1.0"
    )


def table() -> str:
    """The registry as a table: which types are read, run and converted."""
    rows: dict[str, list[str]] = {}
    for name in sorted(LAYERS, key=str.lower):
        kind = LAYERS[name]
        rows.setdefault(group(kind), []).append(f"{name}{'¹' if kind.no_onnx else ''}")
    order = ["layers of Caffe 1.0", "losses and metrics", "data layers", "layers of forks"]
    lines = ["| | types |", "|---|---|"]
    lines += [f"| {name} ({len(rows[name])}) | {', '.join(rows[name])} |" for name in order if name in rows]
    return "\n".join(
        [*lines, "", "¹ runs in NumPy; has no counterpart in ONNX, and the error says what to do."]
    )


def page() -> str:
    """README.md with the table as the registry has it now."""
    text = README.read_text(encoding="utf-8")
    return re.sub(
        f"{re.escape(START)}.*?{re.escape(END)}",
        lambda _: f"{START}\n{table()}\n{END}",
        text,
        flags=re.DOTALL,
    )


if __name__ == "__main__":
    README.write_text(page(), encoding="utf-8")
