"""Every command on odd arguments: exit code, one clear message, no traceback, nothing left behind."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from caffe_fcn.cli import COMMANDS, call
from caffe_fcn.conversion import convert
from caffe_fcn.formats.caffemodel import write

NET = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 8 dim: 8 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 4 kernel_size: 3 } }
"""
#: Of each command the arguments that work; what stands in < > is a file that is read, in [ ] one written.
GOOD = {
    "convert": "<net.prototxt> <net.caffemodel> [out.onnx]",
    "trace": "<net.prototxt> --weights <net.caffemodel> -o [out.txt]",
    "segment": "<net.onnx> <image.png> -o [out] --device cpu",
    "features": "<net.prototxt> <net.caffemodel> <image.png> -o [out]",
    "score": "<labels> <labels> --classes 4",
    "bench": "<net.onnx> --device cpu --rounds 1 --input-shape data:1,3,8,8",
    "verify": "<net.prototxt> <net.caffemodel> <net.onnx>",
    "deploy": "<net.prototxt> [out.prototxt]",
    "upgrade": "<net.prototxt> [out.prototxt]",
    "transplant": "<net.prototxt> <net.caffemodel> <net.prototxt> [out.caffemodel]",
    "weights": "<net.caffemodel>",
    "serve": "<net.onnx> --device cpu",
}


@pytest.fixture(autouse=True)
def _never_served(monkeypatch):
    """A page that is served would not end."""
    uvicorn = pytest.importorskip("uvicorn")
    monkeypatch.setattr(uvicorn.Server, "run", lambda *_, **__: None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A net, its weights, its model, an image and labels."""
    from PIL import Image

    made = tmp_path_factory.mktemp("cli")
    (made / "net.prototxt").write_text(NET)
    arrays = [np.ones((4, 3, 3, 3), np.float32), np.zeros(4, np.float32)]
    write(made / "net.caffemodel", "net", [("conv", "Convolution", arrays)])
    convert(made / "net.prototxt", made / "net.caffemodel", made / "net.onnx", verify=False)
    (made / "labels").mkdir()
    for name, mode in (("image.png", "RGB"), ("labels/a.png", "L")):
        Image.new(mode, (8, 8)).save(made / name)
    (made / "folder").mkdir()
    (made / "garbage").write_bytes(bytes(range(256)) * 4)
    (made / "empty").touch()
    os.mkfifo(made / "pipe")
    return made


def words(command: str, folder: Path, out: Path) -> list[str]:
    return [_placed(word, folder, out) for word in GOOD[command].split()]


def _placed(word: str, folder: Path, out: Path) -> str:
    if word[0] == "<":
        return str(folder / word[1:-1])
    return str(out / word[1:-1]) if word[0] == "[" else word


def refused(command: str, argv: list[str], out: Path, capfd) -> str:
    """Run, expect exit 1 or 2 and nothing written; returns the message."""
    try:
        code = call(command, argv, prog=f"caffe-fcn {command}")
    except SystemExit as stopped:
        code = stopped.code
    said = capfd.readouterr()
    assert code in (1, 2), (code, said)
    assert "Traceback" not in said.err
    assert "internal error" not in said.err
    assert f"caffe-fcn {command}: " in said.err
    assert code == 2 or len(said.err.strip().splitlines()) <= 5, said.err
    assert [p for p in out.rglob("*") if not p.is_dir()] == []
    return said.err


READS = [(c, i) for c in GOOD for i, word in enumerate(GOOD[c].split()) if word[0] == "<"]


@pytest.mark.parametrize("bad", ["none", "folder", "/dev/null", "garbage", "empty", ""])
@pytest.mark.parametrize(("command", "i"), READS, ids=lambda value: str(value))
def test_what_cannot_be_read(command, i, bad, folder, tmp_path, capfd):
    argv = words(command, folder, tmp_path)
    argv[i] = bad if bad in ("", "/dev/null") else f"{folder}/{bad}"
    assert bad in refused(command, argv, tmp_path, capfd)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
@pytest.mark.parametrize(("command", "i"), READS, ids=lambda value: str(value))
def test_what_may_not_be_read(command, i, folder, tmp_path, capfd):
    argv = words(command, folder, tmp_path)
    hidden = folder / "hidden"
    hidden.touch(mode=0)
    argv[i] = str(hidden)
    refused(command, argv, tmp_path, capfd)


WRITES = [(c, i) for c in GOOD for i, word in enumerate(GOOD[c].split()) if word[0] == "["]


@pytest.mark.parametrize("out", ["none/out", "pipe", "pipe/out", "garbage/out"])
@pytest.mark.parametrize(("command", "i"), WRITES, ids=lambda value: str(value))
def test_what_cannot_be_written(command, i, out, folder, tmp_path, capfd):
    """A pipe stands for every device: one that is replaced, /dev/null say, is missed by all others."""
    if out == "none/out" and GOOD[command].split()[i] == "[out]":
        pytest.skip("it makes its folders")
    argv = words(command, folder, tmp_path)
    argv[i] = f"{folder}/{out}"
    before = sorted(folder.iterdir())
    refused(command, argv, tmp_path, capfd)
    assert sorted(folder.iterdir()) == before
    assert (folder / "pipe").is_fifo()


#: Of each command what is refused, whatever else it is told.
ODD = {
    "convert": [
        "--opset 0", "--opset 1000000", "--opset -1", "--ir-version 0", "--ir-version -1",
        "--ir-version 99999999999999999999", "--input-shape data:1,3,0,8", "--input-shape data:1,3,-8,8",
        "--input-shape data:1,3,99999999999,99999999999", "--input-shape data:",
        "--input-shape data:1,3,8", "--input-shape data:1,3,65536,65536", "--input-shape data:nan",
        "--input-shape :1,3,8,8", "--output ", "--no-pass nonsense", "--preprocess --mean 1,2",
        "--preprocess --mean x", "--preprocess --mean nan,1,1", "--preprocess --scale nan",
        "--preprocess --scale inf", "--keep-fp32 nonsense --fp16", "--layers none.py",
        "--layers {folder}/garbage", "--layers {folder}",
    ],
    "trace": [
        "--input-shape data:0,0,0,0", "--input-shape nix:1,3,8,8", "--format nix",
    ],
    "verify": [
        "--tolerance -1", "--tolerance nan", "--blobs none", "--blobs {folder}/garbage",
        "--input-shape data:1,3,1,1", "--input-shape data:1,3,100000,100000",
    ],
    "deploy": [
        "--input-shape x",
    ],
    "segment": [
        "--tile 0", "--tile -5", "--tile 64 --overlap -1", "--tile 64 --overlap 64", "--batch 0",
        "--batch -1", "--output nix",
    ],
    "bench": [
        "--rounds 0", "--rounds -1", "--input-shape data:1,3,1,1", "--input-shape nix:1,3,1,1",
    ],
    "score": [
        "--classes 0", "--classes -1", "--classes nix", "--classes 99999999999",
    ],
    "features": [
        "--blob nix", "--heatmap nix", "--mean 1,2", "--scale x",
    ],
    "serve": [
        "--port -1", "--port 65536", "--max-upload -1", "--max-upload nan", "--max-pixels 0",
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("command", "more"),
    [(c, more) for c in ODD for more in ODD[c]],
    ids=lambda value: value.replace(" ", "_")[:40],
)
def test_odd_numbers_and_names(command, more, folder, tmp_path, capfd):
    argv = [*words(command, folder, tmp_path), *more.format(folder=folder).split(" ")]
    refused(command, argv, tmp_path, capfd)


def test_every_command_is_tried():
    assert set(GOOD) == set(COMMANDS) - {"doctor"}


@pytest.mark.parametrize("command", [c for c in GOOD if c != "serve"])
def test_the_arguments_work(command, folder, tmp_path, capfd):
    """Else what is refused above would be refused for another reason."""
    assert call(command, words(command, folder, tmp_path), prog=command) == 0, capfd.readouterr().err
