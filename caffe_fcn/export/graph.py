"""The ONNX graph as plain data: what the builder makes, the passes rewrite and `write` puts into a file.

Arrays are referred to, never copied: an initializer may be a view into a mapped caffemodel.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from caffe_fcn.symbols import Shape


class Value(NamedTuple):
    """A tensor of the graph. Its shape is the net's, never ONNX's inference."""

    name: str
    shape: Shape
    dtype: type = np.float32

    def __str__(self) -> str:
        return self.name


@dataclass
class Node:
    op: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, Any] = field(default_factory=dict)
    name: str = ""
    layer: str = ""  # the Caffe layer that it belongs to


@dataclass
class Graph:
    name: str
    inputs: list[Value] = field(default_factory=list)
    outputs: list[Value] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    values: dict[str, Value] = field(default_factory=dict)  # every blob, under its tensor's name
    rounded: set[str] = field(default_factory=set)  # constants that are float16 in the file
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """Bytes of the constants in the file."""
        return sum(a.nbytes // (2 if n in self.rounded else 1) for n, a in self.constants.items())

    def consumers(self, name: str) -> list[Node]:
        """The nodes that read a tensor."""
        return [node for node in self.nodes if name in node.inputs]

    def names(self) -> set[str]:
        """Of every tensor."""
        made = {name for node in self.nodes for name in node.outputs}
        return made | {v.name for v in self.inputs} | self.constants.keys()

    def rename(self, names: dict[str, str]) -> None:
        """Give tensors other names, everywhere."""
        for node in self.nodes:
            node.inputs = [names.get(n, n) for n in node.inputs]
            node.outputs = [names.get(n, n) for n in node.outputs]
        self.inputs = [v._replace(name=names.get(v.name, v.name)) for v in self.inputs]
        self.outputs = [v._replace(name=names.get(v.name, v.name)) for v in self.outputs]
        self.values = {names.get(n, n): v._replace(name=names.get(n, n)) for n, v in self.values.items()}
        self.constants = {names.get(n, n): a for n, a in self.constants.items()}
        self.rounded = {names.get(n, n) for n in self.rounded}

    def prune(self, keep: Iterable[str] = ()) -> None:
        """Drop the nodes and constants that no output (and nothing in `keep`) depends on."""
        wanted = {v.name for v in self.outputs} | set(keep)
        kept: list[Node] = []
        for node in reversed(self.nodes):
            if wanted.intersection(node.outputs):
                wanted.update(node.inputs)
                kept.append(node)
        self.nodes = kept[::-1]
        self.constants = {n: a for n, a in self.constants.items() if n in wanted}
        made = {n for node in self.nodes for n in node.outputs} | {v.name for v in self.inputs}
        self.values = {n: v for n, v in self.values.items() if n in made}
