"""Which ONNX nodes a layer becomes. Export is imported only here, and only when somebody asks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from caffe_fcn.blob import Blob
from caffe_fcn.errors import CaffeError
from caffe_fcn.net import Net


def lowered(net: Net) -> tuple[dict[str, list[str]], str]:
    """For each layer its operators in order, in the plain graph; and why there is none, or "".

    A layer that the outputs need but that has no operators passes its bottom on; one that is not named at all
    is not needed. Weights that nobody gave are not made up for this.
    """
    from caffe_fcn.export.exporter import export

    try:
        with _hollow(net):
            exported = export(net)
    except CaffeError as error:
        return {}, str(error).splitlines()[0]
    found: dict[str, list[str]] = {n: [] for n in net.layer_names if n not in exported.dropped}
    for node in exported.graph.nodes:
        found.setdefault(node.layer, []).append(node.op)
    return found, ""


@contextmanager
def _hollow(net: Net) -> Iterator[None]:
    """Stand-ins of no size for parameters that hold nothing yet: a filler would draw a number for each."""
    kept = [(layer.blobs, list(layer.blobs)) for layer in net.layers]
    for blobs, own in kept:
        blobs[:] = [blob if blob.filled else Blob(blob.shape, _nothing) for blob in own]
    try:
        yield
    finally:
        for blobs, own in kept:
            blobs[:] = own


def _nothing(shape: tuple[int, ...]) -> np.ndarray:
    return np.broadcast_to(np.float32(0), shape)
