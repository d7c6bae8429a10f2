"""Mean files and single blobs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caffe_fcn.errors import CaffemodelError
from caffe_fcn.formats import binaryproto, caffe_pb2

MEAN = np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4)


@pytest.mark.parametrize(
    ("blob", "want"),
    [
        (caffe_pb2.BlobProto(num=1, channels=2, height=3, width=4, data=MEAN.ravel()), MEAN),
        (caffe_pb2.BlobProto(shape={"dim": [2, 12]}, data=MEAN.ravel()), MEAN.reshape(2, 12)),
        (caffe_pb2.BlobProto(shape={"dim": [3]}, double_data=[0.1, 0.2, 0.3]), np.array([0.1, 0.2, 0.3])),
        (caffe_pb2.BlobProto(data=[7]), np.array(7, np.float32)),
    ],
    ids=["legacy", "shape", "double", "scalar"],
)
def test_what_protobuf_wrote(tmp_path, blob, want):
    (tmp_path / "mean.binaryproto").write_bytes(blob.SerializeToString())
    got = binaryproto.read_blob(tmp_path / "mean.binaryproto")
    assert got.shape == want.shape
    assert got.dtype == want.dtype
    assert np.array_equal(got, want)


def test_exact_bytes(tmp_path):
    binaryproto.write_blob(tmp_path / "a", np.array([[1.0], [2.0]]))
    assert (tmp_path / "a").read_bytes() == bytes.fromhex("3a 04 0a 02 02 01  2a 08 00 00 80 3f 00 00 00 40")


def test_what_is_written_is_read(tmp_path):
    binaryproto.write_blob(tmp_path / "a", MEAN)
    got = binaryproto.read_blob(tmp_path / "a")
    assert got.shape == MEAN.shape
    assert np.array_equal(got, MEAN)
    message = caffe_pb2.BlobProto.FromString((tmp_path / "a").read_bytes())
    assert list(message.shape.dim) == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty, not a blob"),
        (b"<html>", "is an HTML or XML page, not a blob"),
        (b"\x0a\x03net\xa2\x06\x00", "at byte 0: field 1 .num. is a length and bytes instead of a number"),
        (
            b"\x3a\x03\x0a\x01\x02\x2a\x08" + bytes(7),
            "at byte 7: 8 bytes expected, 7 left: the file is truncated",
        ),
        (b"\x3a\x03\x0a\x01\x03\x2a\x08" + bytes(8), "at byte 0: the shape 3 holds 3 values, the file has 2"),
    ],
)
def test_damage_is_named(tmp_path, content, message):
    (tmp_path / "mean.binaryproto").write_bytes(content)
    with pytest.raises(CaffemodelError, match=rf"mean\.binaryproto: {message}"):
        binaryproto.read_blob(tmp_path / "mean.binaryproto")


@given(st.binary(max_size=60))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_read_as_protobuf_reads_them_or_refused(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.binaryproto"
    path.write_bytes(content)
    try:
        got = binaryproto.read_blob(path)
    except CaffemodelError:
        return
    message = caffe_pb2.BlobProto.FromString(content)
    np.testing.assert_array_equal(got.ravel(), np.array(message.double_data or message.data, got.dtype))
