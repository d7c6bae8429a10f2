"""Weights in Caffe's HDF5 form (.caffemodel.h5): a layer's parameters are data/LAYER/0, data/LAYER/1, ...

HDF5 takes the '/' in a name like inception/1x1 for a group in a group, so every group that holds datasets is
a layer. A parameter that another layer owns is left out of the file (Net::ToHDF5).
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from mmap import mmap
from typing import TYPE_CHECKING, Any

import numpy as np

from caffe_fcn.errors import CaffemodelError
from caffe_fcn.formats.blobs import StoredBlob, StoredLayer, shape_problem
from caffe_fcn.formats.files import HDF5_MAGIC, atomic_write, legible, map_file, refuse_other_kinds

if TYPE_CHECKING:
    import h5py

_MAX_DEPTH = 64  # of '/' in a layer's name
_INDICES = frozenset(map(str, range(1 << 10)))  # the parameters of a layer
# Compressed or repeated values may take more memory than the file has bytes, but not without end.
_MAX_EXPANSION = 100
# What h5py lets through from a damaged file.
_DAMAGE = (OSError, RuntimeError, ValueError, KeyError, TypeError, OverflowError, MemoryError)


def read(path: str | os.PathLike[str]) -> list[StoredLayer]:
    """Every layer of a .caffemodel.h5, in the file's order; the types are '', for the file has none.

    Arrays that lie in one piece, as Caffe writes them, are views into the mapped file. CaffemodelError for
    what is not such a file, for links to other files, and for datasets that Caffe's blobs could not hold.
    """
    import h5py

    data = map_file(path, "an HDF5 file")
    if data[: len(HDF5_MAGIC)] != HDF5_MAGIC:
        refuse_other_kinds(path, data, "an HDF5 file")
        raise CaffemodelError(f"{path}: is not an HDF5 file")
    try:
        with h5py.File(path, "r") as file:
            return list(_Reader(path, data).layers(file))
    except _DAMAGE as error:
        raise CaffemodelError(
            f"{path}: cannot be read as HDF5: {error}", "download or copy it again"
        ) from error


class _Reader:
    def __init__(self, path: str | os.PathLike[str], data: mmap) -> None:
        self.path, self.data = path, data
        self._seen: set[int] = set()  # addresses of groups: links may go in circles
        self._bytes_left = _MAX_EXPANSION * len(data)

    def layers(self, file: h5py.File) -> Iterator[StoredLayer]:
        import h5py

        if "data" not in file or not isinstance(root := self._open(file, "data", "/data"), h5py.Group):
            raise CaffemodelError(
                f"{self.path}: has no group 'data' of layers: not the weights of a Caffe net"
            )
        yield from self._group(root, "")

    def _group(self, group: h5py.Group, layer: str) -> Iterator[StoredLayer]:
        """The layer that a group is, if it is one, and those in the groups within."""
        import h5py

        if layer.count("/") > _MAX_DEPTH or (address := h5py.h5o.get_info(group.id).addr) in self._seen:
            raise CaffemodelError(f"{self.path}: /data/{layer}: groups that are nested without end")
        self._seen.add(address)
        params: dict[int, StoredBlob] = {}
        groups = []
        for key in group:
            where = f"/data/{layer}/{key}" if layer else f"/data/{key}"
            member = self._open(group, key, where)
            if isinstance(member, h5py.Group):
                groups.append((member, where.removeprefix("/data/")))
            elif layer and isinstance(member, h5py.Dataset) and key in _INDICES:
                params[int(key)] = StoredBlob(self._array(member, where), legacy=False)
            else:
                raise CaffemodelError(
                    f"{self.path}: {where}: is neither a layer nor the number of a parameter"
                )
        if params or (layer and not groups):
            yield StoredLayer(
                legible(layer.encode("utf-8", "surrogateescape")),
                "",
                [params.get(i) for i in range(max(params, default=-1) + 1)],
            )
        for inner, name in groups:
            yield from self._group(inner, name)

    def _open(self, group: h5py.Group, key: str, where: str) -> Any:
        """A member of a group; a link could lead out of the file, and Caffe writes none."""
        import h5py

        if not isinstance(group.get(key, getlink=True), h5py.HardLink):
            raise CaffemodelError(f"{self.path}: {where}: is a link, perhaps out of the file: not followed")
        return group[key]

    def _array(self, dataset: h5py.Dataset, where: str) -> np.ndarray:
        dtype, shape = dataset.dtype, dataset.shape
        if shape is None or dtype.kind not in "fiu" or dtype.itemsize > 8:
            raise CaffemodelError(f"{self.path}: {where}: holds no numbers ({dtype})")
        if dataset.external or dataset.is_virtual:
            raise CaffemodelError(f"{self.path}: {where}: its values lie in other files: not followed")
        if problem := shape_problem(shape, math.prod(shape)):
            raise CaffemodelError(f"{self.path}: {where}: {problem}")
        floats = dtype.newbyteorder("=") if dtype.kind == "f" else np.dtype(np.float32)
        offset = dataset.id.get_offset()
        if offset is not None and dtype == floats:
            return np.ndarray(shape, dtype, self.data, offset)
        return self._read(dataset, where).astype(floats, copy=False)

    def _read(self, dataset: h5py.Dataset, where: str) -> np.ndarray:
        self._bytes_left -= dataset.size * max(dataset.dtype.itemsize, 4)
        chunk = math.prod(dataset.chunks or ()) * dataset.dtype.itemsize
        if min(self._bytes_left, _MAX_EXPANSION * len(self.data) - chunk) < 0:
            problem = f"claims {dataset.size:,} values in a file of {len(self.data):,} bytes"
            raise CaffemodelError(f"{self.path}: {where}: {problem}")
        return np.asarray(dataset[()])


def write(
    path: str | os.PathLike[str], layers: Iterable[tuple[str, str, Sequence[np.ndarray | None]]]
) -> None:
    """Write a .caffemodel.h5 of (name, type, arrays), as float32; None leaves a shared parameter out.

    The types are not stored, the format has no place for them. CaffemodelError for names that HDF5 cannot
    hold.
    """
    import h5py

    with atomic_write(path) as temporary, h5py.File(temporary, "w") as file:
        root, seen = file.create_group("data"), set[str]()
        for name, _, arrays in layers:
            if name in seen or "\0" in name or not {"", ".", ".."}.isdisjoint(name.split("/")):
                raise CaffemodelError(
                    f"{path}: the layer name {name!r} stands twice, or cannot stand in HDF5"
                )
            seen.add(name)
            try:
                _write_layer(root.require_group(name), arrays)
            except (TypeError, ValueError) as error:  # its name is a dataset's as well
                raise CaffemodelError(f"{path}: layer {name!r} cannot be stored in HDF5: {error}") from error


def _write_layer(group: h5py.Group, arrays: Sequence[np.ndarray | None]) -> None:
    for i, array in enumerate(arrays):
        if array is not None:
            group.create_dataset(str(i), data=array, dtype="<f4")
