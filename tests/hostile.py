"""What hostile input is put through: all that the package does with it. It ends, or raises a CaffeError.

Each of TARGETS takes any bytes, and an empty folder of its own; tests and `tools/fuzz.py` share them.
"""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from caffe_fcn.conversion import convert
from caffe_fcn.deploy import pruned, to_deploy
from caffe_fcn.errors import CaffeError
from caffe_fcn.formats import binary_net, binaryproto, caffemodel, hdf5_data, images, prototxt, weights
from caffe_fcn.formats.arrays import read_arrays
from caffe_fcn.formats.caffe_pb2 import NetParameter
from caffe_fcn.net import Net
from caffe_fcn.report import FORMATS, render
from caffe_fcn.tracing import trace
from tests.conftest import HERE
from tests.hostile_nets import random_net

SMALL = 1 << 17  # values of all blobs and parameters, and products, of nets that are also run
Target = Callable[[bytes, Path], object]


def _file(content: bytes, folder: Path, name: str) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def weights_file(content: bytes, folder: Path) -> None:
    """Read as weights, every value of them; upgraded, if it is binary."""
    path = _file(content, folder, "net.caffemodel")
    values = 0
    for layer in weights.load(path):
        for blob in layer.blobs:
            values += blob.data.nbytes if blob is not None else 0
            _touched(blob.data if blob is not None else np.empty(0))
    assert values <= 1000 * len(content)
    caffemodel.read(_file(binary_net.read_upgraded(path).SerializeToString(), folder, "again.caffemodel"))


def hdf5_file(content: bytes, folder: Path) -> None:
    """Read as weights, as blobs, and as training data."""
    path = _file(content, folder, "net.caffemodel.h5")
    with suppress(CaffeError):
        for array in hdf5_data.read_rows(path, ["data", "label"]):
            _touched(array)
    with suppress(CaffeError):
        for array in read_arrays(path).values():
            _touched(array)
    for layer in weights.load(path):
        for blob in layer.blobs:
            _touched(blob.data if blob is not None else np.empty(0))


def blob_file(content: bytes, folder: Path) -> None:
    """Read as a mean."""
    _touched(binaryproto.read_blob(_file(content, folder, "mean.binaryproto")))


def arrays_file(content: bytes, folder: Path) -> None:
    """Read as blobs by name."""
    for array in read_arrays(_file(content, folder, "blobs.npz")).values():
        _touched(array)


def image_file(content: bytes, folder: Path) -> None:
    """Read as the data layers read images."""
    path = _file(content, folder, "image.png")
    for mode in ("color", "gray", "native"):
        assert images.read_image(path, mode).dtype == np.uint8


def text_file(content: bytes, folder: Path) -> None:
    """Read as a net, written and read again; and the net built, traced and converted."""
    path = _file(content, folder, "net.prototxt")
    net(prototxt.read_net(path), folder)


def any_net(content: bytes, folder: Path) -> None:
    """A net of random layers, which the bytes choose."""
    text_file(random_net(Chosen(content), str(folder)).encode(), folder)


def net(read: prototxt.Prototxt, folder: Path) -> None:
    """Everything that is done with a net: its text, its deploy net, a trace in each form, an ONNX file."""
    text = prototxt.format(read)
    again = prototxt.format(prototxt.parse(text, NetParameter))
    assert again == text or any(origin.fields for origin in read.origins)
    try:
        cut = pruned(to_deploy(read))
        for each in (read, cut.text) if cut.dropped or cut.transform else (read,):
            built = Net(each)
            found = trace(built)
            little = small(built)
            for form in FORMATS:
                render(found, form, built if little else None)
            if little:
                built.forward()
        if little:
            path = _file(text.encode(), folder, "again.prototxt")
            convert(path, None, folder / "net.onnx", **_options(Random(text), built))
    finally:
        for left in folder.glob("*.onnx*"):
            left.unlink()


def _options(rng: Random, built: Net) -> dict[str, Any]:
    """What `convert` is told: mostly nothing, else this or that."""
    names = ("softmax", "argmax", "fp16", "preprocess", "external_data", "init_missing")
    options: dict[str, Any] = {name: True for name in names if rng.random() < 0.1}
    if rng.random() < 0.3:
        options["outputs"] = [rng.choice(built.blob_names or [""]) for _ in range(rng.choice((1, 3)))]
    if rng.random() < 0.3:
        options["input_shapes"] = {n: [max(1, s) for s in built.blobs[n].shape] for n in built.inputs}
    return {**options, "opset": rng.choice((17, 17, 18, 20))}


def small(built: Net) -> bool:
    """Whether a net's forward pass takes no time."""
    blobs = [*built.blob_list, *(blob for blobs in built.params.values() for blob in blobs)]
    shapes = [[built.blob_list[i].shape for i in ids] for ids in built.bottom_ids]
    tops = [[built.blob_list[i].shape for i in ids] for ids in built.top_ids]
    products = sum(int(x.macs(b, t)) for x, b, t in zip(built.layers, shapes, tops, strict=True))
    return sum(blob.count for blob in blobs) + products // 16 <= SMALL


def _touched(array: np.ndarray) -> None:
    """Read every value."""
    array.tobytes()


TARGETS: dict[str, Target] = {
    "caffemodel": weights_file,
    "prototxt": text_file,
    "binaryproto": blob_file,
    "hdf5": hdf5_file,
    "npz": arrays_file,
    "image": image_file,
    "net": any_net,
}


class Chosen(Random):
    """Random numbers that some bytes choose, and when these are used up, a seed."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.left = content

    def getrandbits(self, k: int) -> int:
        size = (k + 7) // 8
        if len(self.left) < size:
            return super().getrandbits(k)
        taken, self.left = self.left[:size], self.left[size:]
        return int.from_bytes(taken, "little") >> (8 * size - k)

    def random(self) -> float:
        return self.getrandbits(16) / 65536


def refused(target: Target, content: bytes, folder: Path) -> str:
    """Why the content was refused, or ''; whatever else it raises is a bug."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            target(content, folder)
    except CaffeError as error:
        return str(error)
    return ""


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, ({memory}, {memory}))
resource.setrlimit(resource.RLIMIT_CPU, ({seconds}, {seconds}))
"""


def limited(code: str, *arguments: object, given: str = "", memory: int = 3 << 30, seconds: int = 60) -> str:
    """What a Python of its own prints that may take so many bytes of address space and seconds of CPU.

    It finds `arguments` in sys.argv, and `given` on stdin.
    """
    done = subprocess.run(
        [sys.executable, "-c", LIMITED.format(memory=memory, seconds=seconds) + code, *map(str, arguments)],
        cwd=HERE.parent, input=given, capture_output=True, text=True, timeout=10 * seconds,
    )  # fmt: skip
    assert done.returncode == 0, f"exit {done.returncode}: {done.stderr[-2000:]}"
    return done.stdout
