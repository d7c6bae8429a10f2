"""A Crop behind a Deconvolution becomes the Deconvolution's padding: what is cut is not computed.

ONNX's ConvTranspose cuts `pads` from its output, so that with fixed sizes the Crop goes away altogether. With
open sizes the end of the cut depends on the size, and the Slice stays. Bit for bit the same: the elements
that are left are sums of the same products.

Requires: nobody else reads the Deconvolution's output, nor is it an output.
"""

from __future__ import annotations

from caffe_fcn.export.graph import Graph, Node

NAME = "crop-in-deconvolution"


def apply(graph: Graph) -> int:
    """Move what can be moved; returns how many Crops went away."""
    outputs = {v.name for v in graph.outputs}
    moved = 0
    for cut in [node for node in graph.nodes if node.op == "Slice"]:
        top = cut.inputs[0]
        node = graph.producer(top)
        if node is None or node.op != "ConvTranspose" or top in outputs or len(graph.consumers(top)) > 1:
            continue
        moved += _move(graph, node, cut)
    graph.prune()
    return moved


def _move(graph: Graph, node: Node, cut: Node) -> bool:
    """Widen the pads of `node` by what `cut` takes off, and let it make the Slice's output."""
    window = [graph.constants.get(name) for name in cut.inputs[1:4]]
    if any(part is None for part in window) or node.outputs[0] not in graph.values:
        return False
    shape = graph.values[node.outputs[0]].shape
    spatial = len(shape) - 2
    pads = list(node.attributes.get("pads", [0] * 2 * spatial))
    for start, stop, axis in zip(*window, strict=True):
        if axis < 2 or not isinstance(shape[axis], int):
            return False
        pads[axis - 2] += int(start)
        pads[axis - 2 + spatial] += shape[axis] - int(stop)
    node.attributes["pads"] = pads
    node.outputs = list(cut.outputs)
    node.layer = cut.layer
    graph.nodes.remove(cut)
    return True
