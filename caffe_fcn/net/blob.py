"""Blob: an N-d float32 array with a gradient beside it (blob.hpp). Memory is taken when it is first read."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from caffe_fcn.errors import CaffeError


def _zeros(shape: tuple[int, ...]) -> np.ndarray:
    return np.zeros(shape, np.float32)


class Blob:
    """What pycaffe calls a Blob: `data`, `diff`, `shape`, `reshape`.

    `data` is a view that stays valid from one forward pass to the next, as long as the shape does; writes
    go through to the net. A forward pass may hand its result over without a copy only while nobody holds
    such a view (`store`).
    """

    __slots__ = ("_data", "_diff", "_fill", "_pinned", "_shape")

    def __init__(
        self, shape: tuple[int, ...] = (), fill: Callable[[tuple[int, ...]], np.ndarray] = _zeros
    ) -> None:
        self._shape = tuple(int(n) for n in shape)
        self._fill = fill  # what the memory holds when it is first read
        self._data: np.ndarray | None = None
        self._diff: np.ndarray | None = None
        self._pinned = False  # whether somebody else holds the memory: `data` was handed out, or it is shared

    @property
    def shape(self) -> tuple[int, ...]:
        return self._shape

    @property
    def data(self) -> np.ndarray:
        """The values; a view, writes go through."""
        self._pinned = True
        return self.peek()

    @property
    def filled(self) -> bool:
        """Whether the memory was taken yet."""
        return self._data is not None

    @property
    def diff(self) -> np.ndarray:
        """The gradient; a view, writes go through."""
        if self._diff is None:
            self._diff = np.zeros(self._shape, np.float32)
        return self._diff

    def peek(self) -> np.ndarray:
        """The values, for the net's own reading."""
        if self._data is None:
            self._data = self._fill(self._shape)
        return self._data

    def store(self, array: np.ndarray) -> None:
        """Take over a forward pass's result: the array itself, unless somebody holds the memory."""
        if self._pinned and self._data is not None and self._data.shape == array.shape:
            if self._data is not array:
                np.copyto(self._data, array)
            return
        self._data, self._shape, self._pinned = array, array.shape, False

    def share(self, array: np.ndarray) -> None:
        """Use `array` as the memory from now on (Blob::ShareData)."""
        self._data, self._shape, self._pinned = array, array.shape, True

    def reshape(self, *shape: int) -> None:
        """Change the shape; values are kept in memory order as far as they fit (Blob::Reshape)."""
        new = tuple(
            int(n) for n in (shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape)
        )
        if any(n < 0 for n in new):
            raise CaffeError(f"a blob cannot have the shape {new}")
        if new == self._shape:
            return
        old, self._shape, self._diff = self._data, new, None
        if old is not None:
            count = int(np.prod(new, dtype=np.int64))
            self._data = np.resize(old, new) if count > old.size else old.reshape(-1)[:count].reshape(new)
            if count > old.size:
                self._data.reshape(-1)[old.size :] = 0

    # --- the names of the four-axis days (blob.hpp: LegacyShape)

    def _legacy(self, axis: int) -> int:
        if len(self._shape) > 4:
            raise CaffeError(
                f"num, channels, height and width are for at most 4 axes; this blob is {self._shape}"
            )
        return self._shape[axis] if axis < len(self._shape) else 1

    @property
    def num(self) -> int:
        return self._legacy(0)

    @property
    def channels(self) -> int:
        return self._legacy(1)

    @property
    def height(self) -> int:
        return self._legacy(2)

    @property
    def width(self) -> int:
        return self._legacy(3)

    @property
    def count(self) -> int:
        return int(np.prod(self._shape, dtype=np.int64))

    def __iter__(self) -> Iterator[int]:
        return iter(self._shape)

    def __repr__(self) -> str:
        return f"<Blob {' '.join(map(str, self._shape))} ({self.count})>"
