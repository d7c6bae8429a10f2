"""Prototxt files: a net's text -> NetParameter in today's form, with the line of every layer; and back."""

from __future__ import annotations

import os
import struct
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from caffe_fcn.errors import CaffeWarning
from caffe_fcn.formats import caffe_pb2
from caffe_fcn.formats.text import Identifier, Origin, Source, read_source
from caffe_fcn.formats.text_reader import Reader
from caffe_fcn.formats.upgrade import upgrade

__all__ = ["Identifier", "Origin", "Prototxt", "format", "parse", "read_net"]

M = TypeVar("M", bound=Message)


@dataclass
class Prototxt:
    """A net in today's form, and where each of its layers came from."""

    net: caffe_pb2.NetParameter
    origins: list[Origin]  # one per net.layer
    path: str


def read_net(
    path_or_text: str | os.PathLike[str] | caffe_pb2.NetParameter, *, text: str | None = None
) -> Prototxt:
    """Read a net in any of Caffe's formats and bring it to today's form, `input:` fields to an Input layer.

    A str that holds a line break or a brace is the net itself, any other the path of its file. With `text`
    that is the net, and the first argument only its name in messages. A NetParameter is copied, not changed.
    PrototxtError names the place; CaffeWarning names each field that the schema lacks.
    """
    if isinstance(path_or_text, caffe_pb2.NetParameter):
        return Prototxt(*upgrade(path_or_text), "<net>")
    if text is not None:
        source = Source(text, os.fsdecode(path_or_text))
    elif isinstance(path_or_text, str) and ("\n" in path_or_text or "{" in path_or_text):
        source = Source(path_or_text, "<net>")
    else:
        source = read_source(path_or_text)
    net, reader = caffe_pb2.NetParameter(), Reader(source)
    fields = reader.read(net)
    _warn(reader.warnings())
    origins = [*reader.origins("layers", fields), *reader.origins("layer", fields)]
    return Prototxt(*upgrade(net, origins, reader.first("input")), source.path)


def parse(text: str, message: M | type[M], path: str = "<text>") -> M:
    """Fill `message` (cleared first; or a new one of that class) from its text form, and return it.

    PrototxtError names `path`, line and column; CaffeWarning names each field that the schema lacks.
    """
    filled = message() if isinstance(message, type) else message
    filled.Clear()
    reader = Reader(Source(text, path))
    reader.read(filled)
    _warn(reader.warnings())
    return filled


def _warn(messages: list[str]) -> None:
    for message in messages:
        warnings.warn(message, CaffeWarning, stacklevel=3)


def format(message: Message | Prototxt) -> str:  # noqa: A001 - the counterpart of parse
    """The text of a message: what `parse` reads back as the same message (but for NaN, which equals nothing).

    A message that holds one field stands on one line if that is short, any other on lines of its own,
    indented by two. Floats in as few digits, from six up, as give the same float32. Of a Prototxt also the
    fields that the schema lacks are written, each in its layer.
    """
    if isinstance(message, Prototxt):
        lines = _lines(message.net, {"layer": [origin.fields for origin in message.origins]})
    else:
        lines = _lines(message, {})
    return "".join(f"{line}\n" for line in lines)


def _lines(message: Message, extras: dict[str, Any]) -> Iterator[str]:
    """The lines of a message's fields, then of those in `extras` that are none of its messages' own."""
    for field, value in message.ListFields():
        inner = extras.get(field.name, {}) if field.message_type else {}
        for i, item in enumerate(value if hasattr(value, "extend") else [value]):
            if field.message_type:
                kept = inner if isinstance(inner, dict) else inner[i] if i < len(inner) else {}
                yield from _braces(field.name, list(_lines(item, kept)), len(item.ListFields()) + len(kept))
            else:
                yield f"{field.name}: {_scalar(field, item)}"
    for name, value in extras.items():
        known = message.DESCRIPTOR.fields_by_name.get(name)
        if known is None or known.message_type is None:
            yield from _plain_lines(name, value)


def _plain_lines(name: str, value: Any) -> Iterator[str]:
    """The lines of a field that the schema lacks."""
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, dict):
            yield from _braces(
                name, [line for key in item for line in _plain_lines(key, item[key])], len(item)
            )
        elif isinstance(item, bool):
            yield f"{name}: {str(item).lower()}"
        elif isinstance(item, str) and not isinstance(item, Identifier):
            yield f"{name}: {_quoted(item)}"
        else:
            yield f"{name}: {item}"


def _braces(name: str, lines: list[str], fields: int) -> Iterator[str]:
    flat = f"{name} {{ {' '.join(lines)} }}"
    if fields <= 1 and len(flat) <= 80 and not any(line.endswith("{") for line in lines):
        yield flat if lines else f"{name} {{}}"
        return
    yield f"{name} {{"
    yield from (f"  {line}" for line in lines)
    yield "}"


def _scalar(field: FieldDescriptor, value: Any) -> str:
    if field.enum_type:
        return str(field.enum_type.values_by_number[value].name)
    if field.type == FieldDescriptor.TYPE_FLOAT:
        return _float32(value)
    if field.type == FieldDescriptor.TYPE_BOOL:
        return "true" if value else "false"
    return _quoted(value) if isinstance(value, (str, bytes)) else str(value)


def _float32(value: float) -> str:
    """`value`, which is a float32, in as few digits as give it back."""
    texts = (f"{value:.{digits}g}" for digits in range(6, 10))
    return next(
        (text for text in texts if struct.unpack("f", struct.pack("f", float(text)))[0] == value), "nan"
    )


def _quoted(value: str | bytes) -> str:
    if isinstance(value, bytes):
        characters = [chr(byte) if byte < 128 else f"\\{byte:03o}" for byte in value]
    else:
        characters = list(value)
    return '"' + "".join(_ESCAPES.get(c, c) for c in characters) + '"'


_ESCAPES = {chr(code): f"\\{code:03o}" for code in range(32)}
_ESCAPES |= {"\n": "\\n", "\r": "\\r", "\t": "\\t", '"': '\\"', "\\": "\\\\"}
