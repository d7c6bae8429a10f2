"""Files are written whole or not at all, and read with a plain word about what they are instead."""

import os
import stat

import pytest

from caffe_fcn.errors import CaffeError, CaffemodelError
from caffe_fcn.formats.files import atomic_write, map_file


def test_file_appears_when_block_ends(tmp_path):
    path = tmp_path / "out.bin"
    with atomic_write(path) as file:
        file.write(b"abcdef")
        assert not path.exists()
        file.seek(2)
        assert file.read(2) == b"cd"
    assert path.read_bytes() == b"abcdef"
    assert os.listdir(tmp_path) == ["out.bin"]


def _fail(file):
    file.write(b"half")
    raise KeyError("stop")


def test_failed_block_leaves_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "out.bin"
    path.write_bytes(b"old")
    with pytest.raises(KeyError, match="stop"), atomic_write(path) as file:
        _fail(file)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["out.bin"]


def test_permissions_follow_umask(tmp_path):
    old = os.umask(0o027)
    try:
        with atomic_write(tmp_path / "out.bin") as file:
            file.write(b"x")
    finally:
        os.umask(old)
    assert stat.S_IMODE(os.stat(tmp_path / "out.bin").st_mode) == 0o640


def test_symbolic_link_is_followed(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real" / "out.bin")
    with atomic_write(tmp_path / "link") as file:
        file.write(b"x")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "out.bin").read_bytes() == b"x"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("folder", "folder: is a directory, not a file"),
        ("missing/out.bin", "missing: no such folder"),
        ("plain/out.bin", "plain: no such folder"),
        ("pipe", "pipe: is a device or a pipe"),
        ("x" * 300, "cannot be written"),
    ],
)
def test_targets_that_cannot_be(tmp_path, name, message):
    (tmp_path / "folder").mkdir()
    (tmp_path / "plain").write_bytes(b"")
    os.mkfifo(tmp_path / "pipe")
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(CaffeError, match=message), atomic_write(tmp_path / name) as file:
        file.write(b"x")
    assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_unwritable_folder_and_file(tmp_path):
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "file").chmod(0o444)
    with pytest.raises(CaffeError, match="write-protected"), atomic_write(tmp_path / "file"):
        pass
    tmp_path.chmod(0o555)
    with (
        pytest.raises(CaffeError, match=r"cannot be written: .*Permission denied"),
        atomic_write(tmp_path / "a"),
    ):
        pass


def test_full_disk_is_told_and_cleaned_up(tmp_path):
    with (
        pytest.raises(CaffeError, match=r"out.bin: cannot be written: No space left"),
        atomic_write(tmp_path / "out.bin"),
    ):
        raise OSError(28, "No space left on device")
    assert os.listdir(tmp_path) == []


def test_error_about_another_file_passes(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "out.bin"):
        (tmp_path / "other").read_bytes()
    assert os.listdir(tmp_path) == []


def test_map_is_copy_on_write(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    data = map_file(path, "a caffemodel")
    data[0] = ord("X")
    assert data[:] == b"Xbc"
    assert path.read_bytes() == b"abc"


def test_map_of_what_is_no_file(tmp_path):
    (tmp_path / "empty").touch()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CaffemodelError, match="empty: is empty, not a caffemodel"):
        map_file(tmp_path / "empty", "a caffemodel")
    with pytest.raises(CaffemodelError, match="none: cannot be read: No such file"):
        map_file(tmp_path / "none", "a caffemodel")
    for odd in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(CaffemodelError, match="is not a file, so not a caffemodel"):
            map_file(odd, "a caffemodel")
