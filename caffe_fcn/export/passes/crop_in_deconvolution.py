"""What a Crop takes off a Deconvolution is not computed: it becomes the Deconvolution's padding.

ONNX's ConvTranspose cuts `pads` from its output. Only as much goes there as every image has to lose at both
ends: onnxruntime's CUDA provider leaves a ConvTranspose to the CPU if its pads differ from end to end, and a
pad beyond the kernel is more than other runtimes take. A Slice of the rest stays, if there is one.

Requires: nobody else reads the Deconvolution's output, nor is it an output. Keeps: every element, bit for
bit; it is a sum of the same products.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from fractions import Fraction
from math import ceil

import numpy as np

from caffe_fcn.export.builder import Builder
from caffe_fcn.export.graph import Graph, Node
from caffe_fcn.symbols import Extent, Floor, Size, same

NAME = "crop-in-deconvolution"


def apply(graph: Graph) -> int:
    """Move what can be moved; returns how many Crops became less."""
    makers = {node.outputs[0]: node for node in graph.nodes if node.op == "ConvTranspose"}
    readers = Counter(name for node in graph.nodes for name in set(node.inputs))
    readers.update(v.name for v in graph.outputs)
    taken = graph.names()
    instead: dict[int, list[Node]] = {}  # of a Slice, by its id
    for cut in graph.nodes:
        node = makers.get(cut.inputs[0]) if cut.op == "Slice" else None
        left = _move(graph, node, cut, taken) if node and readers[cut.inputs[0]] == 1 else None
        if node and left is not None:
            instead[id(cut)] = left
            makers[node.outputs[0]] = node
    graph.nodes = [new for node in graph.nodes for new in instead.get(id(node), [node])]
    graph.prune()
    return len(instead)


def _move(graph: Graph, node: Node, cut: Node, taken: set[str]) -> list[Node] | None:
    """Widen the pads of `node` by what `cut` takes off at both ends of an axis.

    Returns the nodes that are left of `cut`; None if nothing can be moved.
    """
    whole, left = (graph.values.get(name) for name in (node.outputs[0], cut.outputs[0]))
    starts, axes = (graph.constants.get(cut.inputs[i]) for i in (1, 3))
    if whole is None or left is None or starts is None or axes is None or len(cut.inputs) > 4:
        return None
    pads, moved, rest = list(node.attributes["pads"]), [], False
    for axis, start in zip(axes.tolist(), starts.tolist(), strict=True):
        behind = whole.shape[axis] - start - left.shape[axis]
        moved.append(0 if axis < 2 else max(0, min(start, least(behind), _room(node, axis - 2))))
        rest |= start != moved[-1] or not same(behind, moved[-1])
        for end in (axis - 2, axis - 2 + len(pads) // 2) if moved[-1] else ():
            pads[end] += moved[-1]
    if not any(moved):
        return None
    node.attributes = {**node.attributes, "pads": pads}
    if rest:
        return _shift(graph, node, cut, starts, np.asarray(moved, np.int64), taken)
    node.outputs, node.layer = list(cut.outputs), cut.layer
    return []


def _room(node: Node, axis: int) -> int:
    """By how much a pad may grow: a window has to reach beyond it."""
    a, n = node.attributes, len(node.attributes["kernel_shape"])
    reach = a.get("dilations", [1] * n)[axis] * (a["kernel_shape"][axis] - 1) + 1
    return reach - 1 - max(a["pads"][axis], a["pads"][axis + n])


def _shift(
    graph: Graph, node: Node, cut: Node, starts: np.ndarray, moved: np.ndarray, taken: set[str]
) -> list[Node]:
    """Let `cut` take the rest off what `node` makes now, which is no longer the blob."""
    top, begin, by = (Builder.fresh(f"{cut.name}/{part}", taken) for part in ("most", "starts", "moved"))
    taken.update((top, begin, by))
    node.outputs = [top]
    stops = cut.inputs[2]
    graph.constants[begin] = starts - moved
    if stops in graph.constants:
        graph.constants[by] = graph.constants[stops] - moved
        cut.inputs = [top, begin, by, cut.inputs[3]]
        return [cut]
    end = Builder.fresh(f"{cut.name}/stops", taken)
    graph.constants[by] = moved
    taken.add(end)
    cut.inputs = [top, begin, end, cut.inputs[3]]
    return [Node("Sub", [stops, by], [end], {}, f"{cut.name}/Sub", cut.layer), cut]


def least(size: Size) -> int:
    """What a size does not fall below, whatever the inputs' extents from 1 on; 0 if that is not known."""
    if not isinstance(size, Extent):
        return size
    form = _below(size) or {"": Fraction(0)}
    known = all(factor >= 0 for symbol, factor in form.items() if symbol)
    return ceil(sum(form.values())) if known else 0


def _below(size: Extent, side: int = 1) -> dict[str, Fraction] | None:
    """A linear form that `side` * size does not fall below: symbol -> factor, "" for the constant.

    None where extents are multiplied with each other.
    """
    form: dict[str, Fraction] = defaultdict(Fraction)
    for atoms, factor in size.terms.items():
        factor *= side
        atom = atoms[0] if atoms else None
        if len(atoms) > 1:
            return None
        if isinstance(atom, Floor):
            inner = _below(atom.of, 1 if factor > 0 else -1)
            if inner is None:
                return None
            # floor(x / n) lies from (x - n + 1) / n to x / n
            inner[""] -= atom.by - 1 if factor > 0 else 0
            for symbol, part in inner.items():
                form[symbol] += abs(factor) * part / atom.by
        else:
            form[atom.name if atom else ""] += factor
    return form
