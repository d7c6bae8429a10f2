"""Arithmetic by channel becomes one BatchNormalization, which onnxruntime folds into what stands before it.

BatchNorm with Scale is lowered to BatchNormalization, Mul and Add; Scale, Bias and Power to Mul and Add.
Behind a Convolution onnxruntime folds these itself, behind a ConvTranspose only a BatchNormalization.
Elsewhere (before a ReLU, as in DenseNet) one node in place of three also stays in its blocked layout: see
docs/performance.md.

Requires: factors and terms that are constants, one for each channel or one for all; nobody else reads what
lies between the nodes. Keeps: every element within 1e-5 of its blob's largest; constants are combined in
float64.
"""

from __future__ import annotations

from collections import Counter
from functools import reduce
from typing import NamedTuple

import numpy as np

from caffe_fcn.export.builder import Builder
from caffe_fcn.export.graph import Graph, Node
from caffe_fcn.symbols import Shape

NAME = "merge-affine"

NORM = "BatchNormalization"
EPSILON = 1e-5  # the least that cuDNN takes; the variance makes up for it


class Affine(NamedTuple):
    """factor * x + term, for each channel, in float64."""

    factor: np.ndarray
    term: np.ndarray

    def then(self, other: Affine) -> Affine:
        return Affine(self.factor * other.factor, self.term * other.factor + other.term)


class Run(NamedTuple):
    """Nodes that follow one another, each an Affine of the one before."""

    x: str
    nodes: list[Node]
    parts: list[Affine]


def apply(graph: Graph) -> int:
    """Merge what can be merged; returns how many runs of nodes became one."""
    behind = {name for node in graph.nodes if node.op == "ConvTranspose" for name in node.outputs}
    runs = [r for r in _runs(graph) if len(r.nodes) > 1 or (r.x in behind and r.nodes[0].op != NORM)]
    instead: dict[int, list[Node]] = {}  # of a run's node, by its id
    for run in runs:
        instead |= {id(node): [] for node in run.nodes}
        instead[id(run.nodes[-1])] = [_merged(graph, run)]
    graph.nodes = [new for node in graph.nodes for new in instead.get(id(node), [node])]
    graph.prune()
    return len(runs)


def _runs(graph: Graph) -> list[Run]:
    """All runs, as long as they go: they end where somebody else reads a tensor too."""
    readers = Counter(name for node in graph.nodes for name in node.inputs)
    readers.update(value.name for value in graph.outputs)
    shapes = {v.name: v.shape for v in (*graph.values.values(), *graph.inputs)}
    runs: dict[str, Run] = {}  # by the tensor that a run makes so far
    for node in graph.nodes:
        free = [name for name in node.inputs if name not in graph.constants]
        part = _affine(graph, node, shapes.get(free[0], ())) if len(free) == 1 else None
        if part is None:
            continue
        x, top = free[0], node.outputs[0]
        shapes[top] = shapes[x]
        before = runs.pop(x) if x in runs and readers[x] == 1 else Run(x, [], [])
        before.nodes.append(node)
        before.parts.append(part)
        runs[top] = before
    return list(runs.values())


def _affine(graph: Graph, node: Node, shape: Shape) -> Affine | None:
    """What a node does to maps of `shape`, given that but one of its inputs is not constant."""
    if len(shape) < 3 or not isinstance(shape[1], int) or len(node.outputs) > 1:
        return None
    one, zero = np.ones(shape[1]), np.zeros(shape[1])
    if node.op == NORM:
        return _norm(graph, node)
    if node.op not in ("Mul", "Add", "Sub", "Div"):
        return None
    place = [name in graph.constants for name in node.inputs].index(True)
    c = _by_channel(graph.constants[node.inputs[place]], shape)
    if c is None or (node.op == "Div" and (place == 0 or not c.all())):
        return None
    if node.op == "Sub":
        return Affine(one, -c) if place else Affine(-one, c)
    return Affine(one, c) if node.op == "Add" else Affine(c if node.op == "Mul" else 1 / c, zero)


def _norm(graph: Graph, node: Node) -> Affine:
    scale, bias, mean, variance = (graph.constants[n].astype(np.float64) for n in node.inputs[1:])
    factor = scale / np.sqrt(variance + node.attributes.get("epsilon", 1e-5))
    return Affine(factor, bias - mean * factor)


def fold(graph: Graph, node: Node) -> None:
    """Give a BatchNormalization of constants a mean of 0 and a variance of 1."""
    if all(name in graph.constants for name in node.inputs[1:]):
        merged = _merged(graph, Run(node.inputs[0], [node], [_norm(graph, node)]))
        node.inputs, node.attributes = merged.inputs, merged.attributes


def _by_channel(array: np.ndarray, shape: Shape) -> np.ndarray | None:
    """A constant that is broadcast to `shape`, as one number a channel; None if it is more than that."""
    spread = (1,) * (len(shape) - array.ndim) + array.shape
    if (
        len(spread) != len(shape)
        or spread[1] not in (1, shape[1])
        or any(n != 1 for n in (spread[0], *spread[2:]))
    ):
        return None
    return np.broadcast_to(array.astype(np.float64).reshape(-1), (int(shape[1]),))


def _merged(graph: Graph, run: Run) -> Node:
    """One BatchNormalization, which makes what the run's last node does."""
    factor, term = reduce(Affine.then, run.parts)
    last = run.nodes[-1]
    parts = {"scale": factor, "bias": term, "mean": 0 * factor, "var": 0 * factor + (1 - EPSILON)}
    names = [Builder.fresh(f"{last.name}.{part}", graph.constants) for part in parts]
    graph.constants.update(zip(names, (a.astype(np.float32) for a in parts.values()), strict=True))
    return Node(NORM, [run.x, *names], last.outputs, {"epsilon": EPSILON}, last.name, last.layer)
