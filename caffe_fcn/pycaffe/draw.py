"""caffe.draw: a net as a graph, drawn by Graphviz through pydot (python/caffe/draw.py)."""

from __future__ import annotations

import os
from typing import Any

from caffe_fcn.errors import CaffeError
from caffe_fcn.formats import caffe_pb2

BLOB_STYLE = {"shape": "octagon", "fillcolor": "#E0E0E0", "style": "filled"}
LAYER_STYLE_DEFAULT = {"shape": "record", "fillcolor": "#6495ED", "style": "filled"}
NEURON_LAYER_STYLE = {"shape": "record", "fillcolor": "#90EE90", "style": "filled"}
COLORS = {
    "Convolution": "#FF5050",
    "Deconvolution": "#FF5050",
    "Pooling": "#FF9900",
    "InnerProduct": "#CC33FF",
}
LEARNING = ("Convolution", "Deconvolution", "InnerProduct")


def get_pooling_types_dict() -> dict[int, str]:
    """Number of a pooling method -> its name."""
    return {v.number: v.name for v in caffe_pb2.PoolingParameter.PoolMethod.DESCRIPTOR.values}


def choose_color_by_layertype(layertype: str) -> str:
    """The colour of a layer's box."""
    return COLORS.get(layertype, LAYER_STYLE_DEFAULT["fillcolor"])


def get_edge_label(layer: Any) -> str:
    """What stands at the edge from a layer to its top: the number of channels, or the batch size."""
    if layer.type == "Data":
        return f"Batch {layer.data_param.batch_size}"
    if layer.type in ("Convolution", "Deconvolution"):
        return str(layer.convolution_param.num_output)
    return str(layer.inner_product_param.num_output) if layer.type == "InnerProduct" else '""'


def get_layer_lr_mult(layer: Any) -> tuple[float, float]:
    """lr_mult of weights and bias. ValueError for a layer of other parameters."""
    if layer.type not in LEARNING or len(layer.param) > 2:
        raise ValueError(f"layer '{layer.name}' ({layer.type}) has no weights and bias")
    rates = [float(param.lr_mult) for param in layer.param]
    weights, bias = (*rates, *(1.0, 1.0)[len(rates) :])
    return weights, bias


def get_layer_label(layer: Any, rankdir: str, display_lrm: bool = False) -> str:
    """The text in a layer's box; in one line where the graph goes from top to bottom."""
    lines = [layer.name, f"({layer.type})"]
    if layer.type == "Pooling":
        p = layer.pooling_param
        lines[1] = f"({layer.type} {get_pooling_types_dict()[p.pool]})"
        lines += _window(p.kernel_size, p.stride, p.pad)
    elif layer.type in ("Convolution", "Deconvolution"):
        c = layer.convolution_param
        lines += _window(*((list(values) or [default])[0] for values, default in _convolution(c)))
    if display_lrm and layer.type in LEARNING and any(rates := get_layer_lr_mult(layer)):
        lines.append(f"lr mult: {rates[0]:.1f}, {rates[1]:.1f}")
    return f'"{(" " if rankdir in ("TB", "BT") else chr(92) + "n").join(lines)}"'


def _window(kernel: int, stride: int, pad: int) -> list[str]:
    return [f"kernel size: {kernel}", f"stride: {stride}", f"pad: {pad}"]


def _convolution(c: Any) -> tuple[tuple[Any, int], ...]:
    return (c.kernel_size, 1), (c.stride, 1), (c.pad, 0)


def get_pydot_graph(
    caffe_net: Any,
    rankdir: str,
    label_edges: bool = True,
    phase: int | None = None,
    display_lrm: bool = False,
) -> Any:
    """The pydot.Dot of a NetParameter: a box for each layer, an octagon for each blob.

    Args:
        caffe_net: a NetParameter.
        rankdir: LR, TB or BT: the direction in which the graph runs.
        label_edges: whether `get_edge_label` stands at the edges.
        phase: leave out layers of the other one.
        display_lrm: whether boxes show lr_mult.
    """
    pydot = _pydot()
    graph = pydot.Dot(caffe_net.name or "Net", graph_type="digraph", rankdir=rankdir)
    nodes: dict[str, Any] = {}
    edges: list[tuple[str, str, str]] = []
    for layer in caffe_net.layer:
        if phase is not None and not _in_phase(layer, phase):
            continue
        node, in_place = f"{layer.name}_{layer.type}", list(layer.bottom) == list(layer.top)
        style = {**LAYER_STYLE_DEFAULT, "fillcolor": choose_color_by_layertype(layer.type)}
        style = NEURON_LAYER_STYLE if in_place and len(layer.top) == 1 else style
        nodes[node] = pydot.Node(get_layer_label(layer, rankdir, display_lrm), **style)
        for name in (*layer.bottom, *layer.top):
            nodes[f"{name}_blob"] = pydot.Node(f'"{name}"', **BLOB_STYLE)
        edges += [(f"{name}_blob", node, '""') for name in layer.bottom]
        edges += [
            (node, f"{name}_blob", get_edge_label(layer) if label_edges else '""') for name in layer.top
        ]
    for drawn in nodes.values():
        graph.add_node(drawn)
    for source, target, label in edges:
        graph.add_edge(pydot.Edge(nodes[source], nodes[target], label=label))
    return graph


def _in_phase(layer: Any, phase: int) -> bool:
    if layer.include:
        return any(rule.phase == phase for rule in layer.include)
    return all(rule.phase != phase for rule in layer.exclude)


def _pydot() -> Any:
    try:
        import pydot
    except ImportError as error:
        raise CaffeError("caffe.draw needs pydot", "pip install 'caffe-fcn[draw]', and Graphviz") from error
    return pydot


def draw_net(
    caffe_net: Any, rankdir: str, ext: str = "png", phase: int | None = None, display_lrm: bool = False
) -> bytes:
    """The drawing as a file of this kind, in bytes. CaffeError if Graphviz is not installed."""
    graph = get_pydot_graph(caffe_net, rankdir, phase=phase, display_lrm=display_lrm)
    if ext == "raw":
        return str(graph.to_string()).encode()
    try:
        return bytes(graph.create(format=ext))
    except FileNotFoundError as error:
        raise CaffeError(
            f"Graphviz is not there to draw a .{ext}: {error}", "ext='raw' gives its text"
        ) from error


def draw_net_to_file(
    caffe_net: Any,
    filename: str | os.PathLike[str],
    rankdir: str = "LR",
    phase: int | None = None,
    display_lrm: bool = False,
) -> None:
    """Write the drawing; the kind is the file's ending, `.raw` for Graphviz's own text."""
    drawing = draw_net(caffe_net, rankdir, os.path.splitext(filename)[1][1:], phase, display_lrm)
    with open(filename, "wb") as file:
        file.write(drawing)
