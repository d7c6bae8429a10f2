"""The forward pass of a net through onnxruntime: an exported graph kept, blobs fetched when they are read."""

from __future__ import annotations

import shutil
import tempfile
import weakref
import zlib
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from caffe_fcn.blob import Blob, Shape
from caffe_fcn.errors import CaffeError, DeviceError
from caffe_fcn.net import TRAIN, Net

if TYPE_CHECKING:
    from caffe_fcn.runtime import Session

FEW = 2  # so many inner blobs are made outputs one by one; a script that reads more gets all at once
SMALL = 1 << 26  # bytes of weights; a graph with more is handed over as a file, not as a copy in memory


def obstacle(net: Net) -> str:
    """Why a net has to run in NumPy whatever its layers are; "" if nothing is in the way."""
    if net.phase == TRAIN:
        return "its phase is TRAIN"
    for layer, tops in zip(net.layers, net.top_ids, strict=True):
        if layer.role == "data":
            return f"layer '{layer.name}' ({layer.type}) makes its data"
        if layer.type != "Input" and (fed := {net.blob_names[i] for i in tops}.intersection(net.inputs)):
            return f"layer '{layer.name}' ({layer.type}) works in place on the input {', '.join(fed)}"
    return ""


class OnnxEngine:
    """Runs one net, on one device.

    A session gives the net's outputs, and of the other blobs those that were read after the pass before;
    what else is read is fetched by running the same inputs again. The session is made anew when parameters
    were written, when the inputs have a shape that the graph does not leave open, and for blobs that it does
    not give.
    """

    def __init__(self, net: Net, gpu: bool, number: int) -> None:
        self.net, self.gpu, self.number = net, gpu, number
        losses = [name for name, weight in net.blob_loss_weights.items() if weight]
        self._outputs = list(dict.fromkeys([*net.outputs, *losses]))
        self._read: set[str] = set()  # inner blobs that the script reads
        self._session: Session | None = None
        self._given: list[str] = []  # the blobs that the session can give
        self._stamps: dict[int, tuple[Shape, int]] = {}  # parameter -> what it was when the session was made
        self._feeds: dict[str, np.ndarray] = {}  # the inputs of the last pass
        self._shapes: list[Shape] = []  # of all blobs, in that pass
        self._fed: dict[str, Shape] = {}  # the inputs' shapes that these belong to
        # Removes the file of a large graph, which the session may read as long as there is one.
        self._drop: Callable[[], Any] = lambda: None

    def run(self, asked: Iterable[str] = ()) -> None:
        """One forward pass over the whole net; `asked` are inner blobs to fetch with it.

        Raises:
            UnsupportedError: a layer has no counterpart in ONNX.
            DeviceError: the device cannot be had.
            CaffeError: the inputs do not fit the net.
        """
        net = self.net
        fed = {name: net.blobs[name].shape for name in net.inputs}
        if fed != self._fed:
            net.reshape()
            self._fed, self._shapes = fed, [blob.shape for blob in net.blob_list]
        wanted = [*self._outputs, *self._wanted(set(asked))]
        if not self._fits() or self._written() or not set(wanted) <= set(self._given):
            self._make()
        for blob in net.blob_list:
            blob.touched = False
        got = self._forward({name: net.blobs[name].peek().copy() for name in net.inputs}, wanted)
        for i, name in enumerate(net.blob_names):
            if name not in got and name not in fed:
                net.blob_list[i].defer(self._shapes[i], partial(self._fetch, name))
        self._store(got)

    def _wanted(self, asked: set[str]) -> set[str]:
        """The inner blobs that somebody looks at: asked for, read since the last pass, viewed right now."""
        first = self._session is None  # what was read before any pass says nothing
        known = {*self._outputs, *self.net.inputs}
        inner = {name: blob for name, blob in self.net.blobs.items() if name not in known}
        read = {name for name, b in inner.items() if name in asked or b.held or (b.touched and not first)}
        self._read |= read
        return read

    # --- the session

    def _make(self) -> None:
        """Export the net as it is now, with the blobs that are read as outputs, and start a session on it."""
        from caffe_fcn.export import passes
        from caffe_fcn.export.exporter import export

        inner = [name for name in self.net.blobs if name not in {*self._outputs, *self.net.inputs}]
        if len(self._read) <= FEW:
            inner = [name for name in inner if name in self._read]
        self._given = [*self._outputs, *inner]
        self._stamps = {id(blob): _stamp(blob) for blob in self._parameters()}
        graph = export(self.net, self._given).graph
        passes.run(graph)
        self._session = None  # its memory goes before that of the next one is taken
        self._session = self._start(graph)
        for blob in self._parameters():
            blob.touched = False

    def _start(self, graph: Any) -> Session:
        from caffe_fcn.export.exporter import OPSET
        from caffe_fcn.export.write import to_model, write
        from caffe_fcn.runtime import Session

        model: Path | bytes
        if sum(array.nbytes for array in graph.constants.values()) < SMALL:
            model = to_model(graph, OPSET).SerializeToString()
        else:
            folder = tempfile.mkdtemp(prefix="caffe-fcn-")
            self._drop()
            self._drop = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
            model = Path(folder) / "net.onnx"
            write(graph, model, opset=OPSET, external=True)
        try:
            return Session(model, "cuda" if self.gpu else "cpu", device_id=self.number)
        except DeviceError as error:
            raise DeviceError(
                f"{self.net.path}: set_mode_gpu, but onnxruntime cannot start CUDA here",
                "set_mode_cpu(), or `python -m caffe_fcn.pycaffe --device cpu`, runs it on the CPU; "
                "`caffe-fcn doctor` says what is missing",
            ) from error

    def _fits(self) -> bool:
        """Whether there is a session, and it takes inputs of the present shapes."""
        if self._session is None:
            return False
        try:
            self._session.check({name: self._fed[name] for name in self._session.inputs})
        except CaffeError:
            return False
        return True

    def _parameters(self) -> Iterable[Blob]:
        return (blob for blobs in self.net.params.values() for blob in blobs)

    def _written(self) -> bool:
        """Whether a parameter is no longer what it was. Only those that were handed out can have changed."""
        for blob in self._parameters():
            if blob.touched or blob.held:
                if self._stamps.get(id(blob)) != _stamp(blob):
                    return True
                blob.touched = False
        return False

    # --- values

    def _forward(self, feeds: dict[str, np.ndarray], names: list[str]) -> dict[str, np.ndarray]:
        if self._session is None:
            return {}
        self._feeds = feeds
        return self._session.run({name: feeds[name] for name in self._session.inputs}, names)

    def _store(self, values: dict[str, np.ndarray]) -> None:
        for name, value in values.items():
            self.net.blobs[name].store(np.ascontiguousarray(value, np.float32).reshape(value.shape))

    def _fetch(self, name: str) -> None:
        """Store a blob of the last pass, and what else the session gives and nobody has read yet."""
        same = all(self.net.blobs[n].shape == feed.shape for n, feed in self._feeds.items())
        if self._written() or not same:
            raise CaffeError(
                f"{self.net.path}: blob '{name}' was not fetched after the forward pass, and since then "
                f"{'parameters were written' if same else 'the inputs were reshaped'}",
                "read it before that, or run forward again; the engine 'numpy' keeps every blob",
            )
        self._read.add(name)
        if name not in self._given:
            self._make()
        missing = [n for n in self._given if self.net.blobs[n].deferred]
        self._store(self._forward(self._feeds, missing))


def _stamp(blob: Blob) -> tuple[Shape, int]:
    """The shape of a parameter, and a checksum of its values."""
    return blob.shape, zlib.crc32(np.ascontiguousarray(blob.peek()).reshape(-1).view(np.uint8).data)
