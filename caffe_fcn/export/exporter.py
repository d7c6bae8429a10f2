"""Net -> Graph: the plain, faithful ONNX graph. Each layer lowers itself; here values get their names.

Which sizes stay open is found by trying: every extent of an input starts as a symbol. Where a layer needs a
number it says so (`SizeNeeded`); that symbol is fixed at the net's present shape, and export starts again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from caffe_fcn.errors import CaffeError, nearest
from caffe_fcn.export.builder import Builder
from caffe_fcn.export.graph import Graph, Value
from caffe_fcn.layers import Layer
from caffe_fcn.net import Net
from caffe_fcn.symbols import Extent, Shape, Size, SizeNeeded

OPSET = 17
TRIALS = 1 << 20  # layers that are gone through to find out which extents of the inputs go together
AXES = {4: ("N", None, "H", "W"), 5: ("N", None, "D", "H", "W")}


@dataclass
class Exported:
    """A graph, and what a user should know of how it came about."""

    graph: Graph
    fixed: dict[str, str] = field(default_factory=dict)  # symbol -> the layer that needs its number
    dropped: list[str] = field(default_factory=list)  # layers that no output depends on


def export(
    net: Net,
    outputs: Sequence[str] | None = None,
    *,
    static: Iterable[str] = (),
    opset: int = OPSET,
    keep_blobs: bool = False,
) -> Exported:
    """Lower `net` to an ONNX graph of float32 tensors.

    Args:
        outputs: blobs to stop at; the net's outputs by default.
        static: inputs whose present shape is to be fixed; all other extents stay open where layers allow it.
        keep_blobs: give every blob on the way a tensor of its own name (to compare with).

    Raises:
        UnsupportedError: a layer on the way has no counterpart in ONNX.
        CaffeError: an output that the net does not have.
    """
    wanted = list(outputs or net.outputs)
    if not wanted:
        raise CaffeError(f"{net.path}: the net has no outputs", "name a blob to stop at: --output BLOB")
    for name in wanted:
        if name not in net.blobs:
            raise CaffeError(f"{net.path}: no blob '{name}' in the net", nearest(name, net.blobs))
    needed = layers_on_the_way(net, wanted)
    fixed: dict[str, str] = {}
    made = {t for i in needed for t in net.top_ids[i]}
    inputs = [name for name in net.inputs if net.blob_index[name] in made]
    while True:
        shapes = _symbolic(net, inputs, fixed, set(static))
        walk = _Walk(net, shapes, needed, opset)
        try:
            walk.run()
        except SizeNeeded as need:
            if need.symbols <= fixed.keys():  # not a size of the inputs: fixing these again would not help
                net.layer_dict[walk.builder.layer].unsupported(
                    f"{need}, but it depends on what the blobs hold"
                )
            fixed.update(dict.fromkeys(need.symbols, walk.builder.layer))
            continue
        break
    graph = walk.finish(wanted, keep_blobs)
    dropped = [
        n for i, n in enumerate(net.layer_names) if i not in needed and net.layers[i].param.type != "Split"
    ]
    return Exported(graph, fixed, dropped)


def layers_on_the_way(net: Net, outputs: Iterable[str]) -> set[int]:
    """Indices of the layers that the outputs depend on; in-place layers behind an output are part of it."""
    wanted = {net.blob_index[name] for name in outputs}
    needed = set()
    for i in reversed(range(len(net.layers))):
        if wanted.intersection(net.top_ids[i]):
            needed.add(i)
            wanted.update(net.bottom_ids[i])
    return needed


def _symbolic(
    net: Net, inputs: Sequence[str], fixed: Mapping[str, str], static: set[str]
) -> dict[str, Shape]:
    """The inputs' shapes with symbols for what may stay open: N, H, W, and its name for a second input."""
    shapes: dict[str, Shape] = {}
    many = len(inputs) * len(net.layers) > TRIALS  # each with symbols of its own would take hours
    for name in inputs:
        present = net.blobs[name].shape
        axes = () if name in static or (many and name != inputs[0]) else AXES.get(len(present), ("N",))
        shape: list[Size] = list(present)
        for axis, symbol in enumerate(axes[: len(present)]):
            if symbol is None:
                continue
            if name != inputs[0] and not _tied(net, inputs[0], name, axis):
                symbol = f"{symbol}_{name}"
            if symbol not in fixed:
                shape[axis] = Extent.symbol(symbol, present[axis])
        shapes[name] = tuple(shape)
    return shapes


def _tied(net: Net, first: str, other: str, axis: int) -> bool:
    """Whether an extent of two inputs has to be the same: if either alone grows, a layer objects."""
    one, two = net.blobs[first].shape, net.blobs[other].shape
    if axis >= len(one) or one[axis] != two[axis]:
        return False
    for name, shape in ((first, one), (other, two)):
        try:
            net.infer({name: (*shape[:axis], shape[axis] + 64, *shape[axis + 1 :])})
        except CaffeError:
            continue
        return False
    return True


class _Walk:
    """One attempt: every needed layer in turn, values under their blobs' names."""

    def __init__(self, net: Net, inputs: Mapping[str, Shape], needed: set[int], opset: int) -> None:
        self.net, self.inputs, self.needed = net, inputs, needed
        self.builder = Builder(net.name, opset, net.blob_index)
        self.current: dict[int, Value] = {}  # blob -> the tensor that holds it now
        self.names: dict[str, str] = {}  # tensor as the builder named it -> as it is to be called

    def run(self) -> None:
        for i, layer in enumerate(self.net.layers):
            if i in self.needed:
                self.builder.layer = layer.name
                self._lower(i, layer)

    def _lower(self, i: int, layer: Layer) -> None:
        tops = self.net.top_ids[i]
        if layer.param.type == "Input":
            for t in tops:
                name = self.net.blob_names[t]
                if not name or "\0" in name:
                    layer.unsupported(
                        f"its top is called {name!r}, which is no name to ONNX", "give it another"
                    )
                self.current[t] = self.builder.input(name, self.inputs[name])
            return
        if layer.no_onnx:
            layer.unsupported(layer.no_onnx)
        bottoms = [self.current[b] for b in self.net.bottom_ids[i]]
        shapes = layer.reshape([b.shape for b in bottoms])
        made = layer.to_onnx(self.builder, bottoms)
        for t, top, shape in zip(tops, made, shapes, strict=True):
            value = top if isinstance(top, Value) else Value(top, shape)
            self.current[t] = value
            self.builder.graph.values[value.name] = value

    def finish(self, outputs: Sequence[str], keep_blobs: bool) -> Graph:
        """Give tensors their blobs' names; an output that no node makes gets an Identity."""
        graph, net = self.builder.graph, self.net
        made = {name for node in graph.nodes for name in node.outputs}
        taken: set[str] = {v.name for v in graph.inputs}
        names: dict[str, str] = {}
        wanted = dict.fromkeys(net.blob_index[name] for name in outputs)
        blobs = [*wanted, *(t for t in self.current if t not in wanted)]
        for t in blobs:
            value, blob = self.current[t], net.blob_names[t] or "unnamed"  # to ONNX "" is no name
            if value.name in made and value.name not in names:
                names[value.name] = Builder.fresh(blob, taken)
                taken.add(names[value.name])
            elif t in wanted or keep_blobs:
                if value.name == blob:  # an output that is an input
                    continue
                self.builder.layer = blob
                copy = self.builder.op("Identity", value)
                names[copy] = Builder.fresh(blob, taken)
                taken.add(names[copy])
                self.current[t] = value._replace(name=copy)
        graph.outputs = [self.current[t] for t in (blobs if keep_blobs else wanted)]
        graph.rename(names)
        _name_nodes(graph)
        graph.prune()
        return graph


def _name_nodes(graph: Graph) -> None:
    """The last node of each layer has the layer's name; those before it `layer/Op`. Names are unique."""
    last = {node.layer: node for node in graph.nodes}
    taken: set[str] = set()
    for node in graph.nodes:
        node.name = Builder.fresh(
            node.layer if last[node.layer] is node else f"{node.layer}/{node.op}", taken
        )
        taken.add(node.name)
