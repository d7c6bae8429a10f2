"""Blob: an N-d float32 array with a gradient beside it (blob.hpp). Memory is taken when it is first read."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable

import numpy as np

from caffe_fcn.errors import CaffeError

Shape = tuple[int, ...]
LARGEST = 2**31 - 1  # elements; Caffe counts them in an int (blob.cpp)


def countable(shape: Iterable[int]) -> bool:
    """Whether a blob can have this shape; an axis of 0 does not excuse the others, for NumPy neither."""
    return math.prod(max(n, 1) for n in shape) <= LARGEST


def _zeros(shape: Shape) -> np.ndarray:
    return np.zeros(shape, np.float32)


class Blob:
    """What pycaffe calls a Blob: `data`, `diff`, `shape`, `reshape`.

    `data` is a view: writes go through to the net, and it shows what later passes compute, as long as the
    shape does not grow. So memory that somebody views, or another blob shares, is written into; memory that
    nobody else holds is replaced by what a pass hands over, without a copy.
    """

    __slots__ = ("_diff", "_fill", "_flat", "_later", "_shape", "touched")

    def __init__(self, shape: Shape = (), fill: Callable[[Shape], np.ndarray] = _zeros) -> None:
        self._shape = tuple(int(n) for n in shape)
        self._fill = fill  # what the memory holds when it is first read
        self._flat: np.ndarray | None = None  # one axis; longer than the blob after it shrank
        self._diff: np.ndarray | None = None
        self._later: Callable[[], None] | None = None  # stores the values, for they are not here yet
        self.touched = False  # whether `data` was handed out, or other values put here, since this was set

    @property
    def shape(self) -> Shape:
        return self._shape

    @property
    def count(self) -> int:
        return math.prod(self._shape)

    @property
    def data(self) -> np.ndarray:
        """The values; a view, writes go through."""
        self.touched = True
        return self.peek()

    @property
    def diff(self) -> np.ndarray:
        """The gradient; a view, writes go through."""
        if self._diff is None:
            self._diff = np.zeros(self.count, np.float32)
        return self._diff[: self.count].reshape(self._shape)

    def clear_diff(self) -> None:
        """Set the gradient to zero."""
        if self._diff is not None:
            self._diff[...] = 0

    @property
    def filled(self) -> bool:
        """Whether the memory was taken yet."""
        return self._flat is not None

    @property
    def held(self) -> bool:
        """Whether somebody views the memory, or another blob shares it."""
        return self._flat is not None and _references(self._flat) > _ALONE

    def peek(self) -> np.ndarray:
        """The values, for the net's own reading."""
        if self._later is not None:
            self._later()
        if self._flat is None:
            try:
                self._flat = self._fill(self._shape).reshape(-1)
            except MemoryError as error:
                raise CaffeError(f"there is not enough memory for a blob of {self._shape}") from error
        return self._flat[: self.count].reshape(self._shape)

    def start(self, fill: Callable[[Shape], np.ndarray]) -> None:
        """What the memory is to hold when it is first read."""
        self._fill = fill

    def store(self, array: np.ndarray) -> None:
        """Take over a result: the array itself (float32, C order), unless somebody holds the memory."""
        self._later = None
        self._shape = array.shape
        if self._flat is not None and self._flat.size >= array.size and self.held:
            own = self._flat[: array.size].reshape(array.shape)
            if own.__array_interface__["data"] != array.__array_interface__["data"]:
                np.copyto(own, array)
        else:
            self._flat = array.reshape(-1)

    def share(self, array: np.ndarray) -> None:
        """Use `array` as the memory from now on (Blob::ShareData)."""
        self._flat, self._shape, self._later = array.reshape(-1), array.shape, None
        self.touched = True

    def defer(self, shape: Shape, later: Callable[[], None]) -> None:
        """Values of this shape are there, elsewhere: `later` stores them, when they are first read."""
        if not self.held:
            self._flat = None
        self.reshape(*shape)
        self._later, self.touched = later, False

    @property
    def deferred(self) -> bool:
        """Whether the values are still elsewhere."""
        return self._later is not None

    def reshape(self, *shape: int) -> None:
        """Change the shape; the memory stays if it is large enough, else it is zero (Blob::Reshape)."""
        new = tuple(
            int(n) for n in (shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape)
        )
        if any(n < 0 for n in new):
            raise CaffeError(f"a blob cannot have the shape {new}")
        if not countable(new):
            raise CaffeError(f"a blob of the shape {new} would have more than {LARGEST} elements")
        if new == self._shape:
            return
        self._shape, self._later = new, None
        if self._flat is not None and self.count > self._flat.size:
            self._flat = _zeros(new).reshape(-1)
        if self._diff is not None and self.count > self._diff.size:
            self._diff = None

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

    def __repr__(self) -> str:
        return f"<Blob {' '.join(map(str, self._shape))} ({self.count})>"


class ReshapedBlob(Blob):
    """A parameter that is shared under another shape of as many elements."""

    __slots__ = ("_owner",)

    def __init__(self, owner: Blob, shape: Shape) -> None:
        super().__init__(shape)
        self._owner = owner

    @property
    def held(self) -> bool:
        return self._owner.held

    def peek(self) -> np.ndarray:
        return self._owner.peek().reshape(self.shape)

    def store(self, array: np.ndarray) -> None:
        self._owner.store(array.reshape(self._owner.shape))

    def share(self, array: np.ndarray) -> None:
        self._owner.share(array.reshape(self._owner.shape))


class BlobVec(list[Blob]):
    """The parameters of a layer, as pycaffe has them: a list that a layer written in Python adds to."""

    def add_blob(self, *shape: int) -> None:
        """Append a blob of zeros."""
        self.append(Blob(shape))


def _references(flat: np.ndarray) -> int:
    """How often the array is referred to that owns the memory; NumPy makes it the `base` of every view."""
    owner = flat
    while isinstance(owner.base, np.ndarray):
        owner = owner.base
    return sys.getrefcount(owner)


_ALONE = _references(np.zeros(1, np.float32).reshape(-1))
