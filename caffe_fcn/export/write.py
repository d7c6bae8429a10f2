"""Graph -> ONNX file. Tensors are streamed from where they lie: a 537 MB net is written without a copy of it.

The file is one ModelProto. Its small part (nodes, names, metadata) goes through onnx's own classes; the
initializers are appended to the graph field on the wire, header and raw bytes one after the other, which
protobuf allows: fields may come in any order.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import onnx
from onnx import helper

import caffe_fcn
from caffe_fcn.errors import CaffeError
from caffe_fcn.export.builder import ONNX_TYPES
from caffe_fcn.export.graph import Graph, Node, Value
from caffe_fcn.formats.files import atomic_write
from caffe_fcn.formats.wire import encode_head
from caffe_fcn.symbols import Extent

IR_VERSION = (
    9  # what onnxruntime from 1.15 on reads; onnx's own default is newer than any onnxruntime accepts
)
OPSETS = range(17, 21)
IR_VERSIONS = range(8, onnx.IR_VERSION + 1)  # 8 came with opset 15
LIMIT = 2**31 - 2**20  # protobuf reads messages of up to 2 GiB
CHUNK = 1 << 24

GRAPH_FIELD, INITIALIZER_FIELD, RAW_FIELD = 7, 5, 9  # of ModelProto, GraphProto, TensorProto


def write(
    graph: Graph,
    path: str | os.PathLike[str],
    *,
    opset: int,
    ir_version: int = IR_VERSION,
    external: bool = False,
    progress: Any = None,
) -> int:
    """Write `graph` to `path` under a temporary name that is renamed when the file is whole.

    With `external`, or above protobuf's 2 GB, tensors of 1 kB and more go to `path` + ".data" beside it.
    `progress` is called with the number of bytes written. Returns the size of what was written, in bytes.

    Raises:
        CaffeError: the path cannot be written; nothing is left behind.
    """
    model, tensors = _model(graph, opset, ir_version), _tensors(graph)
    outside = [t.name for t in tensors if t.nbytes >= 1024] if external or graph.nbytes > LIMIT else []
    target = Path(path)
    if not outside:
        with atomic_write(target) as file:
            return _write_model(file, model, [(t.header(), t) for t in tensors], progress)
    data = target.with_name(target.name + ".data")
    with atomic_write(data) as side, atomic_write(target) as file:
        parts: list[tuple[onnx.TensorProto, Tensor | None]] = []
        for tensor in tensors:
            if tensor.name in outside:
                parts.append((_outside(tensor, side, data.name, progress), None))
            else:
                parts.append((tensor.header(), tensor))
        return _write_model(file, model, parts, progress) + side.tell()


def to_model(graph: Graph, opset: int, ir_version: int = IR_VERSION) -> onnx.ModelProto:
    """The whole model in memory, for small graphs and for onnx's checker."""
    model = _model(graph, opset, ir_version)
    for tensor in _tensors(graph):
        proto = tensor.header()
        proto.raw_data = b"".join(tensor.pieces())
        model.graph.initializer.append(proto)
    return model


class Tensor(NamedTuple):
    """A constant as it is written."""

    name: str
    array: np.ndarray
    dtype: np.dtype

    @property
    def nbytes(self) -> int:
        return self.array.size * self.dtype.itemsize

    def header(self) -> onnx.TensorProto:
        """All but the bytes."""
        data_type = ONNX_TYPES[self.dtype.type]
        return onnx.TensorProto(name=self.name, dims=self.array.shape, data_type=data_type)

    def pieces(self) -> Iterator[memoryview]:
        """The bytes in order, a chunk at a time; no copy if they lie there in one piece."""
        rows = self.array.reshape(-1) if self.array.flags.c_contiguous else self.array
        step = max(1, CHUNK // max(1, rows[:1].nbytes))
        for i in range(0, len(rows) if rows.size else 0, step):
            yield self._converted(rows[i : i + step]).reshape(-1).view(np.uint8).data

    def _converted(self, part: np.ndarray) -> np.ndarray:
        try:
            with np.errstate(over="raise"):
                return np.ascontiguousarray(part, self.dtype)
        except FloatingPointError as error:
            problem = f"'{self.name}' holds {np.abs(part).max():g}, more than float16 can"
            raise CaffeError(problem, "keep its layer with --keep-fp32") from error


def _tensors(graph: Graph) -> list[Tensor]:
    half = np.dtype(np.float16)
    return [Tensor(n, a, half if n in graph.rounded else a.dtype) for n, a in graph.constants.items()]


def _model(graph: Graph, opset: int, ir_version: int) -> onnx.ModelProto:
    if opset not in OPSETS:
        raise CaffeError(f"opset {opset} is not one of {OPSETS.start} to {OPSETS.stop - 1}")
    if ir_version not in IR_VERSIONS:
        known = f"{IR_VERSIONS.start} to {IR_VERSIONS.stop - 1}"
        raise CaffeError(f"IR version {ir_version} is not one of {known}")
    outputs = {v.name for v in graph.outputs}
    body = helper.make_graph(
        [_node(node) for node in graph.nodes],
        graph.name or "net",
        [_info(v) for v in graph.inputs],
        [_info(v) for v in graph.outputs],
        value_info=[_info(v) for v in graph.values.values() if v.name not in outputs],
    )
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)
    model.producer_name, model.producer_version = "caffe-fcn", caffe_fcn.__version__
    helper.set_model_props(model, graph.metadata)
    return model


def _node(node: Node) -> onnx.NodeProto:
    attributes: dict[str, Any] = {
        k: onnx.numpy_helper.from_array(v) if isinstance(v, np.ndarray) else v
        for k, v in node.attributes.items()
    }
    return helper.make_node(node.op, node.inputs, node.outputs, name=node.name, **attributes)


def _info(value: Value) -> onnx.ValueInfoProto:
    dims = [str(n) if isinstance(n, Extent) else int(n) for n in value.shape]
    return helper.make_tensor_value_info(value.name, ONNX_TYPES[value.dtype], dims)


def _outside(tensor: Tensor, side: BinaryIO, location: str, progress: Any) -> onnx.TensorProto:
    """Append a tensor to the side file; the TensorProto that points at it."""
    side.write(b"\0" * (-side.tell() % 4096))  # page-aligned, so that readers can map it
    start = side.tell()
    _copy(tensor, side, progress)
    proto = tensor.header()
    proto.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", start), ("length", side.tell() - start)):
        proto.external_data.add(key=key, value=str(value))
    return proto


def _write_model(
    file: BinaryIO,
    model: onnx.ModelProto,
    tensors: Sequence[tuple[onnx.TensorProto, Tensor | None]],
    progress: Any,
) -> int:
    """The model, its graph field made of the graph's own bytes and of each tensor's."""
    body = model.graph.SerializeToString()
    heads = []
    for proto, tensor in tensors:
        header = proto.SerializeToString()
        raw = tensor.nbytes if tensor else 0
        tail = encode_head(RAW_FIELD, raw) if tensor else b""
        heads.append(encode_head(INITIALIZER_FIELD, len(header) + len(tail) + raw) + header + tail)
    length = len(body) + sum(map(len, heads)) + sum(t.nbytes for _, t in tensors if t)
    model.ClearField("graph")
    file.write(model.SerializeToString() + encode_head(GRAPH_FIELD, length) + body)
    for head, (_, tensor) in zip(heads, tensors, strict=True):
        file.write(head)
        if tensor:
            _copy(tensor, file, progress)
    return file.tell()


def _copy(tensor: Tensor, file: BinaryIO, progress: Any) -> None:
    for piece in tensor.pieces():
        file.write(piece)
        if progress:
            progress(len(piece))
