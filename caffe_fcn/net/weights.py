"""Weights into a net: matched by layer name, checked blob by blob (Net::CopyTrainedLayersFrom)."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from caffe_fcn.errors import CaffemodelError, CaffeWarning
from caffe_fcn.formats.weights import load

if TYPE_CHECKING:
    from caffe_fcn.net.net import Net


def copy(net: Net, weights: str | os.PathLike[str] | Iterable[Any]) -> list[str]:
    """Point the net's parameters at a file's arrays; returns the names of layers that the net lacks.

    A layer that the file holds without blobs keeps its filler, with a warning, as does one that it lacks.
    Raises CaffemodelError if a number or a shape of blobs does not fit.
    """
    if isinstance(weights, (str, os.PathLike)):
        path = os.fspath(weights)
        stored: Iterable[Any] = load(path)
    else:
        path, stored = "<weights>", weights
    ignored = []
    for layer in stored:
        if layer.name not in net.layer_dict:
            ignored.append(layer.name)
            continue
        target = net.layer_dict[layer.name]
        if not target.blobs or not layer.blobs:
            continue
        blobs = target.adapt(layer.blobs)
        if not _complete(net, target, blobs):
            raise CaffemodelError(
                f"{path}: incompatible number of blobs for layer '{layer.name}': "
                f"{sum(b is not None for b in blobs)} in the file, {len(target.blobs)} in the net "
                f"({target.where})"
            )
        for i, blob in enumerate(blobs):
            if blob is not None:
                target.blobs[i].store(_fitting(path, layer.name, i, blob, target))
                target.blobs[i].touched = True
        net.filled.add(layer.name)
    net.ignored = ignored
    empty = [n for n, layer in net.layer_dict.items() if layer.blobs and n not in net.filled]
    if empty:
        warnings.warn(
            f"{path}: nothing in it for {', '.join(empty)}: left at the filler"
            " (a Deconvolution without one is all zero; surgery.interp(net, layers) fills it)",
            CaffeWarning,
            stacklevel=4,
        )
    return ignored


def _complete(net: Net, target: Any, blobs: Sequence[Any]) -> bool:
    """Whether the file has all of a layer's parameters; HDF5 leaves out those that another layer owns."""
    if len(blobs) > len(target.blobs):
        return False
    absent = [i for i in range(len(target.blobs)) if i >= len(blobs) or blobs[i] is None]
    return all(net.shares(target, i) for i in absent)


def _fitting(path: str, name: str, i: int, blob: Any, target: Any) -> np.ndarray:
    """The stored array in the shape of the net's parameter; legacy 4-D ones may have axes of 1 in front."""
    want, have = target.blobs[i].shape, blob.data.shape
    if blob.legacy and len(want) <= 4:
        same = (1,) * (4 - len(want)) + tuple(want) == (1,) * (4 - len(have)) + tuple(have)
    else:
        same = tuple(want) == tuple(have)
    if not same:
        raise CaffemodelError(
            f"{path}: Cannot copy param {i} weights from layer '{name}'; shape mismatch. "
            f"Source param shape is {_text(have)}; target param shape is {_text(want)} ({target.where}).",
            "To learn this layer's parameters from scratch rather than copying from a saved net, rename the "
            "layer; to carry them over into another shape, use `caffe-fcn transplant`.",
        )
    return np.asarray(blob.data).reshape(want).astype(np.float32, copy=False)


def _text(shape: tuple[int, ...]) -> str:
    return " ".join(map(str, shape)) + f" ({int(np.prod(shape, dtype=np.int64))})"
