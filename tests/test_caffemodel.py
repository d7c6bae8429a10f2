"""Binary weights: Caffe's own files, exact bytes, old forms, and any bytes at all."""

import base64
import math
import time
import tracemalloc
from mmap import mmap
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caffe_fcn.errors import CaffemodelError
from caffe_fcn.formats import caffe_pb2, caffemodel, weights
from caffe_fcn.formats.binary_net import read_upgraded
from caffe_fcn.formats.prototxt import read_net
from caffe_fcn.formats.wire import encode_bytes, encode_varint
from tests.conftest import REFERENCE, SHARED

FILES = sorted(REFERENCE.glob("*/*.caffemodel"))
FLOATS = np.array([1.5, -2.0, 0.0, 3.25e8, 1e-40, np.inf], np.float32)


@pytest.fixture
def stored(tmp_path):
    """A function: bytes or a message -> what is read from a file of them."""

    def read(content):
        path = tmp_path / "net.caffemodel"
        path.write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
        return caffemodel.read(path)

    return read


def layer(*blobs: bytes, name: bytes = b"conv1") -> bytes:
    """A net of one layer, its blobs as they are to stand in the file."""
    return encode_bytes(100, encode_bytes(1, name) + b"".join(encode_bytes(7, blob) for blob in blobs))


def shape(*dims: int) -> bytes:
    return encode_bytes(7, encode_bytes(1, b"".join(encode_varint(dim % 2**64) for dim in dims)))


def data(values=FLOATS) -> bytes:
    return encode_bytes(5, np.asarray(values, "<f4").tobytes())


# What Caffe and protobuf wrote


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_caffes_own_files(path):
    message = caffe_pb2.NetParameter.FromString(path.read_bytes())
    net = caffemodel.read(path)
    assert net.name == message.name
    assert [(got.name, got.type, len(got.blobs)) for got in net] == [
        (want.name, want.type, len(want.blobs)) for want in message.layer
    ]
    for got, want in zip(net, message.layer, strict=True):
        for blob, proto in zip(got.blobs, want.blobs, strict=True):
            assert blob.data.shape == tuple(proto.shape.dim)
            assert not blob.legacy
            assert np.array_equal(blob.data.ravel(), np.array(proto.data, np.float32))


@pytest.mark.parametrize("path", FILES[:3], ids=lambda path: path.stem)
def test_written_file_is_the_message_that_caffe_wrote(path, tmp_path):
    net = caffemodel.read(path)
    caffemodel.write(
        tmp_path / "a", net.name, ((one.name, one.type, [blob.data for blob in one.blobs]) for one in net)
    )
    message = caffe_pb2.NetParameter.FromString(path.read_bytes())
    want = caffe_pb2.NetParameter(name=message.name)
    for one in message.layer:
        want.layer.add(name=one.name, type=one.type, blobs=one.blobs)
    assert caffe_pb2.NetParameter.FromString((tmp_path / "a").read_bytes()) == want


def test_exact_bytes(tmp_path):
    arrays = [np.array([[1.0, 2.0]], np.float32), np.array(-1, np.float32)]
    caffemodel.write(tmp_path / "a", "n", [("ip", "InnerProduct", arrays), ("relu", "ReLU", [])])
    assert (tmp_path / "a").read_bytes() == bytes.fromhex(
        "0a 01 6e"  # name: "n"
        "a2 06 30"  # layer, 48 bytes
        "0a 02 69 70  12 0c 49 6e 6e 65 72 50 72 6f 64 75 63 74"  # its name and type
        "3a 10  3a 04 0a 02 01 02  2a 08 00 00 80 3f 00 00 00 40"  # blob: shape 1 2, data 1 2
        "3a 0a  3a 02 0a 00  2a 04 00 00 80 bf"  # blob: no axes, data -1
        "a2 06 0c  0a 04 72 65 6c 75  12 04 52 65 4c 55"
    )


# Views


def test_blobs_are_views_that_never_reach_the_file(stored, tmp_path):
    content = layer(shape(2, 3) + data(), name=b"an odd offset")
    blob = stored(content)[0].blobs[0].data
    base = blob
    while isinstance(base, np.ndarray):
        base = base.base
    assert isinstance(base, mmap)
    blob[:] = 7
    assert (tmp_path / "net.caffemodel").read_bytes() == content
    assert stored(content)[0].blobs[0].data[0, 0] == 1.5


def test_opening_half_a_gigabyte_reads_none_of_it(tmp_path):
    values = 600_000_000  # bytes of them, in a sparse file
    blob = shape(values // 4) + b"\x2a" + encode_varint(values)
    inside = encode_varint(7 << 3 | 2) + encode_varint(len(blob) + values) + blob
    with open(tmp_path / "big.caffemodel", "wb") as file:
        file.write(encode_varint(100 << 3 | 2) + encode_varint(len(inside) + values) + inside)
        file.truncate(file.tell() + values)
    tracemalloc.start()
    begin = time.perf_counter()
    net = caffemodel.read(tmp_path / "big.caffemodel")
    seconds, peak = time.perf_counter() - begin, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert net[0].blobs[0].data.shape == (150_000_000,)
    assert seconds < 0.5
    assert peak < 1e6


# Old and other forms


def test_v1_layers_with_legacy_shapes(stored):
    net = caffe_pb2.NetParameter(name="old")
    one = net.layers.add(name="ip", type=caffe_pb2.V1LayerParameter.INNER_PRODUCT)
    one.blobs.add(num=1, channels=1, height=2, width=3, data=FLOATS)
    one.blobs.add(width=0)
    net.layers.add(name="none")
    net.layers.add(name="fork").MergeFromString(b"\x28\x96\x01")  # type: 150, which no Caffe knows
    got = stored(net)
    assert [(each.name, each.type) for each in got] == [
        ("ip", "INNER_PRODUCT"),
        ("none", ""),
        ("fork", "150"),
    ]
    assert np.array_equal(got[0].blobs[0].data, FLOATS.reshape(1, 1, 2, 3))
    assert [blob.legacy for blob in got[0].blobs] == [True, True]
    assert got[0].blobs[1].data.shape == (0, 0, 0, 0)


def test_v0_layers_are_inside_v1_layers(stored):
    net = caffe_pb2.NetParameter()
    one = net.layers.add(bottom=["data"], top=["conv1"])
    one.layer.name, one.layer.type = "conv1", "conv"
    one.layer.blobs.add(num=6, channels=1, height=1, width=1, data=FLOATS)
    (got,) = stored(net)
    assert (got.name, got.type) == ("conv1", "conv")
    assert np.array_equal(got.blobs[0].data.ravel(), FLOATS)


def test_legacy_shape_goes_before_shape(stored):
    net = caffe_pb2.NetParameter()
    net.layer.add(name="a").blobs.add(
        num=1, channels=6, height=1, width=1, shape={"dim": [2, 3]}, data=FLOATS
    )
    blob = stored(net)[0].blobs[0]
    assert blob.data.shape == (1, 6, 1, 1)
    assert blob.legacy


def test_unpacked_floats_are_a_view(stored):
    blob = (
        stored(layer(b"".join(b"\x2d" + value.tobytes() for value in FLOATS) + shape(2, 3)))[0].blobs[0].data
    )
    assert np.array_equal(blob, FLOATS.reshape(2, 3))
    assert blob.strides == (15, 5)


def test_long_unpacked_run_ends_where_it_ends(stored):
    """Other fields, the first 5 bytes long as well, before, between and behind 70,000 and 3 values."""
    values = np.arange(70_003, dtype="<f4")
    run = [b"\x2d" + value.tobytes() for value in values]
    diff = b"\x35\x2d\x2d\x2d\x2d"
    blob = diff + b"".join(run[:-3]) + diff + shape(70_003) + b"".join(run[-3:]) + diff
    assert np.array_equal(stored(layer(blob))[0].blobs[0].data, values)


def test_pieces_of_a_field_are_joined(stored):
    double = b"\x41" + np.float64(0.1).tobytes() + encode_bytes(8, np.arange(5.0).tobytes())
    net = stored(
        layer(data(FLOATS[:4]) + shape(2) + data([]) + data(FLOATS[4:]) + shape(3), double + shape(6))
    )
    assert np.array_equal(net[0].blobs[0].data, FLOATS.reshape(2, 3))
    assert net[0].blobs[0].data.dtype == np.float32
    assert np.array_equal(net[0].blobs[1].data, [0.1, 0, 1, 2, 3, 4])
    assert net[0].blobs[1].data.dtype == np.float64


def test_doubles_go_before_floats(stored):
    net = caffe_pb2.NetParameter()
    net.layer.add(name="a").blobs.add(shape={"dim": [2]}, data=FLOATS, double_data=[0.1, 0.2])
    assert stored(net)[0].blobs[0].data.tolist() == [0.1, 0.2]


@pytest.mark.parametrize(("number", "dtype"), [(0, np.float64), (1, np.float32), (2, np.float16)])
def test_nvcaffe_raw_data(stored, number, dtype):
    values = np.array([1.5, -2.0, 0.25], dtype)
    raw = encode_bytes(12, values.tobytes()) + shape(3) + encode_varint(10 << 3) + encode_varint(number)
    blob = stored(layer(raw + data()))[0].blobs[0].data
    assert blob.dtype == dtype
    assert np.array_equal(blob, values)


def test_another_forks_fields_of_those_numbers_are_passed_over(stored):
    alone = shape(6) + data() + encode_bytes(12, b"abc")
    other = shape(6) + data() + encode_bytes(10, b"abc") + encode_varint(12 << 3) + b"\x05"
    for blob in stored(layer(alone, other))[0].blobs:
        assert np.array_equal(blob.data, FLOATS)


def test_scalars_names_and_dims_by_one(stored):
    dims = encode_bytes(7, b"\x08\x02\x08\x03")  # dim: 2, dim: 3, not packed
    net = stored(layer(data([4]), data() + dims, name=b"caf\xe9") + layer(name=b"") + layer(name=b"a/b"))
    assert [one.name for one in net] == ["café", "", "a/b"]
    assert net[0].blobs[0].data.shape == ()
    assert net[0].blobs[1].data.shape == (2, 3)


def test_a_name_in_gbk_is_one_name_in_text_and_weights(stored, tmp_path):
    """Caffe copies the bytes of a prototxt into the weights, whatever they are."""
    name = "卷积".encode("gbk")
    (tmp_path / "net.prototxt").write_bytes(
        b"# \xd6\xd0\nlayer { name: '" + name + b"' type: 'Input' top: 'x' input_param { shape { dim: 1 } } }"
    )
    (told,) = read_net(tmp_path / "net.prototxt").net.layer
    (layer_,) = stored(layer(name=name))
    assert layer_.name == told.name
    assert read_upgraded(tmp_path / "net.caffemodel").layer[0].name == told.name


def test_text_of_v0_that_is_no_utf8_is_read(tmp_path):
    """Found by `make fuzz`."""
    (tmp_path / "v0.caffemodel").write_bytes(base64.b64decode("IgQoKOAoKCgo4CgodRIICgYKBAIyO4A="))
    assert [layer.name for layer in read_upgraded(tmp_path / "v0.caffemodel").layer] == ["\x022;\x80"]


def test_names_may_repeat_and_last_one_counts(stored):
    twice = encode_bytes(1, b"old") + encode_bytes(1, b"new") + encode_bytes(2, b"T") + encode_bytes(2, b"U")
    net = stored(encode_bytes(1, b"n1") + encode_bytes(100, twice) * 2 + encode_bytes(1, b"n2"))
    assert net.name == "n2"
    assert [(one.name, one.type) for one in net] == [("new", "U")] * 2


def test_net_without_layers(stored):
    assert stored(encode_bytes(1, b"empty")) == []


@pytest.mark.shared
@pytest.mark.parametrize(
    "path", sorted(SHARED.glob("models/*/*.caffemodel")), ids=lambda path: path.parent.name
)
def test_real_models(path):
    message = caffe_pb2.NetParameter.FromString(path.read_bytes())
    protos = [blob for one in (*message.layer, *message.layers) for blob in one.blobs]
    blobs = [blob for one in caffemodel.read(path) for blob in one.blobs]
    assert blobs
    half = "hyperlpr" in str(path)
    for blob, proto in zip(blobs, protos, strict=True):
        assert blob.legacy == ("v1_" in str(path))
        assert blob.data.dtype == (np.float16 if half else np.float32)
        assert np.isfinite(blob.data).all()
        if not half:
            assert np.array_equal(blob.data.ravel(), np.array(proto.data, np.float32))


# Writing

finite = st.floats(width=32, allow_nan=False)
arrays = st.lists(st.integers(0, 4), max_size=5).flatmap(
    lambda dims: st.lists(finite, min_size=math.prod(dims), max_size=math.prod(dims)).map(
        lambda values: np.array(values, np.float32).reshape(dims)
    )
)
layers = st.lists(st.tuples(st.text(max_size=5), st.sampled_from(["", "ReLU"]), st.lists(arrays, max_size=3)))


@given(st.text(max_size=5), layers)
@settings(max_examples=150, deadline=None)
def test_what_is_written_is_read(tmp_path_factory, name, layers):
    path = tmp_path_factory.getbasetemp() / "round.caffemodel"
    caffemodel.write(path, name, layers)
    net = caffemodel.read(path)
    assert net.name == name
    assert [(one.name, one.type) for one in net] == [(one[0], one[1]) for one in layers]
    for one, (_, _, wanted) in zip(net, layers, strict=True):
        for blob, want in zip(one.blobs, wanted, strict=True):
            assert blob.data.shape == want.shape
            assert np.array_equal(blob.data, want)
            assert not blob.legacy


@pytest.mark.parametrize(
    "array",
    [
        np.arange(24.0).reshape(2, 3, 4),
        np.arange(24, dtype=np.float32).reshape(2, 3, 4).transpose(2, 0, 1),
        np.arange(24, dtype=">f4")[::2],
        np.arange(6, dtype=np.float16),
        np.arange(5),
        np.broadcast_to(np.float32(3), (700, 1000)),
        np.zeros((0, 3)),
    ],
    ids=["float64", "transposed", "big-endian", "half", "integer", "broadcast", "empty"],
)
def test_every_kind_of_array_is_written(array, tmp_path):
    caffemodel.write(tmp_path / "a", "n", [("a", "T", [array])])
    got = caffemodel.read(tmp_path / "a")[0].blobs[0].data
    assert got.dtype == np.float32
    assert np.array_equal(got, array)


def test_layers_are_written_as_they_come(tmp_path):
    def one_by_one():
        for i in range(8):
            peak = tracemalloc.get_traced_memory()[1]
            assert peak < 9e6, "more than two arrays in memory"
            yield f"layer{i}", "Convolution", [np.ones((1000, 1000), np.float32)]

    tracemalloc.start()
    caffemodel.write(tmp_path / "a", "n", one_by_one())
    tracemalloc.stop()
    assert len(caffemodel.read(tmp_path / "a")) == 8


def test_file_may_be_rewritten_from_itself(tmp_path):
    path = tmp_path / "a"
    caffemodel.write(path, "n", [("a", "T", [FLOATS]), ("b", "T", [FLOATS + 1])])
    net = caffemodel.read(path)
    caffemodel.write(
        path, "n", ((one.name, one.type, [blob.data for blob in one.blobs]) for one in net[::-1])
    )
    assert [one.name for one in caffemodel.read(path)] == ["b", "a"]
    assert np.array_equal(net[0].blobs[0].data, FLOATS)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.broadcast_to(np.float32(0), (2**14, 2**15)), "an array of 2 axes and 536,870,912 values cannot"),
        (np.broadcast_to(np.float32(0), (2**29 - 9,)), "layer 'big' would take the file beyond 2 GB"),
        (np.zeros((1,) * 33, np.float32), "an array of 33 axes"),
    ],
)
def test_what_no_caffe_could_read_is_not_written(tmp_path, array, message):
    with pytest.raises(CaffemodelError, match=message):
        caffemodel.write(tmp_path / "a", "n", [("small", "T", [FLOATS]), ("big", "T", [array])])
    assert list(tmp_path.iterdir()) == []


# Either kind


@pytest.mark.parametrize("name", ["layers/innerproduct_0.caffemodel", "hdf5/innerproduct_0.caffemodel.h5"])
def test_load_goes_by_content_not_by_name(name, tmp_path):
    path = Path(tmp_path / "weights.bin")
    path.write_bytes((REFERENCE / name).read_bytes())
    blobs = {one.name: [blob.data.shape for blob in one.blobs] for one in weights.load(path)}
    assert blobs["innerproduct"] == [(5, 297), (5,)]
