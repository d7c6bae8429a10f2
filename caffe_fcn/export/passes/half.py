"""Half precision: weights and arithmetic in float16, inputs and outputs still float32. Not exact: on request.

Tensor cores multiply float16 several times as fast, and half as many bytes are moved. Casts stand where the
two meet: behind the inputs, before the outputs, and around nodes that stay float32. These are nodes whose
sums or powers leave float16's range (LRN, Softmax, Exp, reductions ...), what --preprocess adds, and the
layers to keep.

Weights are rounded as they are written, a piece at a time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import onnx

from caffe_fcn.errors import CaffeError, nearest
from caffe_fcn.export.builder import ONNX_TYPES, Builder
from caffe_fcn.export.graph import Graph, Node, Value
from caffe_fcn.export.write import to_model

NAME = "half"

#: What is computed in float16: products (which are summed in float32), comparisons and moves.
ROUNDED = frozenset(
    [
        *("Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization", "Add", "Sub", "Mul", "Sum", "Max"),
        *("Relu", "LeakyRelu", "PRelu", "Elu", "Sigmoid", "Tanh", "MaxPool", "AveragePool", "ArgMax"),
        *("GlobalMaxPool", "GlobalAveragePool", "Concat", "Slice", "Split", "Gather", "Expand", "Reshape"),
        *("Transpose", "Flatten", "Squeeze", "Unsqueeze", "Pad", "Tile", "Identity", "ConstantOfShape"),
        *("DepthToSpace", "SpaceToDepth"),
    ]
)


def apply(graph: Graph, keep: Iterable[str] = (), opset: int = 17) -> int:
    """Round all that may be rounded but for the layers `keep`; returns how many nodes compute in float16.

    Raises CaffeError for a name in `keep` that is no layer's.
    """
    layers = {node.layer for node in graph.nodes}
    for name in keep:
        if name not in layers:
            raise CaffeError(f"--keep-fp32: no layer '{name}' in the exported net", nearest(name, layers))
    floats = _floats(graph, opset)
    stay = {"preprocess", *keep}
    rounded = [
        node
        for node in graph.nodes
        if node.op in ROUNDED
        and node.layer not in stay
        and floats.intersection((*node.inputs, *node.outputs))
    ]
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


class _Rounding:
    """One graph's rewrite. A tensor has a twin in the other precision where both are read."""

    def __init__(self, graph: Graph, floats: set[str], rounded: list[Node]) -> None:
        self.graph, self.floats = graph, floats
        self.rounded = {id(node) for node in rounded}
        made = {name for node in rounded for name in node.outputs} & floats
        self.read = {n for node in graph.nodes if id(node) not in self.rounded for n in node.inputs}
        self.read.update(value.name for value in graph.outputs)  # in float32
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
            if rounded and node.op == "ConstantOfShape":
                node.attributes = {"value": node.attributes["value"].astype(np.float16)}
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
