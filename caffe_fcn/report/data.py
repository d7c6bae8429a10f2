"""Traces for programs: CSV with a line for each layer, and JSON with everything."""

from __future__ import annotations

import csv
import io
import json

from caffe_fcn.geometry import Window
from caffe_fcn.report.tables import by
from caffe_fcn.symbols import hint
from caffe_fcn.tracing import Row, Trace
from caffe_fcn.tracing.sizes import numbers, pixels


def to_json(trace: Trace) -> str:
    """`Trace.to_dict`, indented."""
    return json.dumps(trace.to_dict(), indent=2, ensure_ascii=False)


def to_csv(trace: Trace) -> str:
    """One line a layer, with a header. Sizes in elements or bytes, places in pixels of the image."""
    out = io.StringIO()
    rows = [_fields(row) for row in trace.rows]
    writer = csv.DictWriter(out, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _fields(row: Row) -> dict[str, object]:
    return {
        "index": row.index,
        "name": row.name,
        "type": row.type,
        "bottoms": " ".join(row.bottoms),
        "tops": " ".join(row.tops),
        "in_place": int(row.in_place),
        **{part: by(getattr(w, part) for w in row.windows) for part in Window._fields},
        "group": row.group if row.windows else "",
        "output": " ".join(by(numbers(shape), alike=False) for shape in row.shapes),
        "output_formula": "; ".join(" x ".join(map(str, shape)) for shape in row.shapes),
        "parameters": row.parameters,
        "parameter_bytes": row.parameter_bytes,
        "macs": hint(row.macs),
        "activation_bytes": hint(row.memory),
        "receptive_field": by(a.size for a in row.axes),
        "image_stride": by(pixels(a.stride) for a in row.axes),
        "image_offset": by((pixels(a.offset) for a in row.axes), between=" "),
        "lr_mult": " ".join(f"{rate:g}" for rate in row.lr_mult),
        "learning": row.learning,
        "weights_from": row.source,
    }
