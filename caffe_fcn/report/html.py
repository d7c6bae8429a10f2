"""A trace as one page that works from a file: graph, table, the facts of each layer, for any input size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from html import escape
from pathlib import PurePath
from typing import Any

from caffe_fcn.net import Net
from caffe_fcn.report import graph, tables
from caffe_fcn.report.lowering import Lowered, lowered, reasons
from caffe_fcn.report.page import data, page, table
from caffe_fcn.report.statistics import statistics
from caffe_fcn.report.tables import window_text
from caffe_fcn.tracing import Row, Trace, Why

SCRIPTS = ("sizes.js", "trace.js", "layer.js", "place.js", "table.js", "crops.js")


def render(trace: Trace, net: Net | None = None) -> str:
    """The page. With the net it also shows each layer's text, weights, and ONNX operators.

    Weights are looked at where they are in memory or in a mapped file; none are made up.
    """
    content = trace.to_dict()
    formulas = _Formulas()
    rows = [_row(row, told, formulas) for row, told in zip(trace.rows, content["rows"], strict=True)]
    problem = _from_net(rows, net) if net else ""
    held = {
        "symbols": trace.symbols,
        "fixed": trace.fixed,
        "inputs": {name: formulas.sizes(content, "inputs", name) for name in trace.inputs},
        "outputs": trace.outputs,
        "smallest": content["smallest"],
        "formulas": formulas.texts,
        "rows": rows,
        "crops": [_crop(crop, formulas) for crop in content["crops"]],
        "onnx": "" if net and not problem else problem or "not looked at",
        "passes": reasons() if net and not problem else {},
    }
    title = trace.name or "/".join(PurePath(trace.path).parts[-2:]) or "net"
    parts = {
        "name": escape(title),
        "where": escape(f"{trace.path}, phase {trace.phase}"),
        "facts": "".join(_fact(name, told) for name, told in tables.facts(trace)),
        "warnings": "".join(f'<p class="warning">{escape(w)}</p>' for w in trace.warnings),
        "svg": graph.to_svg(trace),
        "whys": "".join(_why(why) for why in trace.whys),
        "crops_hidden": "" if trace.crops else "hidden",
        "whys_hidden": "" if trace.whys else "hidden",
        "data": data(held),
        "symbols": ", ".join(trace.symbols),
        "sizes": ",\n".join(formulas.codes),
    }
    return page("trace", title, parts, SCRIPTS, ("trace.css",))


class _Formulas:
    """Every formula once; elsewhere its index stands for it, as a string, where else a number would stand."""

    def __init__(self) -> None:
        self.codes: list[str] = []
        self.texts: list[str] = []
        self._index: dict[str, str] = {}

    def sizes(self, holder: Mapping[str, Any], name: str, key: str | None = None) -> Any:
        """The field `name` of a `to_dict()`, or what it holds under `key`, with indices for formulas."""
        plain, code, text = (holder.get(name + suffix) for suffix in ("", "_js", "_formula"))
        if key is not None:
            plain, code, text = (part and part[key] for part in (plain, code, text))
        return plain if code is None else self._put(code, text)

    def _put(self, code: Any, text: Any) -> Any:
        if isinstance(code, list):
            return [self._put(c, t) for c, t in zip(code, text, strict=True)]
        if not isinstance(code, str):
            return code
        if code not in self._index:
            self._index[code] = str(len(self.codes))
            self.codes.append(code)
            self.texts.append(text)
        return self._index[code]


def _row(row: Row, told: Mapping[str, Any], formulas: _Formulas) -> dict[str, Any]:
    """What the page needs of a layer; what is empty is left out."""
    found = {
        "name": row.name,
        "type": row.type,
        "kind": graph.kind(row.type),
        "bottoms": row.bottoms,
        "tops": row.tops,
        "inPlace": row.in_place,
        "window": window_text(row.windows, row.group),
        "strided": _strided(row),
        "shapes": formulas.sizes(told, "shapes"),
        "parameters": row.parameters,
        "learning": row.learning,
        "source": row.source,
        "shared": row.shared,
        "rates": row.lr_mult,
        "macs": formulas.sizes(told, "macs"),
        "memory": formulas.sizes(told, "memory"),
        "axes": [[float(v) if v is not None else None for v in vars(axis).values()] for axis in row.axes],
    }
    return {key: value for key, value in found.items() if key == "name" or value not in ("", [], 0, False)}


def _strided(row: Row) -> list[dict[str, int]]:
    """The windows of a convolution that takes steps, for what Caffe makes of too small an input."""
    if graph.kind(row.type) != "conv" or all(w.stride == 1 for w in row.windows):
        return []
    return [{"reach": w.reach, "pad": w.pad, "stride": w.stride} for w in row.windows]


def _crop(crop: Mapping[str, Any], formulas: _Formulas) -> dict[str, Any]:
    cuts = [{**cut, "after": formulas.sizes(cut, "after")} for cut in crop["cuts"]]
    kept = ("axis", "name", "given", "derived", "before", "after")
    return {**crop, "cuts": [{key: cut[key] for key in kept} for cut in cuts]}


def _from_net(rows: list[dict[str, Any]], net: Net) -> str:
    """Add what only the net knows; returns why there are no ONNX operators, or ""."""
    operators, problem = lowered(net)
    for row in rows:
        layer = net.layer_dict[row["name"]]
        row["text"] = _text(layer.param)
        if row["name"] in operators:
            row["onnx"] = _lowered(operators[row["name"]])
        if layer.blobs:
            row["blobs"] = [_blob(blob) for blob in layer.blobs]
    return problem


def _lowered(layer: Lowered) -> dict[str, Any]:
    """Operators as [name, how many]; those of the plain graph, where a rewrite changed them."""
    found: dict[str, Any] = {"ops": list(Counter(layer.written).items())}
    if layer.rewrites:
        found["by"] = [[rewrite.by, *rewrite.changes] for rewrite in layer.rewrites]
        if layer.plain != layer.written:
            found["plain"] = list(Counter(layer.plain).items())
    return found


def _text(param: Any) -> str:
    """A layer's own fields as in a prototxt; its name and wires are shown elsewhere."""
    from caffe_fcn.formats import prototxt

    kept = type(param)()
    kept.CopyFrom(param)
    for name in ("name", "type", "bottom", "top", "phase", "blobs"):
        kept.ClearField(name)
    return prototxt.format(kept).rstrip()


def _blob(blob: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"shape": list(blob.shape)}
    if blob.filled and blob.count:
        looked = statistics(blob.peek())._asdict()
        found.update({key: _short(value) for key, value in looked.items()})
    return found


def _short(value: Any) -> Any:
    """Floats in as many digits as are shown."""
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _fact(name: str, told: str) -> str:
    return f'<div><dt>{escape(name)}</dt><dd data-fact="{escape(name)}">{escape(told)}</dd></div>'


def _why(why: Why) -> str:
    steps = table(tables.steps(why.steps)) if why.steps else ""
    told = "".join(f"<p>{escape(sentence)}</p>" for sentence in why.sentences)
    return f"<details open><summary>{escape(why.about)}</summary>{steps}{told}</details>"
