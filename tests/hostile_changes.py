"""Real files, and how they are changed into hostile ones: bytes, words, numbers, pieces of one in another."""

from __future__ import annotations

import io
import re
from functools import cache
from random import Random

import numpy as np

from tests.conftest import HERE, REFERENCE
from tests.hostile_nets import FLOATS, INTS, NAMES

PROTOTXTS = HERE.parent / "prototxts"
LARGEST = {"prototxt": 6000}  # bytes of a file to start from; larger nets take their time
WORD = re.compile(rb"""[\w.+-]+|"[^"\n]*"|[^\s\w]""")
NUMBER = re.compile(rb"-?\d+(\.\d+)?")
BYTES = (
    b"",
    b"\0",
    b"\xff",
    b"\x80",
    b"\xff" * 9,
    b"\x7f\xff\xff\xff",
    b"\0\0\0\x80",
    bytes(8),
    b"\xff" * 10,
)


@cache
def seeds(target: str) -> tuple[bytes, ...]:
    """Real files that a target of `tests.hostile` may start from."""
    found = {
        "caffemodel": [*REFERENCE.rglob("*.caffemodel")],
        "prototxt": [*REFERENCE.rglob("*.prototxt"), *PROTOTXTS.rglob("*.prototxt")],
        "hdf5": [*REFERENCE.rglob("*.h5")],
        "npz": [*REFERENCE.rglob("*.npz")],
    }.get(target, [])
    files = [
        path.read_bytes() for path in sorted(found) if path.stat().st_size <= LARGEST.get(target, 1 << 16)
    ]
    return tuple(files) or tuple(_made(target))


def _made(target: str) -> list[bytes]:
    if target == "binaryproto":
        legacy = b"\x08\x01\x10\x02\x18\x01\x20\x01\x2a\x08\0\0\x80\x3f\0\0\0\x40"
        return [legacy, b"\x3a\x04\x0a\x02\x02\x01\x2a\x08\0\0\x80\x3f\0\0\0\x40", b"\x2d\0\0\x80\x3f"]
    if target == "image":
        return [_image(mode, form) for mode in ("RGB", "L", "P") for form in IMAGES]
    return [bytes(range(n)) for n in (16, 64, 255)]  # choices: any will do


IMAGES = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")


def _image(mode: str, form: str) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    image = Image.fromarray(np.arange(36, dtype=np.uint8).reshape(6, 6)).convert(mode)
    (image.convert("RGB") if mode == "P" and form in ("JPEG", "PPM", "WEBP") else image).save(file, form)
    return file.getvalue()


def changed(content: bytes, rng: Random, target: str) -> bytes:
    """The content with a few changes; what it becomes, `rng` says."""
    change = _text if target == "prototxt" and rng.random() < 0.9 else _bytes
    for _ in range(rng.choice((1, 1, 2, 3, 8))):
        content = change(content, rng, seeds(target))
    return content


def _bytes(content: bytes, rng: Random, others: tuple[bytes, ...]) -> bytes:
    start = rng.randrange(len(content) + 1)
    stop = min(len(content), start + rng.choice((0, 1, 1, 4, 8, 100)))
    kind = rng.randrange(5)
    if kind == 0:
        put = bytes([rng.randrange(256)])
    elif kind == 1:
        put = rng.choice(BYTES)
    elif kind == 2:
        put = content[start:stop] * rng.choice((0, 2, 3))
    elif kind == 3:
        other = rng.choice(others)
        at = rng.randrange(len(other) + 1)
        put = other[at : at + rng.choice((1, 8, 100))]
    else:
        return content[:start] if rng.random() < 0.2 else content
    return content[:start] + put + content[stop:]


def _text(content: bytes, rng: Random, others: tuple[bytes, ...]) -> bytes:
    """One word, number or line, or a layer of another file."""
    kind = rng.randrange(5)
    if kind == 0:
        return _word(content, rng, NUMBER, _number(rng))
    if kind == 1:
        words = WORD.findall(rng.choice((content, rng.choice(others)))) or [b"x"]
        return _word(content, rng, WORD, rng.choice(words))
    if kind == 2:
        return _word(content, rng, re.compile(rb'"[^"\n]*"'), b'"' + rng.choice(NAMES).encode() + b'"')
    lines = content.split(b"\n")
    start = rng.randrange(len(lines))
    stop = start + rng.choice((0, 1, 1, 5))
    if kind == 3:
        lines[start:stop] = rng.choice(([], lines[start:stop] * 2))
    else:
        more = rng.choice(others).split(b"\n")
        at = rng.randrange(len(more))
        lines[start:stop] = more[at : at + rng.choice((1, 5, 12))]
    return b"\n".join(lines)


def _word(content: bytes, rng: Random, pattern: re.Pattern[bytes], put: bytes) -> bytes:
    found = [match.span() for match in pattern.finditer(content)]
    if not found:
        return content
    start, stop = rng.choice(found)
    return content[:start] + put + content[stop:]


def _number(rng: Random) -> bytes:
    small = range(10)
    return str(
        rng.choice((rng.choice(small), rng.choice(small), rng.choice(INTS), rng.choice(FLOATS)))
    ).encode()
