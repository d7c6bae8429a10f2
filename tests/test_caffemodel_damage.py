"""Damaged and hostile weights files: every one is named or read, in bounded time and memory."""

import tracemalloc

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from caffe_fcn.errors import CaffemodelError
from caffe_fcn.formats import caffe_pb2, caffemodel, weights, wire
from caffe_fcn.formats.wire import encode_bytes, encode_varint
from tests.test_caffemodel import FLOATS, data, layer, shape, stored

__all__ = ["stored"]  # the fixture

HTML = b"\n <!DOCTYPE html><html><body>404</body></html>"
TEXT = b"The quota of this link has been exceeded.\n"
HUGE = shape(2**31, 2**31, 2**31)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (HTML, "is an HTML or XML page, not a caffemodel\n  the download probably failed"),
        (b"<?xml version='1.0'?><Error>AccessDenied</Error>", "is an HTML or XML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a git-lfs pointer"),
        (b"PK\x03\x04" + bytes(99), "is a zip archive"),
        (b"\x1f\x8b\x08" + bytes(99), "is gzip-compressed"),
        (b"a" + bytes(256) + b"ustar" + bytes(250), "is a tar archive"),
        (b"\x93NUMPY\x01" + bytes(99), "is a NumPy array"),
        (b"\x89HDF\r\n\x1a\n" + bytes(99), "is an HDF5 file"),
        (b'# a net\nname: "n"\n', "is a prototxt .text., not a caffemodel\n  were the prototxt and"),
        (b'layer { name: "\xc3\xa9" }', "is a prototxt"),
        (TEXT, "is plain text"),
        (b"", "is empty, not a caffemodel"),
        (encode_bytes(3, b"data\xff") * 3, "holds neither layers nor a net's name"),
        (b"\x08\x07\x12\x07pytorch", "at byte 0: field 1 .name. is a number instead of a length and bytes"),
        (b"\x0a\x01n\x00\x01", "at byte 3: no field of any message starts with 0x0"),
        (b"\x0a\x01n\x0b", "at byte 3: no field of any message starts with 0xb"),
        (b"\x0a\x01n\x80\x80\x80\x80\x80\x01\x00", "at byte 3: no field of any message"),
        (b"\x0a\x01n\x20" + b"\xff" * 11, "at byte 4: a number of more than 10 bytes"),
        (b"\x0a\x01n\x20\xff", "at byte 4: 2 bytes expected, 1 left: the file is truncated"),
        (b"\x0a\x01n\x35\x00\x00", "at byte 4: 4 bytes expected, 2 left: the file is truncated"),
        (encode_bytes(1, b"x" * 70_000), "at byte 4: a name of 70,000 bytes"),
        (layer()[:-1], "at byte 3: 7 bytes expected, 6 left: the file is truncated"),
        (layer() + layer()[:-1], "after layer 0 'conv1': at byte 13: 7 bytes expected, 6 left"),
        (encode_bytes(100, b"\x0a\x05a") + layer(), "layer 0: at byte 5: 5 bytes claimed .* has 1 left"),
        (encode_bytes(100, b"\x3d" + bytes(4)), "layer 0: at byte 3: field 7 .blobs. is 4 bytes instead of"),
        (encode_bytes(2, b"\x2a\x00"), "layer 0: at byte 2: field 5 .type. is a length and bytes instead of"),
        (layer(data()), "layer 0 'conv1', blob 0: at byte 12: the shape .. holds 1 values, the file has 6"),
        (layer(shape(6) + data(), shape(2, 2) + data()), "'conv1', blob 1: .* shape 2 2 holds 4 .* has 6"),
        (layer(shape(7)), "the shape 7 holds 7 values, the file has 0"),
        (layer(shape(-2, -3) + data()), "negative size in the shape -2 -3"),
        (layer(b"\x08" + encode_varint(2**64 - 6) + data()), "negative size in the shape -6 0 0 0"),
        (layer(HUGE + data()), "the shape 2147483648 2147483648 2147483648 holds more than 2,147,483,647"),
        (layer(shape(0, 2**62, 2**62)), "holds more than 2,147,483,647 values"),
        (layer(shape(*[1] * 33) + data([1])), "more than 32 axes"),
        (layer(shape(6) + encode_bytes(5, bytes(23))), "23 bytes are no whole number of 4-byte values"),
        (layer(encode_bytes(5, bytes(24))[:-1]), "blob 0: at byte 14: 24 bytes expected, 23 left"),
        (
            layer(shape(6) + b"\x28\x01"),
            "field 5 .data. is a number instead of a length and bytes or 4 bytes",
        ),
        (layer(b"\x50\x03" + encode_bytes(12, bytes(4))), "raw_data of type 3"),
    ],
)
def test_damage_is_named(stored, content, message):
    with pytest.raises(CaffemodelError, match=r"(?s)net\.caffemodel: .*" + message):
        stored(content)


def test_every_truncation(stored):
    content = encode_bytes(1, b"net") + layer(shape(6) + data(), shape(2, 3) + data()) + layer(name=b"relu1")
    whole = {0: "is empty", 5: [], len(content) - 10: ["conv1"], len(content): ["conv1", "relu1"]}
    for length in range(len(content) + 1):
        if isinstance(whole.get(length), list):
            assert [one.name for one in stored(content[:length])] == whole[length]
        else:
            with pytest.raises(CaffemodelError, match=whole.get(length, "the file is truncated|plain text")):
                stored(content[:length])


@pytest.mark.parametrize(
    "content", [layer(), layer(data([]) * 9 + data([1])), encode_bytes(100, b"\x50\x00" * 9)]
)
def test_number_of_fields_is_bounded(stored, content, monkeypatch):
    monkeypatch.setattr(wire, "_MAX_FIELDS", 500)
    with pytest.raises(CaffemodelError, match="more than 500 fields"):
        stored(content * 501)


def test_hundred_thousand_layers(stored):
    assert len(stored(layer(shape(6) + data()) * 100_000)) == 100_000


def test_values_that_are_claimed_are_never_allocated(stored):
    tracemalloc.start()
    with pytest.raises(CaffemodelError, match="holds 2,147,483,647 values, the file has 6"):
        stored(layer(shape(2**31 - 1) + data()))
    assert tracemalloc.get_traced_memory()[1] < 1e6
    tracemalloc.stop()


def test_load_says_what_a_file_is_not(tmp_path):
    (tmp_path / "a.caffemodel.h5").write_bytes(HTML)
    with pytest.raises(CaffemodelError, match=r"a.caffemodel.h5: is an HTML or XML page"):
        weights.load(tmp_path / "a.caffemodel.h5")


# Laws

fields = st.one_of(
    st.builds(encode_bytes, st.sampled_from([1, 2, 4, 5, 6, 7, 8, 10, 12, 50, 100]), st.binary(max_size=9)),
    st.builds(
        lambda n, value: encode_varint(n << 3) + encode_varint(value), st.integers(1, 12), st.integers(0, 99)
    ),
    st.builds(
        lambda n, raw: encode_varint(n << 3 | 5) + raw, st.integers(1, 12), st.binary(min_size=4, max_size=4)
    ),
    st.builds(lambda dims: shape(*dims), st.lists(st.integers(0, 3), max_size=3)),
    st.builds(data, st.lists(st.integers(0, 9), max_size=6)),
)


def nest(inner):
    return st.builds(
        encode_bytes, st.sampled_from([1, 2, 6, 7, 50, 100]), st.lists(inner, max_size=4).map(b"".join)
    )


messages = st.lists(st.recursive(fields, nest, max_leaves=12), max_size=6).map(b"".join)


def read_any(content, folder):
    """The layers of any bytes, or None if they are refused: with our error only, naming the file."""
    path = folder / "any.caffemodel"
    path.write_bytes(content)
    try:
        net = caffemodel.read(path)
    except CaffemodelError as error:
        refusal = str(error)
    else:
        refusal = ""
    if refusal:
        assert refusal.startswith(str(path))
        return None
    for one in net:
        assert sum(blob.data.nbytes for blob in one.blobs) <= len(content)
    return net


@given(st.one_of(st.binary(max_size=200), messages))
@settings(max_examples=400, deadline=None)
def test_any_bytes_are_read_as_protobuf_reads_them_or_refused(tmp_path_factory, content):
    net = read_any(content, tmp_path_factory.getbasetemp())
    if net is None:
        return
    try:
        message = caffe_pb2.NetParameter.FromString(content)
    except DecodeError:
        return  # in a field that holds no weights
    assert len(net) == len(message.layer) + len(message.layers)
    if not message.layers:
        for one, proto in zip(net, message.layer, strict=True):
            assert len(one.blobs) == len(proto.blobs)


SOME = b"".join(encode_bytes(7, blob) for blob in (shape(2, 3) + data(), data(FLOATS[:1]), b"\x2d\0\0\0\0"))
VALID = (
    encode_bytes(1, b"net") + encode_bytes(100, encode_bytes(1, b"ip") + encode_bytes(2, b"Type") + SOME) * 2
)


@given(
    st.lists(st.tuples(st.integers(0, len(VALID) - 1), st.integers(0, 255)), min_size=1, max_size=4),
    st.data(),
)
@settings(max_examples=400, deadline=None)
def test_damaged_files_are_read_or_refused(tmp_path_factory, changes, more):
    content = bytearray(VALID)
    for at, byte in changes:
        content[at] = byte
    at = more.draw(st.integers(0, len(content)))
    content[at : at + more.draw(st.integers(0, 3))] = more.draw(st.binary(max_size=3))
    read_any(bytes(content), tmp_path_factory.getbasetemp())
