"""A net in a Jupyter notebook: a small table of its layers."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from caffe_fcn.units import bytes_text

if TYPE_CHECKING:
    from caffe_fcn.net.net import Net


def table(net: Net) -> str:
    """A line a layer: type, tops with their shapes, parameters. Nothing is computed, no weights are read."""
    lines = []
    for layer, bottoms, tops in zip(net.layers, net.bottom_ids, net.top_ids, strict=True):
        made = ", ".join(f"{net.blob_names[t]} {_by(net.blob_list[t].shape)}" for t in tops)
        count = sum(blob.count for blob in layer.blobs)
        read = ", ".join(net.blob_names[b] for b in bottoms)
        cells = (layer.name, layer.type, read, made, f"{count:,}" if count else "")
        lines.append(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>")
    heads = "".join(f"<th>{name}</th>" for name in ("layer", "type", "reads", "makes", "parameters"))
    own = (b for layer in net.layers for i, b in enumerate(layer.blobs) if not net.shares(layer, i))
    total = sum(blob.count for blob in own)
    told = f"{escape(net.path)}: {len(net.layers)} layers, {total:,} parameters ({bytes_text(4 * total)})"
    body = f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    name = escape(net.name or "net")
    return f'<p><b>{name}</b> {told}</p><div style="max-height: 30em; overflow: auto">{body}</div>'


def _by(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "scalar"
