"""Files as a whole: mapped for reading, named when they are of another kind; written all or not at all."""

from __future__ import annotations

import mmap
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from caffe_fcn.errors import CaffeError, CaffemodelError

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
_DOWNLOAD = "the download probably failed: fetch the file itself"
_SWAPPED = "were the prototxt and the weights given in the wrong order?"
# What people hand in by mistake: how it begins, what it is, what to do. The first that fits is named.
_KINDS = (
    (rb"\s*(\xef\xbb\xbf)?\s*<(!doctype|html|head|\?xml|!--)", "an HTML or XML page", _DOWNLOAD),
    (rb"version https://git-lfs", "a git-lfs pointer", "get the file itself: git lfs pull"),
    (re.escape(HDF5_MAGIC), "an HDF5 file", ""),
    (rb"PK\x03\x04", "a zip archive", "unpack it first"),
    (rb"\x1f\x8b", "gzip-compressed", "unpack it first"),
    (rb"(?s).{257}ustar", "a tar archive", "unpack it first"),
    (rb"\x93NUMPY", "a NumPy array", ""),
    (rb"(\s*#.*\n)*\s*(name|input|layers?|state|force_backward)\s*[:{]", "a prototxt (text)", _SWAPPED),
    (rb"[\t\n\r\x20-\x7e]+\Z", "plain text", _DOWNLOAD),
)


def file_size(path: str | os.PathLike[str], wanted: str, error: type[CaffeError] = CaffeError) -> int:
    """Bytes of a file, asked before it is opened: a pipe would wait for its writer, a device has no end.

    `wanted` says in messages what the file should have been. `error` if there is no such file, or it is none.
    """
    try:
        status = os.stat(path)
    except OSError as problem:
        raise error(f"{path}: cannot be read: {problem.strerror}") from problem
    except ValueError as problem:  # a NUL in the name
        raise error(f"{os.fspath(path)!r}: is not a file's name: {problem}") from problem
    if not stat.S_ISREG(status.st_mode):
        raise error(f"{path}: is not a file, so not {wanted}")
    return status.st_size


def map_file(path: str | os.PathLike[str], wanted: str) -> mmap.mmap:
    """Map a file copy-on-write: nothing is read yet, and what is written to the map never reaches the file.

    `wanted` says in messages what the file should have been. CaffemodelError if there is no such file, or
    nothing in it.
    """
    if not file_size(path, wanted, CaffemodelError):
        raise CaffemodelError(f"{path}: is empty, not {wanted}", _DOWNLOAD)
    try:
        with open(path, "rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    except OSError as error:
        raise CaffemodelError(f"{path}: cannot be read: {error.strerror}") from error


def refuse_other_kinds(path: str | os.PathLike[str], data: mmap.mmap, wanted: str) -> None:
    """CaffemodelError that names it, if the file is one of the kinds that people hand in by mistake."""
    head = data[:512]
    for pattern, kind, hint in _KINDS:
        if re.match(pattern, head, re.IGNORECASE):
            raise CaffemodelError(f"{path}: is {kind}, not {wanted}", hint)


def legible(text: bytes) -> str:
    """UTF-8, else byte by byte: old files have names in GBK, and a name has to be one string in all files."""
    try:
        return text.decode()
    except UnicodeDecodeError:
        return text.decode("latin-1")


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path`, to read and write; give it that name when the block succeeds.

    The block that fails leaves whatever stood at `path` as it was, and nothing beside it. Symbolic links are
    followed; permissions are those of any new file (umask). A full disk, an unwritable folder, a directory or
    a device at `path`: CaffeError.
    """
    target = target_of(path)
    temporary = target.with_name(f".{target.name[:40]}.{secrets.token_hex(4)}.tmp")
    try:
        file = temporary.open("x+b")
    except OSError as error:
        raise CaffeError(f"{path}: cannot be written: {target.parent}: {error.strerror}") from error
    try:
        with file:
            yield file
        temporary.replace(target)
    except OSError as error:
        # Failed writes name no file, failed renames ours; what names another file is the block's own affair.
        if error.filename not in (None, str(temporary)):
            raise
        raise CaffeError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def target_of(path: str | os.PathLike[str]) -> Path:
    """The file that is written for `path`, links followed. CaffeError, saying why, if it cannot be."""
    try:
        target = Path(os.path.realpath(path))
    except ValueError as error:  # a NUL in the name
        raise CaffeError(f"{os.fspath(path)!r}: is not a file's name: {error}") from error
    if os.path.isdir(target):
        raise CaffeError(f"{path}: is a directory, not a file", "give the name of a file in it")
    if not os.path.isdir(target.parent):
        raise CaffeError(f"{path}: cannot be written: {target.parent}: no such folder")
    if os.path.exists(target) and not os.path.isfile(target):
        raise CaffeError(f"{path}: is a device or a pipe, not a file")
    if os.path.exists(target) and not os.access(target, os.W_OK):
        raise CaffeError(f"{path}: cannot be written: the file that is there is write-protected")
    return target
