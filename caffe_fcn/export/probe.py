"""A view of an .onnx file that also outputs its inner blobs; the weights stay in the file.

onnxruntime gives only what a graph declares as output. The probe is the file's own graph with every value
that it names declared so, and with each initializer pointing at its bytes in the file itself.

A processor that does not multiply float16 gets each weight as a float32 copy, all of it at once. A large
weight is therefore read in pieces, each of them the rows that make some of the channels.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

import onnx

from caffe_fcn.formats.files import map_file
from caffe_fcn.formats.wire import LENGTH, Scanner

GRAPH, INITIALIZER, RAW_DATA = 7, 5, 9
SMALL = 1024  # bytes; smaller tensors, shapes among them, have to be in the graph
PIECE = 1 << 21  # numbers of a float16 weight that are read at a time


def write_probe(path: str | os.PathLike[str], probe: str | os.PathLike[str]) -> list[str]:
    """Write the probe of the model at `path` into the same folder; returns what it outputs beyond the model.

    Raises CaffemodelError if the file is no ONNX model.
    """
    data = map_file(path, "an ONNX model")
    scan = Scanner(path, data)
    model = onnx.ModelProto()
    for number, wire, head, start, stop in _fields(scan, 0, len(data)):
        if number != GRAPH or wire != LENGTH:
            model.MergeFromString(data[head:stop])
            continue
        for inner, _, inner_head, inner_start, inner_stop in _fields(scan, start, stop):
            if inner == INITIALIZER:
                tensor = _pointing(scan, inner_start, inner_stop, Path(path).name)
                model.graph.initializer.append(tensor)
            else:
                model.graph.MergeFromString(data[inner_head:inner_stop])
    shown = {value.name for value in model.graph.output}
    added = [v for v in model.graph.value_info if v.name not in shown]
    model.graph.output.extend(added)
    del model.graph.value_info[:]
    _split(model.graph)
    Path(probe).write_bytes(model.SerializeToString())
    return [v.name for v in added]


def _fields(scan: Scanner, start: int, stop: int) -> Iterator[tuple[int, int, int, int, int]]:
    """(number, wire type, where its tag starts, where its bytes start and stop) of every field."""
    head = start
    for field in scan.fields(start, stop, {}):
        yield field.number, field.wire, head, field.start, field.stop
        head = field.stop


def _pointing(scan: Scanner, start: int, stop: int, location: str) -> onnx.TensorProto:
    """The tensor of an initializer, its bytes left where they are if there are many."""
    tensor = onnx.TensorProto()
    for number, _, head, first, last in _fields(scan, start, stop):
        if number != RAW_DATA or last - first < SMALL:
            tensor.MergeFromString(scan.data[head:last])
            continue
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", first), ("length", last - first)):
            tensor.external_data.add(key=key, value=str(value))
    return tensor


def _split(graph: onnx.GraphProto) -> None:
    """Make several nodes of each that multiplies by a float16 weight of more than PIECE numbers."""
    weights = {t.name: t for t in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        attributes = {a.name: a.i for a in node.attribute}
        rows = (node.op_type == "Conv" and attributes.get("group", 1) == 1) or attributes.get("transB") == 1
        weight = weights.get(node.input[1], onnx.TensorProto()) if rows else onnx.TensorProto()
        large = weight.data_type == onnx.TensorProto.FLOAT16
        count = min(weight.dims[0], -(-math.prod(weight.dims) // PIECE)) if large else 1
        nodes += _pieces(graph, node, weights, count) if count > 1 else [node]
    del graph.node[:]
    graph.node.extend(nodes)


def _pieces(
    graph: onnx.GraphProto, node: onnx.NodeProto, weights: dict[str, onnx.TensorProto], count: int
) -> list[onnx.NodeProto]:
    """Nodes that each make some of a node's channels, and the one that puts them together."""
    total, nodes = weights[node.input[1]].dims[0], []
    for i in range(count):
        piece = onnx.NodeProto()
        piece.CopyFrom(node)
        piece.name, piece.output[0] = f"{node.name}/{i}", f"{node.output[0]}/{i}"
        for k in range(1, len(node.input)):
            part = _rows(weights[node.input[k]], total * i // count, total * (i + 1) // count)
            piece.input[k] = part.name = f"{node.name}/{k}/{i}"
            graph.initializer.append(part)
        nodes.append(piece)
    return [*nodes, onnx.helper.make_node("Concat", [n.output[0] for n in nodes], node.output, axis=1)]


def _rows(tensor: onnx.TensorProto, start: int, stop: int) -> onnx.TensorProto:
    """Some rows of a float16 tensor, where they lie."""
    row = 2 * math.prod(tensor.dims[1:])
    part = onnx.TensorProto(dims=[stop - start, *tensor.dims[1:]], data_type=tensor.data_type)
    if tensor.data_location != onnx.TensorProto.EXTERNAL:
        part.raw_data = tensor.raw_data[start * row : stop * row]
        return part
    told = {entry.key: entry.value for entry in tensor.external_data}
    told |= {"offset": str(int(told["offset"]) + start * row), "length": str((stop - start) * row)}
    part.data_location = onnx.TensorProto.EXTERNAL
    for key, value in told.items():
        part.external_data.add(key=key, value=value)
    return part
