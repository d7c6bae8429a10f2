"""Sliding windows over the last axes of an array, any number of them: what each window reads, and where."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from math import prod
from typing import Any

import numpy as np

from caffe_fcn.geometry import Window

Box = tuple[slice, ...]  # a range along each spatial axis, with numbers for start and stop


def tap(window: Window, element: int, windows: slice, size: int) -> tuple[slice, slice]:
    """Which of `windows` have their `element` inside an axis of `size`, and where these elements lie.

    The first slice counts from `windows.start`. Both are empty if there is none.
    """
    shift = element * window.dilation - window.pad
    first = max(windows.start, -(shift // window.stride))
    last = max(first, min(windows.stop, (size - 1 - shift) // window.stride + 1))
    start = max(0, first * window.stride + shift)
    stop = start + (last - first - 1) * window.stride + 1 if last > first else start
    return slice(first - windows.start, last - windows.start), slice(start, stop, window.stride)


def taps(
    windows: Sequence[Window], box: Box, sizes: Sequence[int]
) -> Iterator[tuple[tuple[int, ...], Box, Box]]:
    """(element, which windows of `box` have it inside x, where in x), for each of the kernel's elements."""
    each = [
        [tap(window, k, part, size) for k in range(window.kernel)]
        for window, part, size in zip(windows, box, sizes, strict=True)
    ]
    for element in product(*(range(window.kernel) for window in windows)):
        pairs = [ranges[k] for ranges, k in zip(each, element, strict=True)]
        yield element, tuple(inside for inside, _ in pairs), tuple(where for _, where in pairs)


def boxes(counts: Sequence[int], most: int) -> Iterator[Box]:
    """Cut a grid of `counts` windows into boxes of about `most`, whole rows where these are short enough."""
    steps: list[int] = []
    for n in reversed(counts):
        number = -(-n // max(1, most // prod(steps))) if n else 1
        steps.insert(0, max(1, -(-n // number)))
    ranges = [
        [slice(i, min(i + step, n)) for i in range(0, n, step)] for n, step in zip(counts, steps, strict=True)
    ]
    yield from product(*ranges)


def extent(box: Box) -> tuple[int, ...]:
    """How many windows a box has along each axis."""
    return tuple(part.stop - part.start for part in box)


def last(*index: Any) -> tuple[Any, ...]:
    """The index of an array's last axes."""
    return (..., *index)


def im2col(x: np.ndarray, windows: Sequence[Window], box: Box, columns: np.ndarray) -> np.ndarray:
    """Lay out what the windows of `box` read, 0 in the padding (util/im2col.cpp).

    x: (..., *sizes). columns: (..., *kernel, *extent(box)), is filled and returned.
    """
    n = len(windows)
    for element, inside, where in taps(windows, box, x.shape[x.ndim - n :]):
        part = columns[last(*element, *(slice(None),) * n)]
        for axis, within in enumerate(inside):
            after = (slice(None),) * (n - 1 - axis)
            part[last(slice(0, within.start), *after)] = 0
            part[last(slice(within.stop, None), *after)] = 0
        part[last(*inside)] = x[last(*where)]
    return columns


def col2im(columns: np.ndarray, windows: Sequence[Window], box: Box, x: np.ndarray) -> None:
    """Add what the windows of `box` hold to the elements that they lie on; shapes as in im2col."""
    for element, inside, where in taps(windows, box, x.shape[x.ndim - len(windows) :]):
        x[last(*where)] += columns[last(*element, *inside)]
