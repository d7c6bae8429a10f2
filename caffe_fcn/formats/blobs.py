"""BlobProto <-> arrays: one parameter or mean image as it stands in a file."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import BinaryIO, NamedTuple

import numpy as np

from caffe_fcn.errors import CaffemodelError
from caffe_fcn.formats.wire import (
    FIXED32,
    FIXED64,
    LENGTH,
    SIZES,
    VARINT,
    Field,
    Scanner,
    encode_head,
    encode_varint,
)

MAX_AXES = 32  # kMaxBlobAxes
_MAX_COUNT = 2**31 - 1  # Caffe counts in int
MAX_BYTES = 2**31 - 1  # of a file that protobuf reads
_PIECE = 1 << 18

_BLOB = {
    1: ("num", (VARINT,)),
    2: ("channels", (VARINT,)),
    3: ("height", (VARINT,)),
    4: ("width", (VARINT,)),
    5: ("data", (LENGTH, FIXED32)),
    6: ("diff", (LENGTH, FIXED32)),
    7: ("shape", (LENGTH,)),
    8: ("double_data", (LENGTH, FIXED64)),
}
_SHAPE = {1: ("dim", (LENGTH, VARINT))}
# NVCaffe: what the values are, and their bytes. Other forks may use the numbers otherwise, so that they count
# only together, and with these wire types.
_RAW = {(10, VARINT), (12, LENGTH)}
_RAW_DTYPES = {0: "<f8", 1: "<f4", 2: "<f2"}


class StoredBlob(NamedTuple):
    """An array as a file holds it: float32, or float64 or float16 where the file says so.

    A view into the file's map wherever the values lie together: writable, without effect on the file.
    """

    data: np.ndarray
    legacy: bool
    """The shape came from num, channels, height, width: Caffe compares it from the last axis back, as 4-D."""


class StoredLayer(NamedTuple):
    """A layer of a weights file: its type as the file spells it ('Convolution', 'CONVOLUTION', 'conv' or '').

    A blob is None where an HDF5 file leaves out a parameter that another layer owns; never in a .caffemodel.
    """

    name: str
    type: str
    blobs: list[StoredBlob | None]


class _Values:
    """A repeated field of floats: a view of the map as long as it lies in one piece, else a copy."""

    def __init__(self, dtype: str) -> None:
        self.dtype = np.dtype(dtype)
        self._view: np.ndarray | None = None
        self._copy: bytearray | None = None  # the values in bytes, from the second piece on

    def add(self, scanner: Scanner, field: Field) -> None:
        size = self.dtype.itemsize
        length, step = field.stop - field.start, size + (field.wire in SIZES)
        if field.wire == LENGTH and length % size:
            problem = f"{length:,} bytes are no whole number of {size}-byte values"
            raise scanner.error(field.start, problem)
        count = (length + step - size) // step
        if not count:
            return
        view: np.ndarray = np.ndarray((count,), self.dtype, scanner.data, field.start, (step,))
        if self._view is None:
            self._view = view
            return
        if self._copy is None:
            self._copy = bytearray(self._view.tobytes())
        self._copy += view.tobytes()

    def array(self) -> np.ndarray:
        if self._copy is not None:
            return np.frombuffer(self._copy, self.dtype)
        return np.empty(0, self.dtype) if self._view is None else self._view


def parse_blob(scanner: Scanner, start: int, stop: int) -> StoredBlob:
    """A BlobProto between two offsets, as an array of its shape.

    Raises CaffemodelError if the shape is none that Caffe could hold or does not fit the number of values.
    From Blob::FromProto (blob.cpp): num, channels, height, width go before shape, double_data before data.
    """
    values = {5: _Values("<f4"), 8: _Values("<f8")}
    dims: list[int] = []
    four: dict[int, int] = {}
    raw: dict[int, Field] = {}
    for field in scanner.fields(start, stop, _BLOB):
        if field.number in values:
            values[field.number].add(scanner, field)
        elif field.number <= 4:
            four[field.number] = _signed(field.value, 32)
        elif field.number == 7:
            dims += _parse_dims(scanner, field)
        elif field[:2] in _RAW:
            raw[field.number] = field
    array = _raw_array(scanner, *raw.values()) if len(raw) == 2 else values[8].array()
    if not array.size:
        array = values[5].array()
    shape = [four.get(axis, 0) for axis in (1, 2, 3, 4)] if four else dims
    if problem := shape_problem(shape, array.size):
        raise scanner.error(start, problem)
    return StoredBlob(array.reshape(shape), bool(four))


def _raw_array(scanner: Scanner, *fields: Field) -> np.ndarray:
    type_, data = sorted(fields)
    if type_.value not in _RAW_DTYPES:
        raise scanner.error(data.start, f"raw_data of type {type_.value}: only floats (0, 1, 2) are known")
    values = _Values(_RAW_DTYPES[type_.value])
    values.add(scanner, data)
    return values.array()


def shape_problem(shape: Sequence[int], count: int) -> str:
    """Why this is no shape of an array of `count` values in Caffe, or ''."""
    text = " ".join(str(dim) for dim in shape[:MAX_AXES])
    if len(shape) > MAX_AXES:
        return f"a shape of {len(shape)} axes, Caffe has at most {MAX_AXES}"
    if any(dim < 0 for dim in shape):
        return f"negative size in the shape {text}"
    if math.prod(max(dim, 1) for dim in shape) > _MAX_COUNT:
        return f"the shape {text} holds more than {_MAX_COUNT:,} values"
    if math.prod(shape) != count:
        return f"the shape {text or '()'} holds {math.prod(shape):,} values, the file has {count:,}"
    return ""


def _parse_dims(scanner: Scanner, shape: Field) -> Iterator[int]:
    left = MAX_AXES
    for field in scanner.fields(shape.start, shape.stop, _SHAPE):
        at, stop = field.start, field.stop
        while field.number == 1 and at < stop:
            value, at = scanner.varint(at, stop)
            yield _signed(value, 64)
            left -= 1
            if left < 0:
                raise scanner.error(at, f"a shape of more than {MAX_AXES} axes")


def _signed(value: int, bits: int) -> int:
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def blob_head(array: np.ndarray) -> bytes:
    """The bytes of a BlobProto (shape, packed float32 data) up to the first value.

    CaffemodelError if it has more axes than Caffe's blobs can have, or more values than a file can hold.
    """
    if array.ndim > MAX_AXES or 4 * array.size > MAX_BYTES:
        raise CaffemodelError(
            f"an array of {array.ndim} axes and {array.size:,} values cannot be stored",
            f"Caffe reads at most {MAX_AXES} axes, and protobuf at most 2 GB",
        )
    dims = b"".join(encode_varint(dim) for dim in array.shape)
    packed = encode_head(1, len(dims)) + dims
    return encode_head(7, len(packed)) + packed + encode_head(5, 4 * array.size)


def write_values(file: BinaryIO, array: np.ndarray) -> None:
    """The values as little-endian float32 in C order; converted a piece at a time where they are not that."""
    if array.dtype == "<f4" and array.flags.c_contiguous:
        file.write(array.data)
        return
    for start in range(0, array.size, _PIECE):
        file.write(np.asarray(array.flat[start : start + _PIECE], "<f4").data)
