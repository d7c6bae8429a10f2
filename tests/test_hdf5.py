"""HDF5 weights: Caffe's own files, the layout that Caffe reads, and files that lead astray."""

from mmap import mmap

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caffe_fcn.errors import CaffemodelError
from caffe_fcn.formats import caffemodel, hdf5
from tests.conftest import REFERENCE

WEIGHTS = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture
def made(tmp_path):
    """A function: fill an HDF5 file, and read it as weights."""

    def read(fill, **options):
        with h5py.File(tmp_path / "net.h5", "w", **options) as file:
            fill(file)
        return hdf5.read(tmp_path / "net.h5")

    return read


@pytest.mark.parametrize("name", ["layers/batchnorm_0", "layers/innerproduct_0", "nets/fcn8s-thin"])
def test_caffes_own_files(name):
    binary = caffemodel.read(REFERENCE / f"{name}.caffemodel")
    layers = hdf5.read(REFERENCE / "hdf5" / f"{name.split('/')[1]}.caffemodel.h5")
    assert [layer.name for layer in layers] == sorted(layer.name for layer in binary)
    stored = {layer.name: layer for layer in layers}
    for layer in binary:
        got = stored[layer.name]
        assert got.type == ""
        for blob, want in zip(got.blobs, layer.blobs, strict=True):
            assert np.array_equal(blob.data, want.data)
            assert blob.data.shape == want.data.shape
            assert blob.data.dtype == np.float32
            assert not blob.legacy


def test_arrays_in_one_piece_are_views(tmp_path):
    hdf5.write(tmp_path / "a", [("ip", "InnerProduct", [WEIGHTS])])
    before = (tmp_path / "a").read_bytes()
    blob = hdf5.read(tmp_path / "a")[0].blobs[0].data
    assert isinstance(blob.base, mmap)
    blob[:] = 7
    assert (tmp_path / "a").read_bytes() == before


def test_written_layout_is_caffes(tmp_path):
    """Groups of all layers, float32 datasets by number; nothing else (Net::ToHDF5)."""
    path = tmp_path / "out.caffemodel.h5"
    bias = np.array(2.5)
    hdf5.write(
        path, [("conv1", "Convolution", [WEIGHTS.T, bias]), ("relu1", "ReLU", []), ("tied", "", [None, bias])]
    )
    with h5py.File(path) as file:
        names = []
        file.visit(names.append)
        assert names == [
            "data",
            "data/conv1",
            "data/conv1/0",
            "data/conv1/1",
            "data/relu1",
            "data/tied",
            "data/tied/1",
        ]
        assert file["data/conv1/0"].dtype == "<f4"
        assert np.array_equal(file["data/conv1/0"], WEIGHTS.T)
        assert file["data/conv1/1"].shape == ()


names = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=6)
sane = names.filter(lambda name: {"", ".", ".."}.isdisjoint(name.split("/")))
slashed = (
    st.lists(sane, min_size=1, max_size=3)
    .map("/".join)
    .filter(lambda name: not name.split("/")[-1].isdigit())
)


@given(st.dictionaries(slashed, st.integers(0, 3), max_size=6))
@settings(max_examples=60, deadline=None)
def test_what_is_written_is_read(tmp_path_factory, counts):
    """Layers with parameters; of those without, some with a '/' cannot be told from the groups on the way."""
    path = tmp_path_factory.getbasetemp() / "round.h5"
    hdf5.write(path, [(name, "T", [WEIGHTS + i for i in range(count)]) for name, count in counts.items()])
    got = {layer.name: layer.blobs for layer in hdf5.read(path)}
    assert set(got) <= set(counts)
    for name, count in counts.items():
        assert len(got.get(name, [])) == count
        assert all(np.array_equal(blob.data, WEIGHTS + i) for i, blob in enumerate(got.get(name, [])))


def test_slash_in_a_name_is_a_group_in_a_group(tmp_path):
    layers = [
        ("inception/1x1", "", [WEIGHTS]),
        ("inception", "", [WEIGHTS, WEIGHTS]),
        ("inception/1x1/bn", "", []),
    ]
    hdf5.write(tmp_path / "a", layers)
    got = hdf5.read(tmp_path / "a")
    assert [(layer.name, len(layer.blobs)) for layer in got] == [
        ("inception", 2),
        ("inception/1x1", 1),
        ("inception/1x1/bn", 0),
    ]


def test_shared_parameters_are_left_out(made):
    (layer,) = made(lambda file: file.create_dataset("data/tied/1", data=WEIGHTS))
    assert layer.blobs[0] is None
    assert np.array_equal(layer.blobs[1].data, WEIGHTS)


def test_params_are_in_the_order_of_numbers(made):
    (layer,) = made(lambda file: [file.create_dataset(f"data/a/{i}", data=[float(i)]) for i in range(12)])
    assert [blob.data[0] for blob in layer.blobs] == list(range(12))


@pytest.mark.parametrize(
    ("options", "dtype"),
    [
        ({"dtype": "f8"}, np.float64),
        ({"dtype": "f2"}, np.float16),
        ({"dtype": ">f4"}, np.float32),
        ({"dtype": "i8"}, np.float32),
        ({"dtype": "f4", "compression": "gzip", "chunks": (1, 2)}, np.float32),
    ],
)
@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_kinds_of_datasets(made, options, dtype, libver):
    (layer,) = made(lambda file: file.create_dataset("data/a/0", data=WEIGHTS, **options), libver=libver)
    assert layer.blobs[0].data.dtype == np.dtype(dtype)
    assert np.array_equal(layer.blobs[0].data, WEIGHTS)


# Files that lead astray


def external_storage(file):
    file.create_dataset("data/a/0", (4,), "f4", external=[("elsewhere.h5", 0, 16)])


def virtual(file):
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource("elsewhere.h5", "x", (4,))
    file.create_group("data/a").create_virtual_dataset("0", layout)


def circle(file):
    file.create_group("data/a/b")
    file["data/a/b/c"] = file["data/a"]


def unending(file):
    file.create_group("data/" + "/".join("x" * 200))


def committed_type(file):
    file.create_group("data/a")["0"] = np.dtype("f4")


def put(name, **options):
    return lambda file: file.create_dataset(name, **options)


def link(name, target):
    return lambda file: file.require_group("data/a").__setitem__(name, target)


@pytest.mark.parametrize(
    ("fill", "message"),
    [
        (
            link("0", h5py.ExternalLink("elsewhere.h5", "/x")),
            "/data/a/0: is a link, perhaps out of the file",
        ),
        (link("0", h5py.SoftLink("/data/b/0")), "/data/a/0: is a link"),
        (link("/data/b", h5py.ExternalLink("other.h5", "/data/b")), "/data/b: is a link"),
        (link("/data/b", h5py.SoftLink("/nowhere")), "/data/b: is a link"),
        (lambda file: file.__setitem__("data", h5py.ExternalLink("other.h5", "/data")), "/data: is a link"),
        (external_storage, "/data/a/0: its values lie in other files"),
        (virtual, "/data/a/0: its values lie in other files"),
        (circle, "/data/a/b/c: groups that are nested without end"),
        (unending, "nested without end"),
        (committed_type, "/data/a/0: is neither a layer nor the number of a parameter"),
        (put("data/a/weights", data=WEIGHTS), "/data/a/weights: is neither a layer nor"),
        (put("data/a/01", data=WEIGHTS), "/data/a/01: is neither a layer nor"),
        (put("data/a/4000000000", data=WEIGHTS), "is neither a layer nor"),
        (put("data/0", data=WEIGHTS), "/data/0: is neither a layer nor"),
        (put("data/a/0", data="text"), "/data/a/0: holds no numbers"),
        (put("data/a/0", dtype="f4", data=h5py.Empty("f4")), "/data/a/0: holds no numbers"),
        (put("data/a/0", shape=(2**20, 2**20), dtype="f4", chunks=(1, 9)), "more than 2,147,483,647 values"),
        (
            put("data/a/0", shape=(2**30,), dtype="f4", chunks=(9,)),
            "claims 1,073,741,824 values in a file of",
        ),
        (
            put("data/a/0", shape=(9,), maxshape=(None,), dtype="f4", chunks=(2**29,)),
            "claims 9 values in a file of",
        ),
        (put("data/a/0", shape=(2**30,), dtype="f4"), "claims 1,073,741,824 values"),
        (put("data", data=WEIGHTS), "has no group 'data' of layers: not the weights"),
        (put("label", data=WEIGHTS), "has no group 'data' of layers: not the weights"),
    ],
)
def test_not_followed_not_allocated(made, tmp_path, fill, message):
    with pytest.raises(CaffemodelError, match=rf"net\.h5: .*{message}"):
        made(fill)


def test_one_dataset_many_times_is_not_read_without_end(made):
    def fill(file):
        file.create_dataset("data/a/0", (1000, 100), "f4", chunks=(1000, 100), compression="gzip")[0] = 1.0
        for i in range(1, 1000):
            file[f"data/a/{i}"] = file["data/a/0"]

    with pytest.raises(CaffemodelError, match="claims 100,000 values in a file of"):
        made(fill)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<html></html>", "is an HTML or XML page, not an HDF5 file"),
        (b"\x0a\x01n\xa2\x06\x00", "is not an HDF5 file"),
        (b"\x89HDF\r\n\x1a\n", "cannot be read as HDF5: "),
        (b"", "is empty"),
    ],
)
def test_other_files(tmp_path, content, message):
    (tmp_path / "a.h5").write_bytes(content)
    with pytest.raises(CaffemodelError, match=rf"a\.h5: {message}"):
        hdf5.read(tmp_path / "a.h5")


VALID = (REFERENCE / "hdf5" / "batchnorm_0.caffemodel.h5").read_bytes()


@given(
    st.lists(st.tuples(st.integers(0, len(VALID) - 1), st.binary(min_size=1, max_size=8)), max_size=5),
    st.data(),
)
@settings(max_examples=200, deadline=None)
def test_damaged_files_are_read_or_refused(tmp_path_factory, changes, more):
    content = bytearray(VALID)
    for at, patch in changes:
        content[at : at + len(patch)] = patch
    del content[more.draw(st.integers(0, len(content))) if more.draw(st.booleans()) else len(content) :]
    path = tmp_path_factory.getbasetemp() / "any.h5"
    path.write_bytes(content)
    try:
        layers = hdf5.read(path)
    except CaffemodelError:
        return
    values = sum(blob.data.nbytes for layer in layers for blob in layer.blobs if blob is not None)
    assert values <= 100 * len(content)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([("a", "", [WEIGHTS]), ("a", "", [])], "the layer name 'a' stands twice"),
        ([("a//b", "", [])], "the layer name 'a//b' stands twice, or cannot stand in HDF5"),
        ([("", "", [])], "the layer name '' stands twice, or cannot"),
        ([("a\0b", "", [])], "the layer name 'a.x00b' stands twice, or cannot"),
        ([("a", "", [WEIGHTS]), ("a/0", "", [WEIGHTS])], "layer 'a/0' cannot be stored"),
        ([("a/0", "", [WEIGHTS]), ("a", "", [WEIGHTS])], "layer 'a' cannot be stored"),
    ],
)
def test_names_that_hdf5_cannot_hold(tmp_path, layers, message):
    with pytest.raises(CaffemodelError, match=message):
        hdf5.write(tmp_path / "a.h5", layers)
    assert list(tmp_path.iterdir()) == []
