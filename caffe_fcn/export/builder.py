"""Builder: what a layer's `to_onnx` is handed. Nodes, constants, and sizes that are known at run time only.

A layer writes its lowering once: it passes sizes as it computed them, and gets a constant where they are
numbers and a few nodes on the input's Shape where they are symbols.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any, Literal, overload

import numpy as np

from caffe_fcn.export.graph import Graph, Node, Value
from caffe_fcn.symbols import Atom, Extent, Shape, Size, Symbol, fixed, hint

__all__ = ["Builder", "Value"]

ONNX_TYPES = {
    np.float32: 1,
    np.uint8: 2,
    np.int32: 6,
    np.int64: 7,
    np.bool_: 9,
    np.float16: 10,
    np.float64: 11,
}


class Builder:
    def __init__(self, name: str, opset: int, reserved: Container[str] = ()) -> None:
        self.graph = Graph(name)
        self.reserved = reserved  # names that tensors are to get in the end, the blobs'
        self.opset = opset
        self.layer = ""  # the layer being lowered; its nodes are named after it
        self._sources: dict[str, tuple[str, int]] = {}  # symbol -> input, axis
        self._sizes: dict[Any, str] = {}  # an extent's key -> the tensor that holds it
        self._small: dict[Any, str] = {}  # small constants that are there already
        self._arrays: dict[Any, str] = {}  # where an array lies, its shape and strides -> its initializer
        self._serial = 0

    # --- tensors

    def input(self, name: str, shape: Shape, dtype: type = np.float32) -> Value:
        """An input of the graph; symbols of its shape are read from it at run time."""
        value = Value(name, shape, dtype)
        self.graph.inputs.append(value)
        for axis, n in enumerate(shape):
            if isinstance(n, Extent):
                self._sources.setdefault(str(n), (name, axis))
        return value

    def found(self, tensor: str, shape: Shape, axis: int, symbol: str) -> Value:
        """A tensor whose extent along `axis` depends on what the blobs hold; it is read at run time.

        `shape[axis]` stands for it in comparisons. Tensors that are alike there share a symbol.
        """
        self._sources.setdefault(symbol, (tensor, axis))
        return Value(tensor, (*shape[:axis], Extent.symbol(symbol, hint(shape[axis])), *shape[axis + 1 :]))

    def array(self, a: np.ndarray) -> str:
        """A constant that belongs to the lowering; equal small ones are stored once."""
        a = np.asarray(a)
        key = (a.dtype.str, a.shape, a.tobytes()) if a.size <= 64 else None
        if key is None or key not in self._small:
            self._serial += 1
            name = self._own(f"{self.layer}/const_{self._serial}" if key is None else f"const_{self._serial}")
            self.graph.constants[name] = a
            if key is None:
                return name
            self._small[key] = name
        return self._small[key]

    def param(self, blob: Any, name: str, array: np.ndarray | None = None) -> str:
        """The initializer of a layer's parameter `blob`, named `layer.name`; `array` if it is reshaped.

        The array is referred to, not copied. A shared parameter is stored once.
        """
        array = blob.data if array is None else array
        key = (array.__array_interface__["data"][0], array.shape, array.strides)
        if array.size == 0 or key not in self._arrays:
            full = self.fresh(self._own(f"{self.layer}.{name}"), self.graph.constants)
            self.graph.constants[full] = array
            self._arrays[key] = full
        return self._arrays[key]

    def scalar(self, v: float) -> str:
        """A float32 scalar."""
        return self.array(np.asarray(v, np.float32))

    def ints(self, sizes: Sequence[Size]) -> str:
        """A 1-D int64 tensor of sizes, known or not."""
        if not any(isinstance(n, Extent) for n in sizes):
            return self.array(np.asarray([fixed(n) for n in sizes], np.int64))
        parts: list[str] = []
        known: list[Size] = []
        for n in sizes:
            if isinstance(n, Extent):
                parts += [self.ints(known)] if known else []
                parts.append(self.size(n))
                known = []
            else:
                known.append(n)
        parts += [self.ints(known)] if known else []
        return parts[0] if len(parts) == 1 else self.op("Concat", *parts, axis=0)

    def size(self, n: Size) -> str:
        """One size as an int64 tensor of shape [1]; computed from the inputs' shapes if it is a symbol."""
        if not isinstance(n, Extent):
            return self.ints([n])
        if n.key not in self._sizes:
            self._sizes[n.key] = n.fold(self._atom, self._arithmetic("Mul"), self._arithmetic("Add"))
        return self._sizes[n.key]

    def count(self, n: Size) -> str:
        """One size as a float32 scalar, to divide by."""
        return self.reshape(self.cast(self.size(n)), ()) if isinstance(n, Extent) else self.scalar(n)

    def _arithmetic(self, op: str) -> Any:
        return lambda a, b: self.op(op, *(self.ints([x]) if isinstance(x, int) else x for x in (a, b)))

    def _atom(self, atom: Atom) -> str:
        if not isinstance(atom, Symbol):
            return self.op("Div", self.size(atom.of), self.ints([atom.by]))  # sizes are not negative
        name, axis = self._sources[atom.name]
        return self.op("Shape", name, start=axis, end=axis + 1)

    def fill(self, shape: Shape, value: float) -> str:
        """A float32 tensor of one value."""
        if not any(isinstance(n, Extent) for n in shape):
            return self.array(np.full(tuple(fixed(n) for n in shape), value, np.float32))
        return self.op("ConstantOfShape", self.ints(shape), value=np.asarray([value], np.float32))

    # --- nodes

    @overload
    def op(self, op: str, *inputs: Value | str, outputs: Literal[1] = 1, **attributes: Any) -> str: ...
    @overload
    def op(self, op: str, *inputs: Value | str, outputs: int, **attributes: Any) -> list[str]: ...
    def op(self, op: str, *inputs: Value | str, outputs: int = 1, **attributes: Any) -> str | list[str]:
        """Add one node; return the name of its output, or the names if `outputs` says several."""
        self._serial += 1
        stem = f"{self.layer}/{op}_{self._serial}"
        tops = [self._own(stem if outputs == 1 else f"{stem}_{i}") for i in range(outputs)]
        self.graph.nodes.append(Node(op, [str(i) for i in inputs], tops, attributes, stem, self.layer))
        return tops[0] if outputs == 1 else tops

    def cast(self, value: Value | str, dtype: type = np.float32) -> str:
        return self.op("Cast", value, to=ONNX_TYPES[dtype])

    def reduce(self, op: str, value: Value | str, axes: Sequence[int], keepdims: bool = True) -> str:
        """ReduceSum, ReduceMean, ReduceMax or ReduceMin over `axes`; over none, the value itself.

        The axes are an input of ReduceSum since opset 13 and of the others since 18; before, an attribute.
        """
        if not axes:  # an empty list means all of them to ONNX
            return str(value)
        if op == "ReduceSum" or self.opset >= 18:
            return self.op(op, value, self.ints(axes), keepdims=int(keepdims))
        return self.op(op, value, axes=list(axes), keepdims=int(keepdims))

    def reshape(self, value: Value | str, shape: Shape) -> str:
        """`value` in another shape of as many elements."""
        return self.op("Reshape", value, self.ints(shape), allowzero=1)

    def _own(self, name: str) -> str:
        """A name of the builder's own making, so that no blob is called so too."""
        while name in self.reserved:
            name += "_"
        return name

    @staticmethod
    def fresh(name: str, taken: Any) -> str:
        """`name`, or one of name_2, name_3 ... that is not taken: the first, if those before it are."""
        if name not in taken:
            return name
        low, high = 1, 2
        while f"{name}_{high}" in taken:
            low, high = high, 2 * high
        while high - low > 1:  # thousands may be taken
            middle = (low + high) // 2
            low, high = (middle, high) if f"{name}_{middle}" in taken else (low, middle)
        return f"{name}_{high}"
