"""Text -> a message: every field checked against the schema, and what the schema lacks kept beside it.

What Caffe's parser refuses is refused here too: a field given twice that is not repeated, a value of the
wrong kind or out of its field's range, a required field that is missing. What only the schema of a fork knows
is kept as plain Python instead.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import cache
from typing import Any, NamedTuple

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message

from caffe_fcn.errors import PrototxtError, nearest
from caffe_fcn.formats.fork_types import todays_type
from caffe_fcn.formats.text import (
    COMMA,
    ELEMENT,
    ITEM,
    SEPARATOR,
    SKIP,
    Identifier,
    Origin,
    Source,
    integer,
    past,
    real,
    short,
    unquote,
    unquote_bytes,
)

MAX_DEPTH = 100  # of messages in messages, as in protobuf; Caffe's own need 6
MAX_WARNINGS = 20
_CLOSERS = {"{": "}", "<": ">"}
_TYPE_HINTS = {
    "layers": "in `layers` the type is a name, as in type: CONVOLUTION; a type in quotes belongs in `layer`",
    "layer": 'in `layer` the type is in quotes, as in type: "Convolution"; a name belongs in `layers`',
}


class _Field(NamedTuple):
    """What the reader needs to know of a field."""

    name: str
    repeated: bool
    is_message: bool
    word: Callable[[str], Any]  # the value of a word; ValueError if it is none, None for what the enum lacks
    string: Callable[[str], Any]  # the value of string literals; ValueError if it is none
    expected: str
    known: list[str]  # the names of its enum


class _Schema(NamedTuple):
    """What the reader needs to know of a message; of one that the schema lacks, nothing."""

    fields: dict[str, _Field]
    required: tuple[str, ...]


_NO_SCHEMA = _Schema({}, ())


class _Frame(NamedTuple):
    """A message being read; without a target one that the schema lacks, which lives in `extras` alone."""

    target: Any
    schema: _Schema
    holder: str  # the field that holds it
    depth: int
    extras: dict[str, Any]


#: Fields of a layer that no schema knows, but a layer class of the user's: nothing to warn of.
EXPECTED: set[str] = set()

_WORDS = {"true": True, "True": True, "false": False, "False": False}
_BOOLS = {**_WORDS, "t": True, "f": False}
_INTEGERS = {
    FieldDescriptor.TYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.TYPE_UINT64: (0, 2**64 - 1),
}


@cache
def _schema(descriptor: Descriptor) -> _Schema:
    fields = {field.name: _field(field, _is(field, "repeated")) for field in descriptor.fields}
    return _Schema(fields, tuple(field.name for field in descriptor.fields if _is(field, "required")))


def _is(field: FieldDescriptor, label: str) -> bool:
    """Whether a field is "repeated" or "required"; protobuf 4 and 7 say so in different ways."""
    if hasattr(field, f"is_{label}"):
        return bool(getattr(field, f"is_{label}"))
    return bool(getattr(field, "label") == getattr(field, f"LABEL_{label.upper()}"))  # noqa: B009


def _field(field: FieldDescriptor, repeated: bool) -> _Field:
    word: Callable[[str], Any] = _refuse
    string: Callable[[str], Any] = _refuse
    known: list[str] = []
    if field.message_type:
        expected = "a message in braces"
    elif field.enum_type:
        known = [value.name for value in field.enum_type.values]
        expected, word = f"{_names(known)}, without quotes", _enum(field.enum_type)
    elif field.type in _INTEGERS:
        low, high = _INTEGERS[field.type]
        expected, word = f"an integer from {low} to {high}", _bounded(low, high)
    elif field.type == FieldDescriptor.TYPE_BOOL:
        expected, word = "true or false", _boolean
    elif field.type == FieldDescriptor.TYPE_STRING:
        expected, string = "a string in quotes", unquote
    elif field.type == FieldDescriptor.TYPE_BYTES:
        expected, string = "a string in quotes", unquote_bytes
    else:
        expected, word = "a number", real
    return _Field(field.name, repeated, bool(field.message_type), word, string, expected, known)


def _names(known: Sequence[str]) -> str:
    """The names of an enum, if they fit into a message."""
    return " or ".join(filter(None, (", ".join(known[:-1]), known[-1]))) if len(known) <= 8 else "a name"


def _refuse(text: str) -> Any:
    raise ValueError(text)


def _enum(enum: EnumDescriptor) -> Callable[[str], int | None]:
    numbers = {value.name: value.number for value in enum.values}

    def convert(word: str) -> int | None:
        if word[0] not in "-0123456789":
            return numbers.get(word)
        number = integer(word)
        return number if number in enum.values_by_number else None

    return convert


def _bounded(low: int, high: int) -> Callable[[str], int]:
    def convert(word: str) -> int:
        value = integer(word)
        if not low <= value <= high:
            raise ValueError(word)
        return value

    return convert


def _boolean(word: str) -> bool:
    if word in _BOOLS:
        return _BOOLS[word]
    if integer(word) not in (0, 1):
        raise ValueError(word)
    return bool(integer(word))


def _plain(word: str) -> Any:
    """A word whose field the schema lacks, as what it looks like."""
    with suppress(ValueError):
        return integer(word)
    with suppress(ValueError):
        return real(word)
    return _WORDS.get(word, Identifier(word))


def _add(extras: dict[str, Any], name: str, value: Any) -> None:
    """Keep a value; a second one of a field makes a list of them."""
    if name not in extras:
        extras[name] = value
    else:
        _as_list(extras, name).append(value)


def _as_list(extras: dict[str, Any], name: str) -> list[Any]:
    kept = extras.setdefault(name, [])
    if not isinstance(kept, list):
        kept = extras[name] = [kept]
    return kept


class Reader:
    """Fills one message from one text."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._outermost = _NO_SCHEMA
        self._starts: dict[str, list[int]] = {}  # of the outermost message's fields
        # (holder, field, '' or value) -> where it stands first, and what could have been meant
        self._unknown: dict[tuple[str, str, str], tuple[int, Iterable[str]]] = {}

    def read(self, message: Message) -> dict[str, Any]:
        """Fill an empty message; return what its schema lacks, as in Origin.fields."""
        self._outermost = _schema(message.DESCRIPTOR)
        frame = _Frame(message, self._outermost, "", 0, {})
        self._message(frame, past(SKIP, self.source.text, 0), -1)
        return frame.extras

    def origins(self, name: str, extras: dict[str, Any]) -> list[Origin]:
        """Where each of the outermost message's fields `name` stands, with what the schema lacks of it."""
        starts, kept = self._starts.get(name, []), extras.get(name, [])
        path, line = self.source.path, self.source.line
        return [Origin(path, line(pos), kept[i] if i < len(kept) else {}) for i, pos in enumerate(starts)]

    def first(self, name: str) -> Origin | None:
        """Where the outermost message's field `name` stands first, if it is there."""
        return next(iter(self.origins(name, {})), None)

    def warnings(self) -> list[str]:
        """What to tell about fields and values that the schema lacks: each once, the first 20 in full."""
        path, told = self.source.path, []
        for (holder, name, value), (pos, known) in list(self._unknown.items())[:MAX_WARNINGS]:
            what = f"'{name}' has no value {short(value)}" if value else f"unknown field {short(name)}"
            inside = f" in '{holder}'" if holder else ""
            near = nearest(value or name, known) or (value and f"it takes {_names([*known])}")
            told.append(f"{path}:{self.source.line(pos)}: {what}{inside}" + (f": {near}" if near else ""))
        if len(self._unknown) > MAX_WARNINGS:
            told.append(f"{path}: {len(self._unknown) - MAX_WARNINGS} more unknown fields or values")
        return told

    def _message(self, frame: _Frame, pos: int, opened: int) -> int:
        """Read fields up to the bracket that closes the one at `opened`, or the end; return what follows."""
        text, match = self.source.text, ITEM.match
        while item := match(text, pos):
            name, string, word, opener, closer = item.groups()
            pos = item.end()
            if name is None:
                if closer != (_CLOSERS[text[opened]] if opened >= 0 else None):
                    raise self._unbalanced(opened, item.start())
                self._complete(frame, max(opened, 0))
                return pos
            if opener is None:
                self._scalar(frame, name, word or string, item)
            elif opener == "[":
                pos = past(SEPARATOR, text, self._list(frame, name, item.start("opener"), pos))
            else:
                pos = past(SEPARATOR, text, self._child(frame, name, item.start(), item.start("opener"), pos))
        raise self.source.syntax_error(pos)

    def _complete(self, frame: _Frame, pos: int) -> None:
        for name in frame.schema.required:
            if not frame.target.HasField(name):
                raise self.source.error(pos, f"the required field '{name}' is missing here")

    def _list(self, frame: _Frame, name: str, opened: int, pos: int) -> int:
        """Read `[a, b]` from what follows its bracket; return what follows it."""
        text, field = self.source.text, frame.schema.fields.get(name)
        if field is None:
            self._note(frame, name, opened)
            _as_list(frame.extras, name)
        elif not field.repeated:
            raise self.source.error(opened, f"'{name}' takes one value, not a list")
        comma = not text.startswith("]", pos)
        while comma:
            element = ELEMENT.match(text, pos)
            if element is None:
                raise self._bad_element(name, opened, pos)
            string, word, opener = element.groups()
            if opener:
                pos = self._child(frame, name, element.start(), element.start(), element.end())
            else:
                self._scalar(frame, name, word or string, element)
                pos = element.end()
            comma = text.startswith(",", pos)
            pos = past(COMMA, text, pos)
        if not text.startswith("]", pos):
            raise self.source.unclosed(opened, pos)
        return past(SKIP, text, pos + 1)

    def _child(self, frame: _Frame, name: str, start: int, opened: int, pos: int) -> int:
        """Read the message whose bracket is at `opened` and its inside at `pos`; return what follows it."""
        if frame.depth == MAX_DEPTH:
            raise self.source.error(opened, f"more than {MAX_DEPTH} messages stand in each other here")
        target, schema = self._place(frame, name, start, opened)
        child = _Frame(target, schema, name, frame.depth + 1, {})
        pos = self._message(child, pos, opened)
        if target is None:
            _add(frame.extras, name, child.extras)
            return pos
        if child.extras and frame.schema.fields[name].repeated:
            kept = frame.extras.setdefault(name, [])
            kept.extend({} for _ in range(len(kept), len(getattr(frame.target, name)) - 1))
            kept.append(child.extras)
        elif child.extras:
            frame.extras[name] = child.extras
        return pos

    def _place(self, frame: _Frame, name: str, start: int, opened: int) -> tuple[Any, _Schema]:
        """The message that a child fills, in place; None if the schema has no such field."""
        if not frame.depth:
            self._starts.setdefault(name, []).append(start)
        field = frame.schema.fields.get(name)
        if field is None:
            self._note(frame, name, start)
            return None, _NO_SCHEMA
        if not field.is_message:
            raise self._wrong(frame, name, opened)
        if field.repeated:
            target = getattr(frame.target, name).add()
        else:
            self._once(frame, name, start)
            target = getattr(frame.target, name)
            target.SetInParent()
        return target, _schema(target.DESCRIPTOR)

    def _scalar(self, frame: _Frame, name: str, raw: str, match: re.Match[str]) -> None:
        """Store one value from its text `raw`, which is the group "string" or "word" of `match`."""
        if not frame.depth:
            self._starts.setdefault(name, []).append(match.start())
        field, quoted = frame.schema.fields.get(name), raw[0] in "'\""
        try:
            if field is None:
                self._note(frame, name, match.start())
                _add(
                    frame.extras, name, unquote_bytes(raw).decode(errors="replace") if quoted else _plain(raw)
                )
                return
            value = field.string(raw) if quoted else field.word(raw)
            if not field.repeated:
                self._once(frame, name, match.start())
            if value is None:  # a name or number that the enum lacks
                self._note(frame, name, match.start(), raw, field.known)
                _add(frame.extras, name, _plain(raw))
            elif field.repeated:
                getattr(frame.target, name).append(value)
            else:
                setattr(frame.target, name, value)
        except ValueError as error:
            pos = match.start("string" if quoted else "word")
            if quoted and (field is None or field.string is not _refuse):
                problem = "this is not UTF-8" if isinstance(error, UnicodeError) else str(error)
                raise self.source.error(pos, problem) from None
            raise self._wrong(frame, name, pos) from None

    def _once(self, frame: _Frame, name: str, pos: int) -> None:
        if frame.target.HasField(name) or name in frame.extras:
            raise self.source.error(pos, f"'{name}' is given twice, and takes one value")

    def _note(self, frame: _Frame, name: str, pos: int, value: str = "", known: Iterable[str] = ()) -> None:
        """Remember for a warning that the schema has no such field, or its enum no such value."""
        own = frame.holder in ("layer", "layers") and name in EXPECTED
        own = own or (frame.holder == "layers" and name == "type" and todays_type(value) is not None)
        if frame.target is not None and not own:
            self._unknown.setdefault((frame.holder, name, value), (pos, known or frame.schema.fields))

    def _wrong(self, frame: _Frame, name: str, pos: int) -> PrototxtError:
        """What stands at `pos` is no value of the field."""
        hint = _TYPE_HINTS.get(frame.holder, "") if name == "type" else ""
        expected = frame.schema.fields[name].expected
        return self.source.error(pos, f"'{name}' takes {expected}, got {self.source.token(pos)}", hint)

    def _bad_element(self, name: str, opened: int, pos: int) -> PrototxtError:
        if pos >= len(self.source.text):
            return self.source.unclosed(opened, pos)
        return self.source.value_error(pos, f"a value in the list '{name}'")

    def _unbalanced(self, opened: int, pos: int) -> PrototxtError:
        """The bracket at `opened` (-1: none) meets the wrong one at `pos`, or the end."""
        if opened < 0:
            return self.source.error(pos, f"{self.source.token(pos)} closes nothing")
        inside = [
            p
            for (_, name, _), (p, _) in self._unknown.items()
            if name in self._outermost.fields and p > opened
        ]
        hint = f"is a bracket missing before line {self.source.line(min(inside))}?" if inside else ""
        return self.source.unclosed(opened, pos, hint)
