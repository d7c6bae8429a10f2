"""A view of an .onnx file that also outputs its inner blobs; the weights stay in the file.

onnxruntime gives only what a graph declares as output. The probe is the file's own graph with every value
that it names declared so, and with each initializer pointing at its bytes in the file itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import onnx

from caffe_fcn.formats.files import map_file
from caffe_fcn.formats.wire import LENGTH, Scanner

GRAPH, INITIALIZER, RAW_DATA = 7, 5, 9
SMALL = 1024  # bytes; smaller tensors, shapes among them, have to be in the graph


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
