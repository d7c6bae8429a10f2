"""Graph -> ONNX file. Tensors are streamed from where they lie: a 537 MB net is written without a copy of it.

The file is one ModelProto. Its small part (nodes, names, metadata) goes through onnx's own classes; the
initializers are appended to the graph field on the wire, header and raw bytes one after the other, which
protobuf allows: fields may come in any order.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

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
    size = sum(array.nbytes for array in graph.constants.values())
    model = _model(graph, opset, ir_version)
    outside = [n for n, a in graph.constants.items() if a.nbytes >= 1024] if external or size > LIMIT else []
    target = Path(path)
    if not outside:
        with atomic_write(target) as file:
            return _write_model(file, model, [_tensor(n, a) for n, a in graph.constants.items()], progress)
    data = target.with_name(target.name + ".data")
    with atomic_write(data) as side, atomic_write(target) as file:
        tensors: list[tuple[onnx.TensorProto, np.ndarray | None]] = []
        for name, array in graph.constants.items():
            if name in outside:
                tensors.append((_outside(name, array, side, data.name, progress), None))
            else:
                tensors.append(_tensor(name, array))
        return _write_model(file, model, tensors, progress) + side.tell()


def to_model(graph: Graph, opset: int, ir_version: int = IR_VERSION) -> onnx.ModelProto:
    """The whole model in memory, for small graphs and for onnx's checker."""
    model = _model(graph, opset, ir_version)
    for name, array in graph.constants.items():
        tensor, data = _tensor(name, array)
        tensor.raw_data = b"".join(_pieces(data))
        model.graph.initializer.append(tensor)
    return model


def _model(graph: Graph, opset: int, ir_version: int) -> onnx.ModelProto:
    if opset not in OPSETS:
        raise CaffeError(f"opset {opset} is not one of {OPSETS.start} to {OPSETS.stop - 1}")
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


def _tensor(name: str, array: np.ndarray) -> tuple[onnx.TensorProto, np.ndarray]:
    """A TensorProto without its bytes, and the array that holds these."""
    return onnx.TensorProto(name=name, dims=array.shape, data_type=ONNX_TYPES[array.dtype.type]), array


def _outside(name: str, array: np.ndarray, side: BinaryIO, location: str, progress: Any) -> onnx.TensorProto:
    """Append an array to the side file; the TensorProto that points at it."""
    side.write(b"\0" * (-side.tell() % 4096))  # page-aligned, so that readers can map it
    start = side.tell()
    _copy(array, side, progress)
    tensor, _ = _tensor(name, array)
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", start), ("length", side.tell() - start)):
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def _write_model(file: BinaryIO, model: onnx.ModelProto, tensors: list[Any], progress: Any) -> int:
    """The model, its graph field made of the graph's own bytes and of each tensor's."""
    body = model.graph.SerializeToString()
    headers = []
    for tensor, data in tensors:
        header = tensor.SerializeToString()
        raw = 0 if data is None else data.nbytes
        tail = b"" if data is None else encode_head(RAW_FIELD, raw)
        head = encode_head(INITIALIZER_FIELD, len(header) + len(tail) + raw) + header + tail
        headers.append((head, data))
    length = len(body) + sum(len(head) + (0 if data is None else data.nbytes) for head, data in headers)
    model.ClearField("graph")
    file.write(model.SerializeToString() + encode_head(GRAPH_FIELD, length) + body)
    for head, data in headers:
        file.write(head)
        if data is not None:
            _copy(data, file, progress)
    return file.tell()


def _copy(array: np.ndarray, file: BinaryIO, progress: Any) -> None:
    for piece in _pieces(array):
        file.write(piece)
        if progress:
            progress(len(piece))


def _pieces(array: np.ndarray) -> Iterator[memoryview]:
    """The array's bytes in order, a chunk at a time; no copy if it lies in one piece."""
    if array.flags.c_contiguous:
        flat = array.reshape(-1).view(np.uint8) if array.size else np.empty(0, np.uint8)
        yield from (flat[i : i + CHUNK].data for i in range(0, flat.size, CHUNK))
        return
    rows = max(1, CHUNK // max(1, array[:1].nbytes))
    for i in range(0, len(array), rows):
        yield np.ascontiguousarray(array[i : i + rows]).reshape(-1).view(np.uint8).data
