"""A whole binary NetParameter as a message, for what needs more of it than its weights."""

from __future__ import annotations

import os

from google.protobuf.message import DecodeError

from caffe_fcn.errors import CaffemodelError
from caffe_fcn.formats import caffe_pb2
from caffe_fcn.formats.files import map_file, refuse_other_kinds
from caffe_fcn.formats.upgrade import upgrade


def read_upgraded(path: str | os.PathLike[str]) -> caffe_pb2.NetParameter:
    """Read a .caffemodel of any age and bring it to today's form (UpgradeNetAsNeeded).

    The message holds every value in memory. Raises CaffemodelError if the file is no NetParameter.
    """
    data = map_file(path, "a caffemodel")
    refuse_other_kinds(path, data, "a caffemodel")
    try:
        net = caffe_pb2.NetParameter.FromString(data[:])
    except DecodeError as error:
        raise CaffemodelError(f"{path}: is no NetParameter: {error}") from error
    return upgrade(net)[0]
