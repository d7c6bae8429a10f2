"""Protobuf's text format as Caffe reads it: tokens, scalars, and where in the file they stand.

    message: field*                         field: NAME value [';' | ',']
    value:   ':' scalar | [':'] '{' message '}' | [':'] '<' message '>' | [':'] '[' value, value ... ']'
    scalar:  string string ... | ['-'] (number | NAME)

`#` starts a comment to the end of its line. One match of ITEM takes a whole `name: value`, or a name and the
bracket that opens its value, or a closing bracket, or the end of the file; and the white space after it. No
pattern here can match one text in two ways, so that none takes more than linear time on any input.
"""

from __future__ import annotations

import codecs
import os
import re
from bisect import bisect_right
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from caffe_fcn.errors import PrototxtError
from caffe_fcn.formats.files import file_size, legible

LONGEST = 1 << 28  # bytes of a prototxt; a hundred thousand layers take 30 million

_SKIP = r"\s*(?:\#[^\n]*(?:\n\s*|\Z))*"
_NAME = r"[A-Za-z_]\w*"
_NUMBER = r"(?:0[xX][0-9a-fA-F]+|(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?[fF]?)"
_WORD = rf"(?:-\s*)?(?:{_NAME}|{_NUMBER})(?![\w.])"
_STRING = r""" (?: "[^"\\\n]*(?:\\.[^"\\\n]*)*" | '[^'\\\n]*(?:\\.[^'\\\n]*)*' ) """
_SCALAR = rf"(?P<string>{_STRING} (?:{_SKIP}{_STRING})*) | (?P<word>{_WORD})"


def _compile(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.VERBOSE | re.ASCII)


ITEM = _compile(
    rf"""
      (?P<name>{_NAME}) {_SKIP}
        (?: :{_SKIP} (?: {_SCALAR} ) {_SKIP} (?: [;,] {_SKIP} )?
          | (?: :{_SKIP} )? (?P<opener>[{{<\[]) {_SKIP} )
    | (?P<closer>[}}>]) {_SKIP}
    | \Z"""
)
ELEMENT = _compile(rf"(?: {_SCALAR} | (?P<opener>[{{<]) ) {_SKIP}")
COMMA = _compile(rf", {_SKIP}")
SEPARATOR = _compile(rf"(?: [;,] {_SKIP} )?")
SKIP = _compile(_SKIP)
_NAME_COLON = _compile(rf"({_NAME}) {_SKIP} (:{_SKIP})?")
_TOKEN = _compile(rf"{_STRING} | -?[\w.]+ | (?s:.)")
_ONE_STRING = _compile(_STRING)
_ESCAPE = re.compile(
    rb"\\(?:([0-7]{1,3})|[xX]([0-9a-fA-F]{1,2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))", re.DOTALL
)
_ESCAPES = dict(zip(b"abfnrtv\\?'\"", b"\a\b\f\n\r\t\v\\?'\"", strict=True))
_BRACKETS = {"{": "}", "<": ">", "[": "]"}


class Identifier(str):
    """A value that stood without quotes in the file, such as an enum's name."""

    __slots__ = ()


@dataclass
class Origin:
    """Where a layer came from, and what its file says of it that the schema does not know.

    `fields` is plain Python: {'ceil_mode': False, 'pooling_param': {'foo': [1, 2]}}; names as Identifier, a
    field given several times as a list. Under a repeated message of the schema stands a list, a dict each.
    """

    path: str = "<net>"
    line: int = 0  # 0 if there is no text
    fields: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.path}:{self.line}" if self.line else self.path


class Source:
    """A text and its name. All positions are offsets into the text; errors turn them into line and column."""

    def __init__(self, text: str, path: str) -> None:
        self.text, self.path = text.removeprefix("\ufeff"), path

    @cached_property
    def _lines(self) -> list[int]:
        return [0, *(match.end() for match in re.finditer("\n", self.text))]

    def line(self, pos: int) -> int:
        """The line of an offset, from 1."""
        return bisect_right(self._lines, pos)

    def error(self, pos: int, problem: str, hint: str = "") -> PrototxtError:
        """An error to raise: file:line:column, the problem, then the line with a caret under the column."""
        start = self._lines[self.line(pos) - 1]
        column = pos - start
        end = self.text.find("\n", pos)
        shown = self.text[start : end if end >= 0 else None].rstrip()
        cut = max(0, column - 70)
        snippet = "".join(c if c.isprintable() else " " for c in shown[cut : cut + 100])
        where = f"{self.path}:{self.line(pos)}:{column + 1}: "
        return PrototxtError(f"{where}{problem}\n  {snippet}\n  {' ' * (column - cut)}^", hint)

    def unclosed(self, opened: int, pos: int, hint: str = "") -> PrototxtError:
        """What is open at `opened` is closed by nothing, or at `pos` by the wrong bracket."""
        bracket = self.text[opened]
        if pos >= len(self.text):
            return self.error(opened, f"'{bracket}' is not closed: the file ends first", hint)
        wanted = f"'{_BRACKETS[bracket]}' to close '{bracket}' of line {self.line(opened)}"
        return self.error(pos, f"expected {wanted}, got {self.token(pos)}", hint)

    def token(self, pos: int) -> str:
        """The token at `pos`, as messages show it."""
        match = _TOKEN.match(self.text, pos)
        return short(match.group()) if match else "the end of the file"

    def syntax_error(self, pos: int) -> PrototxtError:
        """Why no ITEM stands at `pos`."""
        match = _NAME_COLON.match(self.text, pos)
        if not match:
            html = self.text[pos] == "<" and not self.text[:pos].strip()
            hint = "is this an HTML page?" if html else ""
            return self.error(pos, f"expected the name of a field, got {self.token(pos)}", hint)
        name, colon = match.groups()
        if colon:
            return self.value_error(match.end(), f"a value after {short(name + ':')}")
        return self.error(
            match.end(), f"expected ':' or '{{' after {short(name)}, got {self.token(match.end())}"
        )

    def value_error(self, pos: int, wanted: str) -> PrototxtError:
        """Why no value stands at `pos`, where `wanted` should."""
        if self.text[pos : pos + 1] in ("'", '"') and not _ONE_STRING.match(self.text, pos):
            return self.error(pos, "this quote is not closed on its line")
        if re.match(r"-?\.?[0-9]", self.text[pos : pos + 3]):
            return self.error(pos, f"{self.token(pos)} is not a number")
        return self.error(pos, f"expected {wanted}, got {self.token(pos)}")


def decode(data: bytes, path: str) -> str:
    """The text of a file: UTF-8, UTF-16 as Windows writes it, or else Latin-1: comments may be anything.

    PrototxtError if the file is binary.
    """
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", errors="replace")
    if b"\0" in data[:4096]:
        raise PrototxtError(f"{path}: is a binary file, not a prototxt", "is it the caffemodel?")
    return legible(data)


def read_source(path: str | os.PathLike[str]) -> Source:
    """The text of the file at `path`. PrototxtError if it cannot be read."""
    name = os.fsdecode(path)
    size = file_size(name, "a prototxt", PrototxtError)
    if size > LONGEST:
        raise PrototxtError(f"{name}: {size:,} bytes are more than a prototxt has", "is it the caffemodel?")
    try:
        with open(path, "rb") as file:
            text = decode(file.read(LONGEST), name)
    except OSError as error:
        raise PrototxtError(f"{name}: cannot be read: {error.strerror}") from error
    if not text.strip():
        raise PrototxtError(f"{name}: is empty, not a prototxt")
    return Source(text, name)


def past(pattern: re.Pattern[str], text: str, pos: int) -> int:
    """Where a pattern that fits everywhere, if only the empty string, ends."""
    match = pattern.match(text, pos)
    return match.end() if match else pos


def short(text: str) -> str:
    """`text` in quotes for a message, cut if long; what does not print as an escape."""
    return repr(text if len(text) <= 40 else text[:37] + "...")


def integer(word: str) -> int:
    """'-12', '0x1F' and '017' (octal) as an int. ValueError if `word` is none, or beyond 64 bits."""
    digits = word[1:].lstrip() if word[0] == "-" else word
    if len(digits) > 1 and digits[0] == "0":
        value = int(digits, 16 if digits[1] in "xX" else 8)
    elif len(digits) <= 20:  # more are beyond 64 bits, and int() refuses very many in its own way
        value = int(digits)
    else:
        raise ValueError(word)
    if value >= 2**64:
        raise ValueError(word)
    return -value if word[0] == "-" else value


def real(word: str) -> float:
    """'1', '.5', '1e-3', '1f', '-inf', 'nan', or any integer, as a float. ValueError if `word` is none."""
    body = word[1:].lstrip() if word[0] == "-" else word
    if len(body) > 1 and body[0] == "0" and body[1] in "xX01234567":
        value = float(integer(body))
    elif body[0] in ".0123456789":
        value = float(body.rstrip("fF"))
    elif body.lower() in ("inf", "infinity", "nan"):
        value = float(body)
    else:
        raise ValueError(word)
    return -value if word[0] == "-" else value


def unquote(literals: str) -> str:
    """The string that adjacent literals make. ValueError for an escape that C lacks, or for no UTF-8."""
    if "\\" not in literals and literals.find(literals[0], 1) == len(literals) - 1:
        return literals[1:-1]
    return unquote_bytes(literals).decode()


def unquote_bytes(literals: str) -> bytes:
    """The bytes that adjacent literals make, comments between them left out."""
    parts, pos = [], 0
    while match := _ONE_STRING.match(literals, pos):
        parts.append(_ESCAPE.sub(_unescape, match.group()[1:-1].encode()))
        pos = past(SKIP, literals, match.end())
    return b"".join(parts)


def _unescape(match: re.Match[bytes]) -> bytes:
    octal, hexadecimal, short_code, long_code, letter = match.groups()
    if octal:
        return bytes([int(octal, 8) & 0xFF])
    if hexadecimal:
        return bytes([int(hexadecimal, 16)])
    if letter:
        if letter[0] not in _ESCAPES:
            raise ValueError(
                f"unknown escape {match.group().decode(errors='replace')}: a backslash itself is written \\\\"
            )
        return bytes([_ESCAPES[letter[0]]])
    return chr(int(short_code or long_code, 16)).encode()
