"""Half precision: weights and arithmetic in float16, inputs and outputs still float32. Not exact: on request.

Tensor cores multiply float16 several times as fast, and half as many bytes are moved. What computes in
float16 follows from the graph alone, by three rules:

- Products with weights do: Conv, ConvTranspose, Gemm, MatMul. They are summed in float32.
- Moves, comparisons and simple arithmetic do where all that they read is in float16 already. So what a
  network adds to its features is fast, while boxes, regions and whatever else comes in float32 stays so.
- A layer of which any other node computes in float32 does so as a whole: powers, reductions and squares (LRN,
  MVN, Normalize, Softmax ...) leave float16's range, which ends at 65504; coordinates and indices beyond
  2048, as in detectors, its precision.

Layers asked for stay in float32, and so do those whose weights float16 cannot hold, with a warning. Casts
stand where the two meet. Weights are rounded as they are written, a piece at a time.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import onnx

from caffe_fcn.errors import CaffeError, CaffeWarning, nearest
from caffe_fcn.export.builder import ONNX_TYPES, Builder
from caffe_fcn.export.graph import Graph, Node, Value
from caffe_fcn.export.passes import merge_affine
from caffe_fcn.export.write import to_model

NAME = "half"

PRODUCTS = frozenset(("Conv", "ConvTranspose", "Gemm", "MatMul"))
MOVES = frozenset(
    [
        *("Concat", "Slice", "Split", "Gather", "Expand", "Reshape", "Transpose", "Flatten", "Squeeze"),
        *("Unsqueeze", "Pad", "Tile", "Identity", "DepthToSpace", "SpaceToDepth"),
    ]
)
BOUNDED = frozenset(("Sigmoid", "Tanh"))  # by 1, so that a product with them is no larger than its factor
FOLLOWING = frozenset(
    [
        *MOVES,
        *BOUNDED,
        *("BatchNormalization", "Add", "Sub", "Mul", "Sum", "Max", "Min", "Abs", "Neg", "Clip", "ArgMax"),
        *(
            "Relu",
            "LeakyRelu",
            "PRelu",
            "Elu",
            "MaxPool",
            "AveragePool",
            "GlobalMaxPool",
            "GlobalAveragePool",
        ),
    ]
)
EITHER = frozenset(("Shape", "Cast"))  # read both precisions alike
#: The largest number of a weight: above, it would be infinite; below, it would have fewer digits than others.
LEAST, LARGEST = 2.0**-14, float(np.finfo(np.float16).max)
BLOCK = 1 << 18  # numbers looked at a time


def apply(graph: Graph, keep: Iterable[str] = (), opset: int = 17) -> int:
    """Round all that may be rounded but for the layers `keep`; returns how many nodes compute in float16.

    Warns of layers whose weights do not fit. Raises CaffeError for a name in `keep` that is no layer's.
    """
    layers = {node.layer for node in graph.nodes}
    for name in keep:
        if name not in layers:
            hint = nearest(name, layers) or "layers that were merged go by the last one's name"
            raise CaffeError(f"--keep-fp32: no layer '{name}' in the exported net", hint)
    stay = set(keep)
    for node in graph.nodes:
        if node.op == merge_affine.NORM and node.layer not in stay:
            merge_affine.fold(graph, node)  # variances may be far larger than what they make of the weights
    floats = _floats(graph, opset)
    stay.update(_delicate(graph, floats))
    stay.update(_misfits(graph, _rounded(graph, floats, stay)))
    rounded = _rounded(graph, floats, stay)
    _Rounding(graph, floats, rounded).run()
    graph.prune()
    return len(rounded)


def _floats(graph: Graph, opset: int) -> set[str]:
    """The tensors of float32; what nodes make is inferred by onnx."""
    constants = [Value(name, array.shape, array.dtype.type) for name, array in graph.constants.items()]
    bare = replace(graph, inputs=[*graph.inputs, *constants], constants={}, metadata={}, values={})
    body = onnx.shape_inference.infer_shapes(to_model(bare, opset)).graph
    known = {v.name: v.type.tensor_type.elem_type for v in (*body.input, *body.value_info, *body.output)}
    for node in graph.nodes:
        for name in node.outputs:
            if not known.get(name):
                raise CaffeError(f"--fp16: the type of '{name}' ({node.op}) is not known")
    return {name for name, kind in known.items() if kind == ONNX_TYPES[np.float32]}


def _computed(graph: Graph, node: Node, floats: set[str]) -> list[str]:
    """The floats that a node reads and that depend on the image, one as often as it is read."""
    return [name for name in node.inputs if name in floats and name not in graph.constants]


def _delicate(graph: Graph, floats: set[str]) -> Iterator[str]:
    """The layers with a node for which float16's range or precision may not do."""
    bounded: set[str] = set()
    for node in graph.nodes:
        computed = _computed(graph, node, floats)
        if node.op in BOUNDED or (node.op in MOVES and computed and bounded.issuperset(computed)):
            bounded.update(node.outputs)
        if node.op in EITHER or not floats.intersection((*node.inputs, *node.outputs)):
            continue
        free = [name for name in computed if name not in bounded]
        multiplies = node.op in PRODUCTS or node.op in ("Mul", merge_affine.NORM)
        if node.op not in PRODUCTS | FOLLOWING or (multiplies and len(free) > 1):
            yield node.layer


def _rounded(graph: Graph, floats: set[str], stay: set[str]) -> list[Node]:
    """The nodes that compute in float16, if those of the layers `stay` do not."""
    half: set[str] = set()
    found = []
    for node in graph.nodes:
        computed = _computed(graph, node, floats)
        follows = node.op in FOLLOWING and computed and half.issuperset(computed)
        if node.layer not in stay and (node.op in PRODUCTS or follows):
            found.append(node)
            half.update(floats.intersection(node.outputs))
    return found


def _misfits(graph: Graph, rounded: Iterable[Node]) -> Iterator[str]:
    """The layers among those of `rounded` with a constant that float16 cannot hold, each with a warning."""
    seen: dict[str, float] = {}
    for node in rounded:
        for name in node.inputs:
            array = graph.constants.get(name)
            if array is None or array.dtype != np.float32:
                continue
            if name not in seen:
                seen[name] = _largest(array)
            if seen[name] and not LEAST <= seen[name] <= LARGEST:
                beyond = f"more than {LARGEST:g}" if seen[name] > LARGEST else f"less than {LEAST:.1g}"
                warnings.warn(
                    f"--fp16: layer '{node.layer}' stays in float32: the largest number of '{name}' is "
                    f"{seen[name]:g}, {beyond}",
                    CaffeWarning,
                    stacklevel=3,
                )
                yield node.layer


def _largest(array: np.ndarray) -> float:
    """The largest absolute value, read a block at a time: the array may be a file."""
    flat = array.reshape(-1)
    blocks = (flat[i : i + BLOCK] for i in range(0, flat.size, BLOCK))
    return max((float(max(block.max(), -block.min())) for block in blocks), default=0.0)


class _Rounding:
    """One graph's rewrite. A tensor has a twin in the other precision where both are read."""

    def __init__(self, graph: Graph, floats: set[str], rounded: list[Node]) -> None:
        self.graph, self.floats = graph, floats
        self.rounded = {id(node) for node in rounded}
        made = {name for node in rounded for name in node.outputs} & floats
        others = (n for n in graph.nodes if id(n) not in self.rounded and n.op not in EITHER)
        self.read = {name for node in others for name in node.inputs}  # in float32
        self.read.update(value.name for value in graph.outputs)
        self.taken = floats | set(graph.constants)
        self.half = {name: self._twin(name) if name in self.read else name for name in made}
        self.nodes: list[Node] = []

    def run(self) -> None:
        for node in self.graph.nodes:
            rounded = id(node) in self.rounded
            if rounded:
                node.inputs = [self._half(name) for name in node.inputs]
            self.nodes.append(node)
            for name in node.outputs if rounded else ():
                if name in self.half and self.half[name] != name:
                    self._cast(self.half[name], name, np.float32, node.layer)
            node.outputs = [self.half.get(name, name) for name in node.outputs] if rounded else node.outputs
        self.graph.nodes = self.nodes
        for name, value in self.graph.values.items():
            if self.half.get(name) == name:
                self.graph.values[name] = value._replace(dtype=np.float16)

    def _half(self, name: str) -> str:
        """The name of a tensor's float16 form; made if it is not there yet."""
        if name not in self.floats or name in self.half:
            return self.half.get(name, name)
        constants = self.graph.constants
        twin = name if name in constants and name not in self.read else self._twin(name)
        if name in constants:
            constants[twin] = constants[name]
            self.graph.rounded.add(twin)
        else:
            self._cast(name, twin, np.float16, "")
        self.half[name] = twin
        return twin

    def _twin(self, name: str) -> str:
        twin = Builder.fresh(f"{name}/half", self.taken)
        self.taken.add(twin)
        return twin

    def _cast(self, x: str, top: str, dtype: type, layer: str) -> None:
        self.nodes.append(Node("Cast", [x], [top], {"to": ONNX_TYPES[dtype]}, f"{top}/Cast", layer))
