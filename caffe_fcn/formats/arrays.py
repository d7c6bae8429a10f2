"""Blobs by name from .npz and .h5 files."""

from __future__ import annotations

import os
import zipfile

import numpy as np

from caffe_fcn.errors import CaffeError


def read_arrays(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Arrays by name; prefixes `in:` and `out:` are dropped, names with other prefixes left out.

    Raises CaffeError if the file is neither.
    """
    if str(path).endswith((".h5", ".hdf5")):
        import h5py

        with h5py.File(path, "r") as file:
            arrays = {k: np.asarray(v) for k, v in file.items() if isinstance(v, h5py.Dataset)}
    else:
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {k: file[k] for k in file.files}
        except (ValueError, zipfile.BadZipFile) as error:
            raise CaffeError(f"{path}: is neither .npz nor .h5: {error}") from error
    plain = {k.removeprefix("in:").removeprefix("out:"): v for k, v in arrays.items()}
    return {k: v for k, v in plain.items() if ":" not in k and v.dtype.kind == "f"}
