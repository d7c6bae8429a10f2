"""What an .onnx file says of its inputs, read where it lies, before a session takes seconds to load it."""

from __future__ import annotations

import os
from collections.abc import Iterator

from caffe_fcn.errors import CaffeError, CaffemodelError
from caffe_fcn.formats.files import map_file
from caffe_fcn.formats.wire import LENGTH, VARINT, Field, Scanner

# Numbers of onnx.proto: ModelProto.graph, GraphProto.input, ValueInfoProto.name and .type,
# TypeProto.tensor_type, its shape, TensorShapeProto.dim, Dimension.dim_value; GraphProto.initializer,
# TensorProto.data_type.
GRAPH, INPUT, NAME, TYPE, TENSOR, SHAPE, DIM, DIM_VALUE = 7, 11, 1, 2, 1, 2, 1, 1
INITIALIZER, DATA_TYPE, FLOAT16 = 5, 2, 10


def input_shapes(path: str | os.PathLike[str], data: bytes | None = None) -> dict[str, list[int | None]]:
    """The shape of each input; None for an extent that is left open.

    Args:
        path: the file, or what to call `data` in messages.
        data: its bytes, where they are at hand.

    Raises:
        CaffeError: there is no such file, or it is no ONNX model.
    """
    scan = Scanner(path, data or map_file(path, "an ONNX model"))  # type: ignore[arg-type]
    try:
        graph = next(_inside(scan, 0, len(scan.data), GRAPH))
        return dict(_input(scan, f) for f in _inside(scan, graph.start, graph.stop, INPUT))
    except (CaffemodelError, StopIteration, ValueError) as error:  # ValueError: an input of no name, or two
        raise CaffeError(
            f"{path}: is not an ONNX model", "convert-fcn makes one of a prototxt and its weights"
        ) from error


def holds_half(path: str | os.PathLike[str], data: bytes | None = None) -> bool:
    """Whether any weight is float16; of a file that `input_shapes` has read."""
    scan = Scanner(path, data or map_file(path, "an ONNX model"))  # type: ignore[arg-type]
    graph = next(_inside(scan, 0, len(scan.data), GRAPH))
    return any(
        f[:2] == (DATA_TYPE, VARINT) and f.value == FLOAT16
        for tensor in _inside(scan, graph.start, graph.stop, INITIALIZER)
        for f in scan.fields(tensor.start, tensor.stop, {})
    )


def _input(scan: Scanner, info: Field) -> tuple[str, list[int | None]]:
    (name,) = _inside(scan, info.start, info.stop, NAME)
    at = info
    for number in (TYPE, TENSOR, SHAPE):
        at = next(_inside(scan, at.start, at.stop, number), Field(number, LENGTH, 0, 0, 0))
    dims: list[int | None] = []
    for dim in _inside(scan, at.start, at.stop, DIM):
        values = [f.value for f in scan.fields(dim.start, dim.stop, {}) if f[:2] == (DIM_VALUE, VARINT)]
        dims.append(values[0] if values else None)
    return bytes(scan.data[name.start : name.stop]).decode("utf-8", "replace"), dims


def _inside(scan: Scanner, start: int, stop: int, number: int) -> Iterator[Field]:
    """The messages and strings of one number between two offsets."""
    return (f for f in scan.fields(start, stop, {}) if f.number == number and f.wire == LENGTH)
