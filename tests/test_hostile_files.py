"""Hostile files of every kind: a result or a CaffeError, and no more memory than they are worth."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from contextlib import suppress
from random import Random

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caffe_fcn.errors import CaffeError
from caffe_fcn.formats import binary_net, caffe_pb2, hdf5_data, images, weights
from caffe_fcn.formats.arrays import read_arrays
from caffe_fcn.formats.lmdb import Records
from caffe_fcn.formats.wire import encode_bytes, encode_varint
from tests.hostile import TARGETS, limited, refused
from tests.hostile_changes import changed, seeds

KINDS = ("caffemodel", "binaryproto", "hdf5", "npz", "image")
quick = settings(deadline=None, derandomize=True, database=None)


@pytest.mark.parametrize("kind", KINDS)
def test_real_files_are_read(kind, tmp_path):
    """What the changes start from is not refused itself."""
    for content in seeds(kind)[:4]:
        told = refused(TARGETS[kind], content, tmp_path)
        assert not told or kind == "hdf5", told  # no file is everything that HDF5 is read as


@pytest.mark.parametrize("kind", KINDS)
@given(content=st.binary(max_size=300))
@settings(quick, max_examples=40)
def test_any_bytes(kind, tmp_path_factory, content):
    refused(TARGETS[kind], content, tmp_path_factory.getbasetemp())


@pytest.mark.parametrize("kind", KINDS)
@given(rng=st.randoms(use_true_random=True))
@settings(quick, max_examples=80)
def test_changed_files(kind, tmp_path_factory, rng):
    content = changed(rng.choice(seeds(kind)), rng, kind)
    refused(TARGETS[kind], content, tmp_path_factory.getbasetemp())


# Sizes that are claimed

CLAIMS = {
    "2^60 values": encode_bytes(7, encode_bytes(1, encode_varint(2**60))) + encode_bytes(5, bytes(8)),
    "2^60 bytes": encode_varint(5 << 3 | 2) + encode_varint(2**60) + bytes(8),
    "2^40 in four": b"".join(encode_varint(n << 3) + encode_varint(2**10) for n in (1, 2, 3, 4)),
    "2^64": encode_bytes(7, encode_bytes(1, encode_varint(2**32) * 2)),
    "2^60 doubles": encode_bytes(7, encode_bytes(1, encode_varint(2**60))) + encode_bytes(8, bytes(8)),
}

CLAIMING = """
from pathlib import Path
from caffe_fcn.errors import CaffeError
from caffe_fcn.formats import binaryproto, weights
for read, path in ((weights.load, sys.argv[1]), (binaryproto.read_blob, sys.argv[2])):
    try:
        read(path)
    except CaffeError as error:
        print(type(error).__name__)
"""


@pytest.mark.parametrize("claim", CLAIMS)
def test_values_that_a_caffemodel_claims_are_not_allocated(claim, tmp_path):
    blob = CLAIMS[claim]
    (tmp_path / "blob").write_bytes(blob)
    (tmp_path / "net").write_bytes(encode_bytes(100, encode_bytes(1, b"ip") + encode_bytes(7, blob)))
    for path in (tmp_path / "net", tmp_path / "blob"):
        with pytest.raises(CaffeError, match=r"2,147,483,647|bytes expected|bytes claimed|the file has"):
            weights.load(path) if path.name == "net" else TARGETS["binaryproto"](path.read_bytes(), tmp_path)


def test_claims_are_refused_in_little_memory(tmp_path):
    """The same in a process that could not have what is claimed."""
    blob = CLAIMS["2^40 in four"] + encode_bytes(5, bytes(8))
    (tmp_path / "blob").write_bytes(blob)
    (tmp_path / "net").write_bytes(encode_bytes(100, encode_bytes(1, b"ip") + encode_bytes(7, blob)))
    out = limited(CLAIMING, tmp_path / "net", tmp_path / "blob", memory=1 << 30, seconds=20)
    assert out.split() == ["CaffemodelError"] * 2


def test_a_caffemodel_nested_ten_thousand_deep(tmp_path):
    """No message of Caffe's holds itself: it is no blob; nor are groups, which no Caffe file has."""
    content = b""
    for _ in range(10_000):
        content = encode_bytes(7, content)
    (tmp_path / "net").write_bytes(encode_bytes(100, content))
    with pytest.raises(CaffeError, match="layer 0, blob 0"):
        weights.load(tmp_path / "net")
    (tmp_path / "net").write_bytes(b"\x0a\x01n" + b"\x1b" * 10_000 + b"\x1c" * 10_000)
    for read in (weights.load, binary_net.read_upgraded):
        with pytest.raises(CaffeError):
            read(tmp_path / "net")


def test_half_a_gigabyte_of_empty_layers_costs_little(tmp_path):
    """A sparse file of zeros: no field of any message."""
    with (tmp_path / "net").open("wb") as file:
        file.truncate(1 << 29)
    with pytest.raises(CaffeError, match="at byte 0"):
        weights.load(tmp_path / "net")


# Blobs by name


def archive(path, name: str, header: str, data: bytes, method: int = zipfile.ZIP_DEFLATED) -> None:
    """An .npz of one array with this header."""
    head = header.encode() + b"\n"
    with zipfile.ZipFile(path, "w", method) as file:
        file.writestr(f"{name}.npy", b"\x93NUMPY\x01\0" + struct.pack("<H", len(head)) + head + data)


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1152921504606846976,), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2147483648, 2147483648, 2147483648), }",
        "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), 'x': __import__('os').system('true') }",
        "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (9,), }",
        "{" * 10_000,
        "nonsense",
    ],
)
def test_an_npz_that_claims(header, tmp_path):
    archive(tmp_path / "blobs.npz", "a", header, bytes(8))
    with pytest.raises(CaffeError, match=r"blobs\.npz: is neither"):
        read_arrays(tmp_path / "blobs.npz")


def test_an_npz_that_unpacks_without_end_is_refused_unread(tmp_path):
    """A zip bomb: what the directory says is too much; what it hides is not read beyond what it says."""
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (1073741824,), }"
    archive(tmp_path / "blobs.npz", "a", header, b"")
    content = bytearray((tmp_path / "blobs.npz").read_bytes())
    at = content.rindex(b"PK\x01\x02") + 24  # the size as the directory has it
    content[at : at + 4] = struct.pack("<I", 2**32 - 2)
    (tmp_path / "blobs.npz").write_bytes(content)
    with pytest.raises(CaffeError, match="claims to hold 4294967294 bytes"):
        read_arrays(tmp_path / "blobs.npz")


def test_an_npz_that_claims_more_than_there_is_memory(tmp_path):
    """What the header claims beyond what is there."""
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (402653184,), }"
    archive(tmp_path / "blobs.npz", "a", header, bytes(1 << 16))
    code = """
from caffe_fcn.errors import CaffeError
from caffe_fcn.formats.arrays import read_arrays
try:
    read_arrays(sys.argv[1])
except CaffeError as error:
    print("refused")
"""
    assert limited(code, tmp_path / "blobs.npz", memory=1 << 30, seconds=20).strip() == "refused"


# HDF5: what leads out of the file


def leads_out(file: h5py.File, elsewhere: str) -> None:
    file["external"] = h5py.ExternalLink(elsewhere, "/data")
    file["soft"] = h5py.SoftLink("/nowhere")
    file.create_dataset("stored", (4,), "f4", external=[(elsewhere, 0, 16)])
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource(elsewhere, "data", (4,))
    file.create_virtual_dataset("virtual", layout)
    file["own"] = np.ones(4, np.float32)


def test_hdf5_links_out_of_the_file_are_not_followed(tmp_path):
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["data"] = np.full(4, 7, np.float32)
    with h5py.File(tmp_path / "blobs.h5", "w") as file:
        leads_out(file, str(tmp_path / "secret.h5"))
    assert list(read_arrays(tmp_path / "blobs.h5")) == ["own"]
    for name in ("external", "soft", "stored", "virtual"):
        with pytest.raises(CaffeError, match=f"dataset '{name}'"):
            hdf5_data.read_rows(tmp_path / "blobs.h5", [name])
    with pytest.raises(CaffeError, match="has no group 'data'"):
        weights.load(tmp_path / "blobs.h5")


def test_hdf5_rows_that_are_claimed_are_not_allocated(tmp_path):
    with h5py.File(tmp_path / "rows.h5", "w") as file:
        file.create_dataset("data", (2**40, 2**20), "f4", chunks=(1, 64))
        file.create_dataset("label", (2**30,), "f4", chunks=(64,))
    for name in ("data", "label"):
        with pytest.raises(CaffeError, match=r"claims .* values in a file of"):
            hdf5_data.read_rows(tmp_path / "rows.h5", [name])
    with pytest.raises(CaffeError, match="claims to hold"):
        read_arrays(tmp_path / "rows.h5")


# Images and databases


def png(width: int, height: int) -> bytes:
    """The head of a PNG, and no pixels."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))


@pytest.mark.parametrize("side", [0, 2**15, 2**31 - 1])
def test_an_image_that_claims_its_pixels(side, tmp_path):
    (tmp_path / "a.png").write_bytes(png(side, side))
    with pytest.raises(CaffeError, match=r"a\.png: cannot be read as an image"):
        images.read_image(tmp_path / "a.png")


@given(st.integers(0, 2**31))
@settings(quick, max_examples=15)
def test_a_damaged_database(tmp_path_factory, seed):
    lmdb = pytest.importorskip("lmdb")
    folder = tmp_path_factory.mktemp("lmdb")
    datum = caffe_pb2.Datum(channels=1, height=2, width=2, data=b"abcd", label=3).SerializeToString()
    with lmdb.open(str(folder / "db"), map_size=1 << 20, subdir=False) as db, db.begin(write=True) as writing:
        writing.put(b"0", changed(datum, Random(seed), "lmdb"))
    with suppress(CaffeError):
        Records(str(folder / "db")).image()


@pytest.mark.parametrize("content", [b"", b"x" * 5000, bytes(8192)])
def test_what_is_no_database(content, tmp_path):
    pytest.importorskip("lmdb")
    (tmp_path / "db").write_bytes(content)
    with pytest.raises(CaffeError, match="cannot be opened as an LMDB database"):
        Records(str(tmp_path / "db"))


def test_an_image_of_any_name_and_place(tmp_path):
    for name in ("", "a\0b", str(tmp_path), "/dev/null", str(tmp_path / "none.png")):
        with pytest.raises(CaffeError):
            images.read_image(name)
    with pytest.raises(CaffeError):
        images.read_image(io.BytesIO(b"x").getvalue())
