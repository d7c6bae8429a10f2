"""HDF5 files of training data: one dataset for each top, rows along their first axis (util/hdf5.cpp)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from caffe_fcn.errors import CaffeError
from caffe_fcn.formats.files import atomic_write

if TYPE_CHECKING:
    import h5py

_MAX_COUNT = 2**31 - 1  # Caffe counts in int
# What compression may save, at most; a file that claims more is not taken at its word.
_MAX_EXPANSION = 1000
_DAMAGE = (OSError, RuntimeError, ValueError, KeyError, TypeError, OverflowError, MemoryError, AttributeError)


def read_rows(path: str | os.PathLike[str], names: Sequence[str]) -> list[np.ndarray]:
    """The datasets of these names, whole, as float32, all with as many rows.

    CaffeError for a file that is none or lacks one of them, for other than numbers, and for links to other
    files.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            arrays = [_dataset(file, name, os.path.getsize(path)) for name in names]
    except _DAMAGE as error:
        raise CaffeError(f"{path}: cannot be read as HDF5: {error}") from error
    rows = {name: len(array) for name, array in zip(names, arrays, strict=True)}
    if len(set(rows.values())) > 1 or not rows[names[0]]:
        told = ", ".join(f"{name} {n}" for name, n in rows.items())
        raise CaffeError(f"{path}: its datasets need the same number of rows, at least one: {told}")
    return arrays


def _dataset(file: h5py.File, name: str, size: int) -> np.ndarray:
    import h5py

    link = file.get(name, getlink=True)
    data = file.get(name) if isinstance(link, h5py.HardLink) else None
    if not isinstance(data, h5py.Dataset):
        raise CaffeError(
            f"{file.filename}: no dataset '{name}'", f"it holds {', '.join(sorted(file)) or 'nothing'}"
        )
    if data.dtype.kind not in "fiu" or data.ndim < 1 or data.external or data.is_virtual:
        raise CaffeError(
            f"{file.filename}: dataset '{name}' is {data.dtype} of {data.ndim} axes, not numbers in rows"
        )
    if data.size > min(_MAX_COUNT, _MAX_EXPANSION * size):
        raise CaffeError(
            f"{file.filename}: dataset '{name}' claims {data.size} values in a file of {size} bytes"
        )
    return data.astype(np.float32)[()]


def write_blobs(path: str | os.PathLike[str], blobs: Mapping[str, np.ndarray]) -> None:
    """Write arrays as datasets of these names; the file appears when it is whole."""
    import h5py

    with atomic_write(path) as file, h5py.File(file, "w") as out:
        for name, array in blobs.items():
            out.create_dataset(name, data=array, dtype=np.float32)
