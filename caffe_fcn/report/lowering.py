"""Which ONNX nodes a layer becomes. Export is imported only here, and only when somebody asks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from caffe_fcn import surgery
from caffe_fcn.blob import Blob, Shape
from caffe_fcn.errors import CaffeError
from caffe_fcn.layers import Layer
from caffe_fcn.net import Net

Nodes = dict[str, list[tuple[str, dict[str, Any]]]]  # layer -> operators in order, and their attributes


class Rewrite(NamedTuple):
    """What a pass made of a layer."""

    by: str  # the pass
    changes: list[str]  # "group: 1 → 21" where the operators stayed the same


@dataclass
class Lowered:
    """One layer in ONNX."""

    plain: list[str] = field(default_factory=list)  # operators in order, as the layer lowers itself
    written: list[str] = field(default_factory=list)  # the same, after the rewrites that are on by default
    rewrites: list[Rewrite] = field(default_factory=list)


def lowered(net: Net) -> tuple[dict[str, Lowered], str]:
    """What becomes of each layer; and why there is none, or "".

    A layer that the outputs need but that has no operators passes its bottom on; one that is not named at all
    is not needed. Weights that nobody gave are not made up for this.
    """
    from caffe_fcn.export import passes
    from caffe_fcn.export.exporter import export

    try:
        with _hollow(net):
            exported = export(net)
            found = {n: Lowered() for n in net.layer_names if n not in exported.dropped}
            made = _nodes(net, exported.graph)
            for name, nodes in made.items():
                found.setdefault(name, Lowered()).plain = [op for op, _ in nodes]
            names = {p.NAME for p in passes.PASSES}
            for each in (p.NAME for p in passes.PASSES):
                if passes.run(exported.graph, names - {each}, _not_computed)[each]:
                    before, made = made, _nodes(net, exported.graph)
                    _compare(found, each, before, made)
    except CaffeError as error:
        return {}, str(error).splitlines()[0]
    for name, layer in found.items():
        layer.written = [op for op, _ in made.get(name, [])]
    return found, ""


def reasons() -> dict[str, str]:
    """What each pass is for, in a sentence."""
    from caffe_fcn.export.passes import PASSES

    return {p.NAME: (p.__doc__ or "").split("\n\n")[0].replace("\n", " ") for p in PASSES}


def _nodes(net: Net, graph: Any) -> Nodes:
    """The nodes of each layer; what puts a blob's parts together belongs to the layer that makes it first."""
    makers: dict[str, str] = {}
    for layer, tops in zip(net.layers, net.top_ids, strict=True):
        for top in tops:
            makers.setdefault(net.blob_names[top], layer.name)
    found: Nodes = {}
    for node in graph.nodes:
        name = node.layer
        if name not in net.layer_dict:  # the border of a tensor, or the copy that is an output
            name = makers.get(name.removesuffix("/border"), name)
        found.setdefault(name, []).append((node.op, dict(node.attributes)))
    return found


def _compare(found: dict[str, Lowered], each: str, before: Nodes, after: Nodes) -> None:
    for name in [*before, *(n for n in after if n not in before)]:
        was, now = before.get(name, []), after.get(name, [])
        if was == now or name not in found:
            continue
        alike = [op for op, _ in was] == [op for op, _ in now]
        pairs = zip(was, now, strict=True) if alike else ()
        changes = [
            f"{key}: {_told(old.get(key, 1))} → {_told(value)}"
            for (_, old), (_, new) in pairs
            for key, value in new.items()
            if old.get(key) != value
        ]
        found[name].rewrites.append(Rewrite(each, changes))


def _told(value: Any) -> str:
    """An attribute; a list of one number many times as that number."""
    values = value if isinstance(value, list) else [value]
    return str(values[0]) if len(set(values)) == 1 else "×".join(map(str, values))


def _not_computed(graph: Any, _: Any) -> dict[str, np.ndarray]:
    """Stand-ins for what a conversion computes and stores."""
    return {value.name: np.zeros(0, np.float32) for value in graph.outputs}


@contextmanager
def _hollow(net: Net) -> Iterator[None]:
    """Stand-ins of no size for parameters that hold nothing yet: a filler would draw a number for each."""
    kept = [(layer, list(layer.blobs)) for layer in net.layers]
    for layer, own in kept:
        fill = _diagonal if surgery.interpolates(layer) and _frozen(layer) else _ones
        layer.blobs[:] = [blob if blob.filled else Blob(blob.shape, fill) for blob in own]
    try:
        yield
    finally:
        for layer, own in kept:
            layer.blobs[:] = own


def _frozen(layer: Layer) -> bool:
    """Whether a conversion fills it with a bilinear kernel if the weights have none."""
    return bool(layer.param.param) and layer.param.param[0].lr_mult == 0


def _ones(shape: Shape) -> np.ndarray:
    return np.broadcast_to(np.float32(1), shape)


def _diagonal(shape: Shape) -> np.ndarray:
    """As a bilinear kernel: nothing from one channel to another."""
    if len(shape) < 2 or shape[0] != shape[1]:
        return _ones(shape)
    return np.broadcast_to(
        np.eye(shape[0], dtype=np.float32).reshape(*shape[:2], *(1 for _ in shape[2:])), shape
    )
