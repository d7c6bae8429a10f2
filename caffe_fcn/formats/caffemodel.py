"""Weights in Caffe's binary form: mapped into memory and checked before anything is handed out; and written.

A .caffemodel is a NetParameter. Only the names, types and blobs of its layers are read, in the three forms
that a file may have them: `layer` (today), `layers` (V1) and `layers` with a `layer` inside (V0).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from caffe_fcn.errors import CaffemodelError
from caffe_fcn.formats.blobs import MAX_BYTES, StoredBlob, StoredLayer, blob_head, parse_blob, write_values
from caffe_fcn.formats.caffe_pb2 import DESCRIPTOR
from caffe_fcn.formats.files import atomic_write, legible, map_file, refuse_other_kinds
from caffe_fcn.formats.wire import LENGTH, VARINT, Field, Scanner, encode_bytes, encode_head

__all__ = ["Caffemodel", "StoredBlob", "StoredLayer", "read", "write"]

_MAX_NAME = 1 << 16


class _Form(NamedTuple):
    """The field numbers of a layer message."""

    name: int
    type: int
    blobs: int
    type_wire: int = LENGTH

    def known(self) -> dict[int, tuple[str, tuple[int, ...]]]:
        return {
            self.name: ("name", (LENGTH,)),
            self.type: ("type", (self.type_wire,)),
            self.blobs: ("blobs", (LENGTH,)),
        }


_LAYER, _V1, _V0 = _Form(1, 2, 7), _Form(4, 5, 6, VARINT), _Form(1, 2, 50)
_NET = {1: ("name", (LENGTH,)), 2: ("layers", (LENGTH,)), 100: ("layer", (LENGTH,))}
_INSIDE_V1 = {1: ("layer", (LENGTH,))}


class Caffemodel(list[StoredLayer]):
    """The layers of a file, in its order, with the net's name."""

    name = ""


def read(path: str | os.PathLike[str]) -> Caffemodel:
    """Every layer of a .caffemodel, also those without blobs.

    The file is mapped, not read: opening costs milliseconds, the blobs' values are loaded as they are used.
    CaffemodelError, naming byte and layer, for whatever is not a whole and consistent NetParameter.
    """
    data = map_file(path, "a caffemodel")
    refuse_other_kinds(path, data, "a caffemodel")
    scanner = Scanner(path, data)
    net = Caffemodel()
    known = False
    for field in scanner.fields(0, len(data), _NET):
        if field.number == 1:
            net.name = _text(scanner, field)
        elif field.number in (2, 100):
            net.append(_parse_layer(scanner, field, len(net)))
            scanner.where = f"after {_label(len(net) - 1, net[-1].name)}"
        known = known or field.number in _NET
    if not known:
        raise CaffemodelError(f"{path}: holds neither layers nor a net's name: not a caffemodel")
    return net


def _parse_layer(scanner: Scanner, outer: Field, index: int) -> StoredLayer:
    scanner.where = _label(index, "")
    spans, form = [(outer.start, outer.stop)], _LAYER
    if outer.number == 2:
        inside = [f[2:4] for f in scanner.fields(outer.start, outer.stop, _INSIDE_V1) if f.number == 1]
        spans, form = (inside, _V0) if inside else (spans, _V1)
    name = type_ = ""
    blobs: list[Field] = []
    for field in (field for span in spans for field in scanner.fields(*span, form.known())):
        if field.number == form.name:
            name = _text(scanner, field)
            scanner.where = _label(index, name)
        elif field.number == form.type:
            type_ = _v1_type(field.value) if form is _V1 else _text(scanner, field)
        elif field.number == form.blobs:
            blobs.append(field)
    layer = StoredLayer(name, type_, [])
    for i, blob in enumerate(blobs):
        scanner.where = f"{_label(index, name)}, blob {i}"
        layer.blobs.append(parse_blob(scanner, blob.start, blob.stop))
    return layer


def _label(index: int, name: str) -> str:
    return f"layer {index} {name[:80]!r}" if name else f"layer {index}"


def _text(scanner: Scanner, field: Field) -> str:
    if field.stop - field.start > _MAX_NAME:
        raise scanner.error(field.start, f"a name of {field.stop - field.start:,} bytes: the file is damaged")
    return legible(scanner.data[field.start : field.stop])


def _v1_type(number: int) -> str:
    types = DESCRIPTOR.message_types_by_name["V1LayerParameter"].enum_types_by_name["LayerType"]
    known = types.values_by_number.get(number)
    return known.name if known else str(number)  # a fork's own


def write(
    path: str | os.PathLike[str], name: str, layers: Iterable[tuple[str, str, Sequence[np.ndarray]]]
) -> None:
    """Write a .caffemodel of (name, type, arrays) in today's form: each array's shape and packed float32.

    `layers` may be a generator: an array is written before the next layer is asked for, never copied whole.
    The file appears under its name when it is complete. CaffemodelError above the 2 GB that protobuf reads.
    """
    with atomic_write(path) as file:
        file.write(encode_bytes(1, name.encode()))
        for layer_name, type_, arrays in layers:
            head = encode_bytes(_LAYER.name, layer_name.encode()) + encode_bytes(_LAYER.type, type_.encode())
            blobs = [(blob_head(array), array) for array in arrays]
            sizes = [len(start) + 4 * array.size for start, array in blobs]
            size = len(head) + sum(sizes) + sum(len(encode_head(_LAYER.blobs, n)) for n in sizes)
            if file.tell() + size > MAX_BYTES:
                raise CaffemodelError(
                    f"{path}: layer {layer_name!r} would take the file beyond 2 GB, which no protobuf reads",
                    "save as .caffemodel.h5 instead",
                )
            file.write(encode_head(100, size) + head)
            for (start, array), n in zip(blobs, sizes, strict=True):
                file.write(encode_head(_LAYER.blobs, n) + start)
                write_values(file, array)
