"""Weights files of either kind."""

from __future__ import annotations

import os

from caffe_fcn.formats import caffemodel, hdf5
from caffe_fcn.formats.blobs import StoredLayer
from caffe_fcn.formats.files import HDF5_MAGIC, map_file


def load(path: str | os.PathLike[str]) -> list[StoredLayer]:
    """The layers of a .caffemodel or .caffemodel.h5, told apart by what is in the file, not by its name."""
    is_hdf5 = map_file(path, "a caffemodel")[: len(HDF5_MAGIC)] == HDF5_MAGIC
    return hdf5.read(path) if is_hdf5 else caffemodel.read(path)
