"""Data layers, on files made here: batches in order and again, transforms, and what is said of bad files."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caffe_fcn import fillers
from caffe_fcn.errors import CaffeError, LayerError
from caffe_fcn.formats import caffe_pb2
from caffe_fcn.formats.binaryproto import write_blob
from caffe_fcn.formats.hdf5_data import read_rows
from caffe_fcn.formats.images import read_image
from caffe_fcn.layers.image_data import warp
from caffe_fcn.net import TEST, TRAIN, Net
from caffe_fcn.numeric.image import resize_linear

h5py = pytest.importorskip("h5py")
Image = pytest.importorskip("PIL.Image")
lmdb = pytest.importorskip("lmdb")


@pytest.fixture(autouse=True)
def _seed():
    fillers.seed(7)


def source(layer: str, tops=("data", "label"), phase=TEST) -> Net:
    names = " ".join(f'top: "{top}"' for top in tops)
    return Net(f'layer {{ name: "source" {names} {layer} }}', phase)


def batches(net: Net, count: int, name="data") -> list[np.ndarray]:
    return [net.forward()[name].copy() for _ in range(count)]


def refused(layer: str, says: str, tops=("data", "label")) -> None:
    with pytest.raises(LayerError, match=re.escape(says)):
        source(layer, tops)


def picture(*shape, seed=0) -> np.ndarray:
    """(C, H, W) uint8."""
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save(path, pixels: np.ndarray):
    """(C, H, W), BGR, as a file."""
    Image.fromarray(pixels[0] if len(pixels) == 1 else pixels[::-1].transpose(1, 2, 0)).save(path)
    return path


# --- DummyData, MemoryData


def test_dummy_data_is_what_its_fillers_say():
    two = source(
        'type: "DummyData" dummy_data_param { shape { dim: 2 dim: 3 } shape { dim: 4 }'
        'data_filler { type: "constant" value: 5 } data_filler { type: "uniform" min: 1 max: 2 } }'
    )
    first, second = (two.forward()["label"].copy() for _ in range(2))
    assert two.blobs["data"].data.tolist() == [[5] * 3] * 2
    assert first.shape == (4,)
    assert ((first >= 1) & (first <= 2)).all()
    assert (first != second).any()
    legacy = source('type: "DummyData" dummy_data_param { num: 2 num: 7 channels: 3 height: 4 width: 5 }')
    assert [legacy.blobs[name].shape for name in ("data", "label")] == [(2, 3, 4, 5), (7, 3, 4, 5)]
    assert not legacy.forward()["data"].any()


def test_dummy_data_says_what_is_missing():
    refused('type: "DummyData"', "0 shapes for 2 tops")
    refused('type: "DummyData" dummy_data_param { num: 1 channels: 1 height: 1 }', "0 width for 2 tops")
    refused('type: "DummyData" dummy_data_param { num: 1 shape { dim: 1 } }', "both shape and num")
    fills = "data_filler { } " * 3
    refused(
        f'type: "DummyData" dummy_data_param {{ shape {{ dim: 1 }} {fills} }}', "3 data_filler for 2 tops"
    )


MEMORY = 'type: "MemoryData" memory_data_param { batch_size: 2 channels: 1 height: 1 width: 3 }'


def test_memory_data_goes_round_what_it_was_given():
    net = source(MEMORY)
    assert [net.blobs[name].shape for name in ("data", "label")] == [(2, 1, 1, 3), (2,)]
    with pytest.raises(LayerError, match="has no data yet\n  hand it over"):
        net.forward()
    rows = np.arange(12).reshape(4, 1, 1, 3)
    net.layers[0].reset(rows, [0, 1, 2, 3])
    got = [
        (net.forward()["data"][:, 0, 0, 0].tolist(), net.blobs["label"].data.ravel().tolist())
        for _ in range(3)
    ]
    assert got == [([0, 3], [0, 1]), ([6, 9], [2, 3]), ([0, 3], [0, 1])]
    assert net.blobs["label"].shape == (2, 1, 1, 1)


@pytest.mark.parametrize(
    ("shape", "labels", "says"),
    [
        ((3, 1, 1, 3), 3, "3 items are not a multiple of batch_size 2"),
        ((0, 1, 1, 3), 0, "0 items are not a multiple"),
        ((2, 1, 3, 1), 2, "the data is (2, 1, 3, 1), (n, 1, 1, 3) is needed"),
        ((2, 1, 1, 3), 3, "2 items and 3 labels"),
    ],
)
def test_memory_data_refuses_what_does_not_fit(shape, labels, says):
    with pytest.raises(LayerError, match=re.escape(says)):
        source(MEMORY).layers[0].reset(np.zeros(shape), np.zeros(labels))
    refused('type: "MemoryData" memory_data_param { batch_size: 2 }', "are (2, 0, 0, 0), must be positive")


# --- HDF5Data, HDF5Output


@pytest.fixture
def tables(tmp_path):
    """Three files of 3, 1 and 2 rows, and their list."""
    paths = []
    for i, rows in enumerate((range(3), range(3, 4), range(4, 6))):
        paths.append(tmp_path / f"{i}.h5")
        with h5py.File(paths[-1], "w") as file:
            file["data"] = np.array([[n, -n] for n in rows], "f8")
            file["label"] = np.array(list(rows), "i2")
    (tmp_path / "list.txt").write_text("\n".join(map(str, paths)) + "\n")
    return tmp_path


def hdf5(tables, *settings, list_="list.txt") -> str:
    return f'type: "HDF5Data" hdf5_data_param {{ source: "{tables / list_}" {" ".join(settings)} }}'


def test_rows_come_in_order_across_files_and_again(tables):
    net = source(hdf5(tables, "batch_size: 4"))
    assert [net.blobs[name].shape for name in ("data", "label")] == [(4, 2), (4,)]
    got = np.concatenate(batches(net, 4, "label"))
    assert got.tolist() == [*range(6), *range(6), 0, 1, 2, 3]
    assert net.blobs["data"].data.tolist() == [[0, 0], [1, -1], [2, -2], [3, -3]]


def test_one_file_goes_round_by_itself(tables):
    (tables / "one.txt").write_text(str(tables / "0.h5"))
    got = batches(source(hdf5(tables, "batch_size: 2", list_="one.txt")), 3, "label")
    assert np.concatenate(got).tolist() == [0, 1, 2, 0, 1, 2]


def test_shuffled_rounds_hold_every_row_once(tables):
    net = source(hdf5(tables, "batch_size: 6 shuffle: true"))
    rounds = [tuple(rows) for rows in batches(net, 6, "label")]
    assert all(sorted(rows) == list(range(6)) for rows in rounds)
    assert len(set(rounds)) > 1


def test_bad_tables_are_named(tables, tmp_path):
    refused(hdf5(tables, "batch_size: 2", list_="none"), "none': cannot be read: No such file")
    refused(hdf5(tables, "batch_size: 0"), "batch_size 0 must be positive")
    refused(
        hdf5(tables, "batch_size: 2") + "transform_param { scale: 2 }", "transform_param has no effect here"
    )
    refused(
        hdf5(tables, "batch_size: 2"), "no dataset 'other'\n  it holds data, label", tops=("data", "other")
    )
    (tables / "list.txt").write_text("")
    refused(hdf5(tables, "batch_size: 2"), "lists no files")
    (tables / "list.txt").write_text(str(tables / "list.txt"))
    refused(hdf5(tables, "batch_size: 2"), "list.txt: cannot be read as HDF5")


def test_damaged_tables_are_refused(tmp_path):
    path = tmp_path / "x.h5"

    def refuse(says: str, **datasets):
        with h5py.File(path, "w") as file:
            for name, value in datasets.items():
                file[name] = value
        with pytest.raises(CaffeError, match=says):
            read_rows(path, ["a", "b"])

    refuse("no dataset 'b'", a=[1.0])
    refuse("same number of rows, at least one: a 2, b 1", a=[1, 2], b=[1])
    refuse("same number of rows, at least one: a 0, b 0", a=np.zeros(0), b=np.zeros(0))
    refuse("not numbers in rows", a=[1], b=["text"])
    refuse("not numbers in rows", a=[1], b=3.0)
    refuse("no dataset 'b'", a=[1], b=h5py.ExternalLink("/etc/passwd", "/"))
    refuse("no dataset 'b'", a=[1], b=h5py.SoftLink("/a"))
    with h5py.File(path, "w") as file:
        layout = h5py.VirtualLayout((1,), "f4")
        layout[:] = h5py.VirtualSource("/etc/other.h5", "a", (1,))
        file.create_virtual_dataset("a", layout)
    with pytest.raises(CaffeError, match="not numbers in rows"):
        read_rows(path, ["a"])
    with h5py.File(path, "w") as file:
        file.create_dataset("a", (2**30, 4), "f4", chunks=(1024, 4))
    with pytest.raises(CaffeError, match="claims 4294967296 values in a file of"):
        read_rows(path, ["a"])


def test_hdf5_output_writes_what_hdf5_data_reads(tmp_path):
    path = tmp_path / "out.h5"
    net = Net(
        'layer { name: "i" type: "Input" top: "x" top: "y"'
        " input_param { shape { dim: 2 dim: 3 } shape { dim: 2 } } }"
        'layer { name: "o" type: "HDF5Output" bottom: "x" bottom: "y"'
        f' hdf5_output_param {{ file_name: "{path}" }} }}'
    )
    assert not path.exists()
    for scale in (1, 2):
        net.forward(x=np.arange(6).reshape(2, 3) * scale, y=[0, 1])
        data, label = read_rows(path, ["data", "label"])
        assert data.shape == (2, 3, 1, 1)
        assert (data.ravel() == np.arange(6) * scale).all()
        assert label.shape == (2, 1, 1, 1)
    net.blobs["y"].reshape(3)
    with pytest.raises(LayerError, match=r"\(2, 3\) and \(3,\): their first extents differ"):
        net.forward()


# --- transform_param


def image_data(tmp_path, pixels, *settings, transform="", list_=None) -> str:
    """An ImageData layer on these pictures, written as PNG files."""
    names = [f"picture {i}.png" for i in range(len(pixels))]
    for name, each in zip(names, pixels, strict=True):
        save(tmp_path / name, each)
    lines = list_ or "".join(f"{name} {i * 10}\n" for i, name in enumerate(names))
    (tmp_path / "list.txt").write_text(lines)
    return (
        f'type: "ImageData" image_data_param {{ source: "{tmp_path}/list.txt" root_folder: "{tmp_path}/"'
        f" {' '.join(settings)} }} transform_param {{ {transform} }}"
    )


def test_a_test_net_crops_the_centre_and_does_not_mirror(tmp_path):
    pixels = picture(3, 7, 10)
    transform = "crop_size: 4 mirror: true scale: 0.5 mean_value: 1 mean_value: 2 mean_value: 3"
    net = source(image_data(tmp_path, [pixels], "batch_size: 1", transform=transform))
    wanted = (pixels[:, 1:5, 3:7] - np.float32([[[1]], [[2]], [[3]]])) * 0.5
    for got in batches(net, 3):
        assert np.array_equal(got[0], wanted)


def test_a_training_net_crops_and_mirrors_at_random(tmp_path):
    pixels = np.arange(12, dtype=np.uint8).reshape(1, 3, 4)
    layer = image_data(
        tmp_path, [pixels], "batch_size: 50 is_color: false", transform="crop_size: 2 mirror: true"
    )
    got = {tuple(x.ravel()) for x in source(layer, phase=TRAIN).forward()["data"]}
    cuts = [pixels[0, y : y + 2, x : x + 2] for y in range(2) for x in range(3)]
    assert got == {tuple(cut.ravel()) for c in cuts for cut in (c, c[:, ::-1])}


def test_the_mean_file_is_cut_where_the_image_is(tmp_path):
    pixels, mean = picture(3, 6, 8), picture(3, 6, 8, seed=1).astype(np.float32)
    write_blob(tmp_path / "mean", mean[None])
    transform = f'crop_size: 4 mean_file: "{tmp_path}/mean"'
    net = source(image_data(tmp_path, [pixels], "batch_size: 1", transform=transform))
    assert np.array_equal(net.forward()["data"][0], (pixels - mean)[:, 1:5, 2:6])
    write_blob(tmp_path / "mean", mean[None, :, 1:])
    with pytest.raises(LayerError, match=r"mean' is \(3, 5, 8\), the image \(3, 6, 8\)"):
        source(image_data(tmp_path, [pixels], "batch_size: 1", transform=transform)).forward()


def test_transforms_that_make_no_sense_are_refused(tmp_path):
    pixels = [picture(3, 6, 8)]
    layer = image_data(tmp_path, pixels, "batch_size: 1", transform='mean_file: "x" mean_value: 1')
    refused(layer, "mean_file and mean_value are both given")
    refused(image_data(tmp_path, pixels, transform="force_color: true force_gray: true"), "are both set")
    net = source(image_data(tmp_path, pixels, transform="crop_size: 7"))
    with pytest.raises(LayerError, match="crop_size 7 does not fit into an image of 6 x 8"):
        net.forward()
    net = source(image_data(tmp_path, pixels, transform="mean_value: 1 mean_value: 2"))
    with pytest.raises(LayerError, match="2 mean_value for 3 channels"):
        net.forward()
    net = source(image_data(tmp_path, pixels, transform='mean_file: "no such mean"'))
    with pytest.raises(LayerError, match="no such mean: cannot be read"):
        net.forward()


# --- ImageData


def test_images_come_in_order_with_labels_and_again(tmp_path):
    pixels = [picture(3, 5, 4, seed=i) for i in range(3)]
    net = source(image_data(tmp_path, pixels, "batch_size: 2"))
    assert [net.blobs[name].shape for name in ("data", "label")] == [(2, 3, 5, 4), (2,)]
    seen = []
    for _ in range(3):
        out = net.forward()
        seen += list(zip(out["data"].copy(), out["label"].tolist(), strict=True))
    for i, (image, label) in enumerate(seen):
        assert np.array_equal(image, pixels[i % 3])
        assert label == i % 3 * 10


def test_images_of_different_sizes_come_one_by_one(tmp_path):
    pixels = [picture(3, 5, 4), picture(3, 6, 7)]
    net = source(image_data(tmp_path, pixels, "batch_size: 1"))
    assert [got.shape for got in batches(net, 3)] == [(1, 3, 5, 4), (1, 3, 6, 7), (1, 3, 5, 4)]
    net = source(image_data(tmp_path, pixels, "batch_size: 2"))
    with pytest.raises(
        LayerError, match=r"'picture 1.png' is \(3, 6, 7\), the first of its batch \(3, 5, 4\)"
    ):
        net.forward()
    net = source(image_data(tmp_path, pixels, "batch_size: 2 new_height: 6 new_width: 3 is_color: false"))
    assert net.forward()["data"].shape == (2, 1, 6, 3)


def test_shuffled_images_come_once_a_round(tmp_path):
    layer = image_data(tmp_path, [picture(1, 1, 1, seed=i) for i in range(6)], "batch_size: 6 shuffle: true")
    rounds = [tuple(labels) for labels in batches(source(layer), 6, "label")]
    assert all(sorted(labels) == [0, 10, 20, 30, 40, 50] for labels in rounds)
    assert len(set(rounds)) > 1


def test_a_net_is_built_without_its_images_where_the_prototxt_tells_the_shape(tmp_path):
    def shape(*settings, transform=""):
        settings = 'source: "/no/such/list" batch_size: 5 ' + " ".join(settings)
        layer = f'type: "ImageData" image_data_param {{ {settings} }} transform_param {{ {transform} }}'
        return source(layer).blobs["data"].shape

    assert shape("new_height: 6 new_width: 7") == (5, 3, 6, 7)
    assert shape("new_height: 6 new_width: 7 is_color: false", transform="crop_size: 4") == (5, 1, 4, 4)
    assert shape(transform="crop_size: 4") == (5, 3, 4, 4)
    with pytest.raises(
        LayerError, match="'/no/such/list': cannot be read: No such file or directory\n  `caffe-fcn deploy`"
    ):
        shape()
    with pytest.raises(LayerError, match="new_height 6, new_width 0: one without the other"):
        shape("new_height: 6")
    with pytest.raises(LayerError, match="crop_size 8 does not fit into an image of 6 x 9"):
        shape("new_height: 6 new_width: 9", transform="crop_size: 8")


def test_lines_are_read_as_caffe_reads_them(tmp_path):
    list_ = "a b.png 3\r\n\na b.png x\na b.png  -2z\n"
    layer = image_data(tmp_path, [], "batch_size: 3", list_=list_)
    save(tmp_path / "a b.png", picture(3, 2, 2))
    with pytest.raises(LayerError, match=r"/a b\.png : cannot be read"):
        source(layer).forward()
    (tmp_path / "a b.png ").write_bytes((tmp_path / "a b.png").read_bytes())
    assert source(layer).forward()["label"].tolist() == [3, 0, -2]


def test_rand_skip_begins_inside_the_list(tmp_path):
    pixels = [picture(1, 1, 1, seed=i) for i in range(4)]
    starts = {
        float(source(image_data(tmp_path, pixels, "rand_skip: 3")).forward()["label"][0]) for _ in range(40)
    }
    assert starts == {0, 10, 20}


def test_unreadable_images_are_named(tmp_path):
    layer = image_data(tmp_path, [], list_="broken.png 1\n")
    refused(layer, "broken.png: cannot be read: No such file")
    (tmp_path / "broken.png").write_text("not an image")
    refused(layer, "broken.png: cannot be read as an image")
    (tmp_path / "list.txt").write_text("\n")
    refused(layer, "lists no images")


# --- images as OpenCV reads and resizes them


def test_images_are_read_blue_first(tmp_path):
    pixels = picture(3, 4, 5)
    path = save(tmp_path / "x.png", pixels)
    assert np.array_equal(read_image(path), pixels)
    assert np.array_equal(read_image(path.read_bytes(), "native"), pixels)
    weights = np.array([0.114, 0.587, 0.299])
    gray = read_image(path, "gray")
    assert gray.shape == (1, 4, 5)
    assert np.abs(gray[0] - np.tensordot(weights, pixels.astype(float), 1)).max() <= 0.51


def test_other_kinds_of_images(tmp_path):
    gray = picture(1, 4, 5)
    path = save(tmp_path / "x.png", gray)
    assert np.array_equal(read_image(path, "native"), gray)
    assert np.array_equal(read_image(path, "color"), np.repeat(gray, 3, 0))
    rgba = picture(4, 4, 5)
    Image.fromarray(rgba.transpose(1, 2, 0), "RGBA").save(path)
    assert np.array_equal(read_image(path, "native"), rgba[[2, 1, 0, 3]])
    assert np.array_equal(read_image(path), rgba[2::-1])
    deep = np.random.default_rng(0).integers(0, 2**16, (4, 5), dtype=np.uint16)
    Image.fromarray(deep).save(path)
    assert np.array_equal(read_image(path, "gray")[0], deep >> 8)
    with pytest.raises(CaffeError, match="Caffe takes images of 8 bits"):
        read_image(path, "native")
    Image.fromarray(np.array([[True, False]])).save(path)
    assert read_image(path, "native").tolist() == [[[255, 0]]]


def test_a_turned_photograph_is_upright(tmp_path):
    pixels = picture(3, 4, 6)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    Image.fromarray(pixels[::-1].transpose(1, 2, 0)).save(tmp_path / "x.png", exif=exif)
    assert read_image(tmp_path / "x.png").shape == (3, 6, 4)
    assert read_image(tmp_path / "x.png", "native").shape == (3, 4, 6)


# What cv2.resize (4.14) makes of [[0, 100, 255], [7, 50, 90]]
OPENCV = {
    (2, 5): [[0, 40, 100, 193, 255], [7, 24, 50, 74, 90]],
    (3, 2): [[25, 216], [21, 148], [18, 80]],
    (1, 3): [[4, 75, 173]],
    (4, 1): [[100], [88], [63], [50]],
}


@pytest.mark.parametrize("size", OPENCV)
def test_images_are_resized_as_opencv_does(size):
    image = np.array([[[0, 100, 255], [7, 50, 90]]], np.uint8)
    assert resize_linear(image, *size)[0].tolist() == OPENCV[size]


@given(h=st.integers(1, 9), w=st.integers(1, 9), out_h=st.integers(1, 20), out_w=st.integers(1, 20))
@settings(max_examples=40, deadline=None)
def test_resizing_stays_inside_what_was_there(h, w, out_h, out_w):
    image = picture(2, h, w)
    got = resize_linear(image, out_h, out_w)
    assert got.shape == (2, out_h, out_w)
    assert (got <= image.max((1, 2), keepdims=True)).all()
    assert (got >= image.min((1, 2), keepdims=True).astype(int) - 1).all()  # rounded down twice
    assert np.array_equal(resize_linear(image, h, w), image)


# --- Data


def database(path, datums) -> str:
    with lmdb.open(str(path), map_size=1 << 20) as env, env.begin(write=True) as txn:
        for i, datum in enumerate(datums):
            txn.put(f"{i:08d}".encode(), datum if isinstance(datum, bytes) else datum.SerializeToString())
    return str(path)


def raw(pixels, label=0):
    c, h, w = pixels.shape
    if pixels.dtype == np.uint8:
        return caffe_pb2.Datum(channels=c, height=h, width=w, data=pixels.tobytes(), label=label)
    return caffe_pb2.Datum(channels=c, height=h, width=w, float_data=pixels.ravel(), label=label)


def data(path, *settings, transform="", backend="LMDB") -> str:
    return (
        f'type: "Data" data_param {{ source: "{path}" backend: {backend} {" ".join(settings)} }}'
        f" transform_param {{ {transform} }}"
    )


def test_records_come_in_order_and_again(tmp_path):
    pixels = [picture(2, 3, 4, seed=i) for i in range(3)]
    path = database(tmp_path / "db", [raw(p, label=i) for i, p in enumerate(pixels)])
    net = source(data(path, "batch_size: 2", transform="scale: 0.5"))
    assert [net.blobs[name].shape for name in ("data", "label")] == [(2, 2, 3, 4), (2,)]
    for pair in ((0, 1), (2, 0), (1, 2)):
        assert np.array_equal(net.forward()["data"], np.stack([pixels[i] * np.float32(0.5) for i in pair]))
        assert net.blobs["label"].data.tolist() == list(pair)
    other = source(data(path, "batch_size: 1"), tops=("data",))  # the same database, open twice
    assert np.array_equal(other.forward()["data"][0], pixels[0])


def test_records_may_hold_floats_or_files(tmp_path):
    floats = np.random.default_rng(0).standard_normal((2, 3, 3)).astype(np.float32)
    path = database(tmp_path / "floats", [raw(floats)])
    assert np.array_equal(source(data(path, "batch_size: 1")).forward()["data"][0], floats)
    pixels, gray = picture(3, 4, 5), picture(1, 4, 5)
    encoded = []
    for each in (pixels, gray):
        file = io.BytesIO()
        Image.fromarray(each[0] if len(each) == 1 else each[::-1].transpose(1, 2, 0)).save(file, "PNG")
        encoded.append(caffe_pb2.Datum(encoded=True, data=file.getvalue()))
    path = database(tmp_path / "files", encoded)
    net = source(data(path, "batch_size: 1"))
    assert np.array_equal(net.forward()["data"][0], pixels)
    assert np.array_equal(net.forward()["data"][0], gray)
    assert source(data(path, "batch_size: 2", transform="force_gray: true")).forward()["data"].shape == (
        2,
        1,
        4,
        5,
    )
    got = source(data(path, "batch_size: 2", transform="force_color: true")).forward()["data"]
    assert np.array_equal(got[1], np.repeat(gray, 3, 0))


def test_bad_databases_are_named(tmp_path):
    refused(data("/no/such/db", "batch_size: 1"), "/no/such/db: no such database\n  `caffe-fcn deploy`")
    refused(data("/no/such/db", "batch_size: 1", backend="LEVELDB"), "LevelDB databases are not read")
    refused(data("/no/such/db"), "batch_size 0 must be positive")
    (tmp_path / "file").write_text("not a database" * 1000)
    refused(data(tmp_path / "file", "batch_size: 1"), "cannot be opened as an LMDB database")
    refused(data(database(tmp_path / "empty", []), "batch_size: 1"), "the database is empty")
    short = raw(picture(1, 2, 2))
    short.width = 3
    refused(
        data(database(tmp_path / "a", [short]), "batch_size: 1"),
        "record '00000000': is (1, 2, 3) and holds 4 values",
    )
    refused(data(database(tmp_path / "b", [b"\xff\xff"]), "batch_size: 1"), "is not a Datum")
    negative = caffe_pb2.Datum(channels=-1, height=-1, width=1, data=b"1")
    refused(data(database(tmp_path / "c", [negative]), "batch_size: 1"), "is (-1, -1, 1) and holds 1 values")
    broken = caffe_pb2.Datum(encoded=True, data=b"not an image")
    refused(
        data(database(tmp_path / "d", [broken]), "batch_size: 1"),
        "record '00000000': cannot be read as an image",
    )


# --- WindowData


def window_data(tmp_path, lines, *settings, transform="crop_size: 4") -> str:
    (tmp_path / "windows.txt").write_text("\n".join(lines))
    return (
        f'type: "WindowData" window_data_param {{ source: "{tmp_path}/windows.txt" root_folder: "{tmp_path}/"'
        f" {' '.join(settings)} }} transform_param {{ {transform} }}"
    )


WINDOWS = ["# 0", "x.png", "3", "8", "10", "3", "5 0.9 2 1 5 4", "6 0.45 0 0 3 3", "7 0.1 6 4 9 7"]


def test_windows_are_cut_and_labelled(tmp_path):
    pixels = picture(3, 8, 10)
    save(tmp_path / "x.png", pixels)
    settings = "batch_size: 4 fg_threshold: 0.5 bg_threshold: 0.3 fg_fraction: 0.25 scale: 0.5"
    layer = window_data(tmp_path, WINDOWS, settings, transform="crop_size: 4 mean_value: 9")
    out = source(layer).forward()
    assert out["label"].tolist() == [0, 0, 0, 5]
    background, foreground = pixels[:, 4:8, 6:10], pixels[:, 1:5, 2:6]
    for got, cut in zip(out["data"], [background] * 3 + [foreground], strict=True):
        assert np.array_equal(got, (cut - np.float32(9)) / 2)


def test_windows_are_warped_to_the_crop(tmp_path):
    pixels = picture(3, 8, 10)
    save(tmp_path / "x.png", pixels)
    out = source(
        window_data(tmp_path, WINDOWS, "batch_size: 1 fg_fraction: 1", transform="crop_size: 7")
    ).forward()
    assert np.array_equal(out["data"][0], resize_linear(pixels[:, 1:5, 2:6], 7, 7))


def test_context_beyond_the_image_is_empty(tmp_path):
    save(tmp_path / "x.png", np.full((3, 8, 10), 50, np.uint8))
    windows = ["# 0 x.png 3 8 10 2", "1 0.9 0 2 3 5", "0 0 0 0 1 1"]
    layer = window_data(
        tmp_path, windows, "batch_size: 1 fg_fraction: 1 context_pad: 2", transform="crop_size: 8"
    )
    got = source(layer).forward()["data"][0]
    # widened to columns -2..6 and rows 0..8: 9 become 8 pixels, 2 columns and 1 row of them outside
    assert (got[:, :, :2] == 0).all()
    assert (got[:, :7, 2:] == 50).all()
    assert (got[:, 7:, :] == 0).all()


@given(
    first=st.integers(0, 30),
    length=st.integers(1, 30),
    size=st.integers(1, 60),
    crop=st.integers(5, 40),
    context=st.integers(0, 2),
)
@settings(max_examples=100, deadline=None)
def test_a_warp_stays_inside_image_and_crop(first, length, size, crop, context):
    if first >= size:
        return
    last = min(first + length - 1, size - 1)
    got = warp((first, last), (last - first + 1) / 2, size, crop, crop / (crop - 2 * context))
    assert 0 <= got.first <= got.last < size
    assert abs(got.before + got.out + got.after - crop) <= 2  # three numbers rounded


def test_bad_window_files_are_named(tmp_path):
    save(tmp_path / "x.png", picture(3, 8, 10))

    def fails(lines, says: str, *settings):
        layer = window_data(tmp_path, lines, "batch_size: 1 fg_fraction: 1", *settings)
        with pytest.raises(LayerError, match=re.escape(says)):
            source(layer).forward()

    fails(["hello"], "is not a window file: word 1 is 'hello', not '#'")
    fails(["# 0 x.png 3 8 10 2 1 0.9 0 0 3"], "is not a window file")
    fails(["# 0 x.png 3 8 10 -3"], "holds no background windows")
    fails(WINDOWS[:6] + WINDOWS[6:7] * 3, "holds no background windows")
    fails(
        ["# 0 x.png 3 8 10 2", "0 0.9 0 0 1 1", "0 0 0 0 1 1"],
        "a foreground window has the label 0, not above 0",
    )
    fails(
        ["# 0 x.png 3 8 10 2", "1 0.9 0 0 1 9", "0 0 0 0 1 1"],
        "rows (0, 9), columns (0, 1) are not inside it",
    )
    fails(["# 0 y.png 3 8 10 2", "1 0.9 0 0 1 1", "0 0 0 0 1 1"], "y.png: cannot be read")
    refused(
        window_data(tmp_path, WINDOWS, "batch_size: 1 context_pad: 2"),
        "crop_size 4 must be more than 2 * context_pad",
    )
    unread = 'type: "WindowData" window_data_param { source: "/none" batch_size: 3 }'
    assert source(f"{unread} transform_param {{ crop_size: 4 }}").blobs["data"].shape == (3, 3, 4, 4)


# --- all of them


@pytest.mark.parametrize("kind", ["Data", "DummyData", "HDF5Data", "ImageData", "MemoryData", "WindowData"])
def test_data_layers_are_not_lowered_and_say_so(kind):
    from caffe_fcn.layers import LAYERS

    assert LAYERS[kind].role == "data"
    assert "caffe-fcn deploy" in LAYERS[kind].no_onnx
    assert LAYERS[kind].bottoms == range(1)
