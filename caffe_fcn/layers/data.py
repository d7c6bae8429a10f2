"""Data layers without image files: Data, HDF5Data, MemoryData, DummyData; and HDF5Output, which writes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

from caffe_fcn.fillers import fill, random
from caffe_fcn.formats.images import Mode
from caffe_fcn.layers.base import Array, Layer, Sequence, Shape, fixed, np
from caffe_fcn.layers.transform import _Data, _Transformed


class Data(_Transformed, tops=range(1, 3)):
    """Images from an LMDB database of Datum records, raw or encoded, and their labels (data_layer.cpp).

    Tops: (batch_size, C, H, W), H and W those of the next record or `crop_size`; labels (batch_size). After
    the last record comes the first.
    """

    def setup(self) -> None:
        super().setup()
        p = self.param.data_param
        self.check(p.batch_size > 0, f"batch_size {p.batch_size} must be positive")

    @cached_property
    def records(self) -> Any:
        """The cursor."""
        from caffe_fcn.formats.lmdb import Records

        p = self.param.data_param
        self.check(
            p.backend == p.LMDB,
            f"source '{p.source}': LevelDB databases are not read",
            "convert it to LMDB and say backend: LMDB, or make an Input of it: `caffe-fcn deploy`",
        )
        return self.opened(lambda: Records(p.source))

    def _image(self) -> Array:
        p = self.param.transform_param
        mode: Mode = "color" if p.force_color else "gray" if p.force_gray else "native"
        return self.opened(lambda: self.records.image(mode))

    def reshape(self, bottoms: Sequence[Shape]) -> list[Shape]:
        size = self.param.data_param.batch_size
        return [(size, *self.transformed(self._image().shape)), (size,)][: len(self.param.top)]

    def forward(self, bottoms: Sequence[Array]) -> list[Array]:
        return self.batch(self._items())

    def _items(self) -> Iterator[tuple[str, Array, float]]:
        for _ in range(self.param.data_param.batch_size):
            yield (
                f"the next record of '{self.param.data_param.source}'",
                self._image(),
                self.records.datum().label,
            )
            self.records.advance()


class HDF5Data(_Data, tops=range(1, 1 << 31)):
    """Rows of HDF5 files, the dataset of each top's name (hdf5_data_layer.cpp).

    Tops: (batch_size, ...), the rest as in the first file. `source` lists the files; after the last row of
    one comes the next, after the last file the first. `shuffle` shuffles the files, and the rows of each.
    """

    def setup(self) -> None:
        p = self.param.hdf5_data_param
        self.check(
            not self.param.HasField("transform_param"), "transform_param has no effect here", "remove it"
        )
        self.check(p.batch_size > 0, f"batch_size {p.batch_size} must be positive")
        self._row = 0
        self._file = 0

    @cached_property
    def files(self) -> list[str]:
        """Their names, in the order in which they are read."""
        p = self.param.hdf5_data_param
        names = [name for line in self.opened(lambda: self.lines(p.source)) for name in line.split()]
        self.check(bool(names), f"source '{p.source}' lists no files")
        return self._mixed(names)

    def _mixed(self, items: list[Any]) -> list[Any]:
        return (
            [items[i] for i in random().permutation(len(items))]
            if self.param.hdf5_data_param.shuffle
            else items
        )

    @cached_property
    def rows(self) -> tuple[list[Array], list[int]]:
        """The datasets of the file that is being read, and the order of its rows."""
        from caffe_fcn.formats.hdf5_data import read_rows

        arrays = self.opened(lambda: read_rows(self.files[self._file], list(self.param.top)))
        return arrays, self._mixed(list(range(len(arrays[0]))))

    def reshape(self, bottoms: Sequence[Shape]) -> list[Shape]:
        return [(self.param.hdf5_data_param.batch_size, *array.shape[1:]) for array in self.rows[0]]

    def forward(self, bottoms: Sequence[Array]) -> list[Array]:
        batches: list[list[Array]] = [[] for _ in self.param.top]
        for _ in range(self.param.hdf5_data_param.batch_size):
            arrays, order = self.rows
            for batch, array in zip(batches, arrays, strict=True):
                batch.append(array[order[self._row]])
                now, first = batch[-1].shape, batch[0].shape
                self.check(
                    now == first, f"rows of '{self.files[self._file]}' are {now}, of the batch {first}"
                )
            self._advance()
        return [np.stack(batch) for batch in batches]

    def _advance(self) -> None:
        arrays, _ = self.rows
        self._row += 1
        if self._row < len(arrays[0]):
            return
        self._row = 0
        if len(self.files) == 1:
            self.rows = arrays, self._mixed(list(range(len(arrays[0]))))
            return
        self._file += 1
        if self._file == len(self.files):
            self._file, self.files = 0, self._mixed(self.files)
        del self.rows


class MemoryData(_Data, tops=2):
    """Arrays that a program hands over by `reset` (memory_data_layer.cpp).

    Tops: (batch_size, channels, height, width); labels (batch_size), which the forward pass makes
    (batch_size, 1, 1, 1).
    """

    def setup(self) -> None:
        p = self.param.memory_data_param
        self._size = (p.batch_size, p.channels, p.height, p.width)
        self.check(
            min(self._size) > 0, f"batch_size, channels, height and width are {self._size}, must be positive"
        )
        self._arrays: tuple[Array, Array] | None = None
        self._row = 0

    def reset(self, data: Array, labels: Array) -> None:
        """Read from these arrays: data (n, channels, height, width), n labels; n a multiple of batch_size."""
        data, labels = np.asarray(data, np.float32), np.asarray(labels, np.float32)
        fits = data.ndim == 4 and data.shape[1:] == self._size[1:]
        self.check(fits, f"the data is {data.shape}, (n, {', '.join(map(str, self._size[1:]))}) is needed")
        self.check(labels.size == len(data), f"{len(data)} items and {labels.size} labels")
        whole = len(data) > 0 and len(data) % self._size[0] == 0
        self.check(whole, f"{len(data)} items are not a multiple of batch_size {self._size[0]}")
        self._arrays, self._row = (data, labels.reshape(-1, 1, 1, 1)), 0

    def reshape(self, bottoms: Sequence[Shape]) -> list[Shape]:
        return [self._size, self._size[:1]]

    def forward(self, bottoms: Sequence[Array]) -> list[Array]:
        if self._arrays is None:
            self.check(
                False, "has no data yet", "hand it over: net.set_input_arrays(data, labels), or layer.reset"
            )
            return []
        rows = slice(self._row, self._row + self._size[0])
        self._row = rows.stop % len(self._arrays[0])
        return [array[rows].copy() for array in self._arrays]


class DummyData(_Data, tops=range(1, 1 << 31)):
    """What fillers draw, anew for each batch (dummy_data_layer.cpp).

    Tops: of the shapes in `shape`, or in the legacy `num`, `channels`, `height`, `width`: one for all, or one
    each. A constant one is filled once, so that it keeps what a program writes into it.
    """

    def setup(self) -> None:
        p, tops = self.param.dummy_data_param, len(self.param.top)
        legacy = (p.num, p.channels, p.height, p.width)
        fillers = len(p.data_filler)
        self.check(
            fillers in (0, 1, tops), f"{fillers} data_filler for {tops} tops", "give one for all, or one each"
        )
        self.check(
            not (p.shape and any(legacy)), "both shape and num, channels, height, width are given", "keep one"
        )
        for name, values in (
            zip(("num", "channels", "height", "width"), legacy, strict=True) if any(legacy) else ()
        ):
            self.check(
                len(values) in (1, tops), f"{len(values)} {name} for {tops} tops", "give one, or one each"
            )
        told = f"{len(p.shape)} shapes for {tops} tops"
        self.check(any(legacy) or len(p.shape) in (1, tops), told, "give one for all, or one each")

    def reshape(self, bottoms: Sequence[Shape]) -> list[Shape]:
        p, tops = self.param.dummy_data_param, range(len(self.param.top))
        if p.shape:
            return [tuple(_at(p.shape, i).dim) for i in tops]
        return [tuple(_at(values, i) for values in (p.num, p.channels, p.height, p.width)) for i in tops]

    def initial(self) -> Sequence[Any]:
        fillers = self.param.dummy_data_param.data_filler
        return [_at(fillers, i) for i in range(len(self.param.top))] if fillers else []

    def forward(self, bottoms: Sequence[Array]) -> list[Any]:
        made: list[Any] = [None] * len(self.param.top)
        for i, (filler, shape) in enumerate(zip(self.initial(), self.reshape([]), strict=False)):
            if filler.type != "constant":
                made[i] = fill(filler, tuple(fixed(n) for n in shape))
        return made


class HDF5Output(Layer, bottoms=2, tops=0):
    """Write a batch to an HDF5 file, as datasets `data` and `label` of four axes (hdf5_output_layer.cpp).

    Bottoms: (N, ...), (N, ...). The file is written by the forward pass, and anew by each; Caffe stops at the
    second.
    """

    role = "metric"
    no_onnx = "writes a file; leave it out"

    def reshape(self, bottoms: Sequence[Shape]) -> list[Shape]:
        data, label = bottoms
        self.check(max(len(data), len(label)) <= 4, f"is given {data} and {label}: at most 4 axes each")
        self.check(data[:1] == label[:1], f"is given {data} and {label}: their first extents differ")
        return []

    def forward(self, bottoms: Sequence[Array]) -> list[Array]:
        from caffe_fcn.formats.hdf5_data import write_blobs

        four = [array.reshape(array.shape + (1,) * (4 - array.ndim)) for array in bottoms]
        write_blobs(self.param.hdf5_output_param.file_name, dict(zip(("data", "label"), four, strict=True)))
        return []


def _at(values: Sequence[Any], i: int) -> Any:
    """The one that serves for all, or the one of top i."""
    return values[i if len(values) > 1 else 0]
