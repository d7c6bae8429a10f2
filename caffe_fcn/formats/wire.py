"""Protobuf's wire format, scanned where it lies and checked as it is scanned: no messages, no copies.

A message is a row of fields: a tag (a varint: number << 3 | wire type), then a varint, 8 bytes, a varint
length and that many bytes, or 4 bytes. protobuf's own parser would copy every float of a 500 MB file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from mmap import mmap
from typing import NamedTuple

import numpy as np

from caffe_fcn.errors import CaffemodelError

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
SIZES = {FIXED64: 8, FIXED32: 4}
_WIRES = {VARINT: "a number", FIXED64: "8 bytes", LENGTH: "a length and bytes", FIXED32: "4 bytes"}
# A net of 100,000 layers has about half as many. It bounds the time and memory that a hostile file can cost.
_MAX_FIELDS = 1 << 21

Known = Mapping[int, tuple[str, tuple[int, ...]]]
"""The fields of a message that matter to the reader: number -> name, wire types it may have."""


class Field(NamedTuple):
    """One field. `start` to `stop` are its bytes without the tag, or without the tag and the length.

    Fixed-size fields that follow each other with the same one-byte tag come as one: the first value at
    `start`, each further one a tag and a value on. That is how a list of floats looks that is not packed.
    """

    number: int
    wire: int
    start: int
    stop: int
    value: int  # of a varint, unsigned


class Scanner:
    """Reads fields from the bytes of one file, and knows how to say what is wrong with them."""

    def __init__(self, path: str | os.PathLike[str], data: mmap) -> None:
        self.path, self.data = path, data
        self.where = ""  # the layer and blob being read, for messages: set by who knows
        self._fields_left = _MAX_FIELDS

    def error(self, byte: int, problem: str, hint: str = "") -> CaffemodelError:
        """The error that says: file, layer and blob, byte, problem."""
        return CaffemodelError(
            f"{self.path}: {self.where + ': ' if self.where else ''}at byte {byte:,}: {problem}", hint
        )

    def fields(self, start: int, stop: int, known: Known) -> Iterator[Field]:
        """Every field between two offsets, known or not; CaffemodelError where they are not a message."""
        while start < stop:
            self._fields_left -= 1
            if self._fields_left < 0:
                raise self.error(start, f"more than {_MAX_FIELDS:,} fields: the file is damaged")
            field = self._field(start, stop, known)
            yield field
            start = field.stop

    def _field(self, at: int, stop: int, known: Known) -> Field:
        tag, start = self.varint(at, stop)
        number, wire = tag >> 3, tag & 7
        if number == 0 or tag >> 32 or wire not in _WIRES:
            raise self.error(at, f"no field of any message starts with {tag:#x}: the file is damaged")
        if number in known and wire not in known[number][1]:
            name, wires = known[number]
            expected = " or ".join(_WIRES[w] for w in wires)
            raise self.error(at, f"field {number} ({name}) is {_WIRES[wire]} instead of {expected}")
        if wire == VARINT:
            value, end = self.varint(start, stop)
            return Field(number, wire, start, end, value)
        if wire in SIZES:
            return Field(number, wire, start, self._run_end(tag, start, stop, SIZES[wire]), 0)
        length, start = self.varint(start, stop)
        self._check_left(start, length, stop)
        return Field(number, wire, start, start + length, 0)

    def varint(self, at: int, stop: int) -> tuple[int, int]:
        """An unsigned 64-bit number, least significant 7 bits first, and the offset behind it."""
        value = 0
        for i in range(min(10, stop - at)):
            byte = self.data[at + i]
            value |= (byte & 0x7F) << 7 * i
            if byte < 0x80:
                return value & 0xFFFFFFFFFFFFFFFF, at + i + 1
        if stop - at < 10:
            self._check_left(at, stop - at + 1, stop)
        raise self.error(at, "a number of more than 10 bytes: the file is damaged")

    def _check_left(self, at: int, length: int, stop: int) -> None:
        if length <= stop - at:
            return
        if stop == len(self.data):
            problem = f"{length:,} bytes expected, {stop - at:,} left: the file is truncated"
            raise self.error(at, problem, "download or copy it again")
        raise self.error(at, f"{length:,} bytes claimed where the message has {stop - at:,} left")

    def _run_end(self, tag: int, start: int, stop: int, size: int) -> int:
        """Where a run of fixed-size fields with one tag ends, found without a Python step per value."""
        self._check_left(start, size, stop)
        if tag >= 0x80:
            return start + size
        step, count, window = size + 1, 1, 16
        most = (stop - start - size) // step + 1
        while count < most:
            block = min(window, most - count)
            tags = np.ndarray((block,), np.uint8, self.data, start + count * step - 1, (step,))
            others = np.flatnonzero(tags != tag)
            if others.size:
                count += int(others[0])
                break
            count, window = count + block, min(2 * window, 1 << 20)
        return start + count * step - 1


def encode_varint(value: int) -> bytes:
    """A number from 0 up, as a varint."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def encode_head(number: int, length: int) -> bytes:
    """What stands before the bytes of a length-delimited field."""
    return encode_varint(number << 3 | LENGTH) + encode_varint(length)


def encode_bytes(number: int, payload: bytes) -> bytes:
    """A length-delimited field."""
    return encode_head(number, len(payload)) + payload
