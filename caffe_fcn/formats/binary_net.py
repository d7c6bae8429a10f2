"""A whole binary NetParameter as a message, for what needs more of it than its weights."""

from __future__ import annotations

import os

from google.protobuf.message import DecodeError, Message

from caffe_fcn.errors import CaffemodelError
from caffe_fcn.formats import caffe_pb2
from caffe_fcn.formats.files import legible, map_file, refuse_other_kinds
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
    _readable(net)
    return upgrade(net)[0]


def _readable(message: Message) -> None:
    """Text that is not UTF-8, which protobuf gives as bytes, in the form that all readers give it."""
    for field, value in message.ListFields():
        if field.type == field.TYPE_STRING:
            one = isinstance(value, (str, bytes))
            told = [
                legible(text) if isinstance(text, bytes) else text for text in ([value] if one else value)
            ]
            if one:
                setattr(message, field.name, told[0])
            else:
                value[:] = told
        elif field.type == field.TYPE_MESSAGE and field.name != "blobs":
            for part in [value] if isinstance(value, Message) else value:
                _readable(part)
