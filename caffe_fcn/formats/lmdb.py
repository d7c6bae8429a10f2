"""Databases of Datum records in LMDB, as Caffe's convert_imageset writes them. Needs the extra `lmdb`."""

from __future__ import annotations

import os
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
from google.protobuf.message import DecodeError

from caffe_fcn.errors import CaffeError
from caffe_fcn.formats import caffe_pb2
from caffe_fcn.formats.images import Mode, read_image

_open: WeakValueDictionary[str, _Database] = WeakValueDictionary()  # LMDB opens a database once in a process


class _Database:
    """An open environment; closed when the last cursor on it goes."""

    def __init__(self, path: str) -> None:
        try:
            import lmdb
        except ImportError as error:
            raise CaffeError(
                f"{path}: reading LMDB needs a package more", "pip install caffe-fcn[lmdb]"
            ) from error
        try:
            self.environment = lmdb.open(
                path, readonly=True, lock=False, readahead=False, subdir=os.path.isdir(path)
            )
        except (lmdb.Error, OSError) as error:
            raise CaffeError(f"{path}: cannot be opened as an LMDB database: {error}") from error


class Records:
    """A cursor over a database's records, in the order of their keys; after the last comes the first."""

    def __init__(self, path: str) -> None:
        """CaffeError if there is no such database, or nothing in it."""
        if not os.path.exists(path):
            raise CaffeError(f"{path}: no such database")
        self.path, key = path, os.path.realpath(path)
        self._database = _open.get(key) or _open.setdefault(key, _Database(path))
        self._cursor = self._database.environment.begin().cursor()
        if not self._cursor.first():
            raise CaffeError(f"{path}: the database is empty")

    def datum(self) -> Any:
        """The record that the cursor stands on, as a Datum."""
        try:
            return caffe_pb2.Datum.FromString(self._cursor.value())
        except DecodeError as error:
            raise CaffeError(f"{self._told()}: is not a Datum: {error}") from error

    def image(self, mode: Mode = "native") -> np.ndarray:
        """Its values: (channels, height, width), uint8, or float32 where it holds float_data.

        `mode` is how to decode a record that holds an image file. CaffeError if the numbers do not fit.
        """
        datum = self.datum()
        if datum.encoded:
            return read_image(datum.data, mode, self._told())
        shape = (datum.channels, datum.height, datum.width)
        flat = np.frombuffer(datum.data, np.uint8) if datum.data else np.asarray(datum.float_data, np.float32)
        if min(shape) <= 0 or flat.size != shape[0] * shape[1] * shape[2]:
            raise CaffeError(f"{self._told()}: is {shape} and holds {flat.size} values")
        return flat.reshape(shape)

    def advance(self) -> None:
        if not self._cursor.next():
            self._cursor.first()

    def _told(self) -> str:
        return f"{self.path}: record {self._cursor.key().decode(errors='replace')!r}"
