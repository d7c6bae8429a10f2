"""Files of one BlobProto: mean.binaryproto, and single blobs."""

from __future__ import annotations

import os

import numpy as np

from caffe_fcn.formats.blobs import blob_head, parse_blob, write_values
from caffe_fcn.formats.files import atomic_write, map_file, refuse_other_kinds
from caffe_fcn.formats.wire import Scanner


def read_blob(path: str | os.PathLike[str]) -> np.ndarray:
    """The array of a .binaryproto in its shape: a mean of compute_image_mean is (1, channels, height, width).

    float32, or float64 where the file holds doubles; a view into the mapped file. CaffemodelError for
    anything that is not one whole blob.
    """
    data = map_file(path, "a blob")
    refuse_other_kinds(path, data, "a blob")
    return parse_blob(Scanner(path, data), 0, len(data)).data


def write_blob(path: str | os.PathLike[str], array: np.ndarray) -> None:
    """Write one array, its shape with it, as packed float32."""
    head = blob_head(array)
    with atomic_write(path) as file:
        file.write(head)
        write_values(file, array)
