"""Blobs by name from .npz and .h5 files; code in them is not run, and what they claim is not believed."""

from __future__ import annotations

import os
import struct
import zipfile
import zlib

import numpy as np

from caffe_fcn.errors import CaffeError
from caffe_fcn.formats.files import HDF5_MAGIC, file_size

_DAMAGE = (
    OSError, ValueError, KeyError, TypeError, EOFError, RuntimeError, AttributeError, OverflowError,
    MemoryError, NotImplementedError, struct.error, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
# What compression may save, at most, of more than so many bytes; zeros by the gigabyte are no blobs.
_MAX_EXPANSION, _MUCH = 100, 2**30


def read_arrays(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Arrays by name; prefixes `in:` and `out:` are dropped, names with other prefixes left out.

    Raises CaffeError if the file is neither.
    """
    size = file_size(path, "a file of blobs")
    try:
        with open(path, "rb") as file:
            is_hdf5 = file.read(len(HDF5_MAGIC)) == HDF5_MAGIC
        arrays = _hdf5(path, size) if is_hdf5 else _npz(path, size)
    except _DAMAGE as error:
        raise CaffeError(f"{path}: is neither .npz nor .h5: {error}") from error
    plain = {k.removeprefix("in:").removeprefix("out:"): v for k, v in arrays.items()}
    return {k: v for k, v in plain.items() if ":" not in k}


def _npz(path: str | os.PathLike[str], size: int) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(path) as archive:
        _believable(sum(member.file_size for member in archive.infolist()), size)
    with np.load(path, allow_pickle=False) as file:
        arrays = {k: file[k] for k in file.files}
    return {k: a for k, a in arrays.items() if a.dtype.kind == "f"}


def _hdf5(path: str | os.PathLike[str], size: int) -> dict[str, np.ndarray]:
    """The datasets at the top of the file; links are not followed."""
    import h5py

    with h5py.File(path, "r") as file:
        inside = [k for k in file if isinstance(file.get(k, getlink=True), h5py.HardLink)]
        found = {k: file[k] for k in inside if isinstance(file[k], h5py.Dataset)}
        found = {k: v for k, v in found.items() if v.dtype.kind == "f" and not (v.external or v.is_virtual)}
        _believable(sum(v.size * v.dtype.itemsize for v in found.values()), size)
        return {k: np.asarray(v) for k, v in found.items()}


def _believable(claimed: int, size: int) -> None:
    if claimed > max(_MUCH, _MAX_EXPANSION * size):
        raise ValueError(f"it claims to hold {claimed} bytes, and has {size}")
