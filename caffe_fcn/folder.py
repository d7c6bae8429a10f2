"""Many images through one model: reading, the device and writing at the same time, memory bounded."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from caffe_fcn.errors import CaffeError
from caffe_fcn.formats.images import opened
from caffe_fcn.segment import Labels, read_image

S = TypeVar("S")
T = TypeVar("T")
Size = tuple[int, int]

BYTES = 32  # that a pixel takes on its way: the image, the model's input, labels and overlay
MEMORY = 1 << 30  # bytes on their way; a single image may take more
OPEN = 8  # batches' worth of images that wait for others of their size


@dataclass(frozen=True)
class Work(Generic[T]):
    """What happens to each image."""

    prepare: Callable[[np.ndarray], Any]  # in the readers' threads
    label: Callable[[list[Any]], list[list[Labels]]]  # in the device's: images of one size
    finish: Callable[[Path, np.ndarray, list[Labels]], T]  # in the writers'
    batch: int = 1  # images of one size that the device takes at a time
    lanes: int = 1  # passes at a time: with two a GPU computes one while it copies the other


def stream(
    paths: Sequence[Path], work: Work[T], *, memory: int = MEMORY, threads: int = 0
) -> Iterator[tuple[Path, T | CaffeError]]:
    """What `work.finish` made of each image, or the error that it met, in the order of `paths`.

    Images are never resized: a batch holds images of one size, which may overtake others. Which images share
    a batch follows from their order and sizes alone, not from which thread was faster.

    Args:
        memory: bytes of images on their way at a time.
        threads: for reading, and again for writing; 0: one a core, 2 to 8.
    """
    threads = threads or max(2, min(8, os.cpu_count() or 1))
    with ExitStack() as stack:
        looking, reading, device, writing = (
            stack.enter_context(Pool(n)) for n in (2, threads, work.lanes, threads)
        )
        sizes = (size.result() for size in ahead(looking, _size, paths, 16 * work.batch))
        flying: deque[_Flight[T]] = deque()
        done: dict[int, Future[T]] = {}
        left, load = deque(range(len(paths))), 0
        for members, size in plan(sizes, work.batch):
            cost = BYTES * len(members) * size[0] * size[1]
            while flying and (load + cost > memory or len(flying) > 2 * (work.lanes + threads)):
                load -= _land(flying, done)
            yield from _ready(paths, left, done)
            batch = [paths[i] for i in members]
            reads = [reading.submit(_read, path, work.prepare) for path in batch]
            flying.append(_Flight(cost, members, device.submit(_pass, batch, reads, work, writing)))
            load += cost
        while flying:
            _land(flying, done)
            yield from _ready(paths, left, done)


def plan(sizes: Iterable[Size], batch: int) -> Iterator[tuple[list[int], Size]]:
    """Batches of images of one size, as soon as they are full: (their numbers, their size).

    So that memory stays bounded, the oldest leaves unfilled when many images wait.
    """
    waiting: dict[Size, list[int]] = {}
    for i, size in enumerate(sizes):
        waiting.setdefault(size, []).append(i)
        if len(waiting[size]) == batch:
            yield waiting.pop(size), size
        elif sum(map(len, waiting.values())) >= OPEN * batch:
            oldest = next(iter(waiting))
            yield waiting.pop(oldest), oldest
    for size, members in waiting.items():
        yield members, size


class Pool(ThreadPoolExecutor):
    """Threads that drop what they have not begun when the work is given up."""

    def __exit__(self, *error: object) -> None:
        self.shutdown(wait=True, cancel_futures=True)


def ahead(
    pool: ThreadPoolExecutor, function: Callable[[S], T], items: Iterable[S], limit: int
) -> Iterator[Future[T]]:
    """`map` by a pool's threads, in order, at most `limit` ahead of what is taken; futures that are done."""
    waiting: deque[Future[T]] = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) >= limit:
            wait([waiting[0]])
            yield waiting.popleft()
    while waiting:
        wait([waiting[0]])
        yield waiting.popleft()


def _size(path: Path) -> Size:
    """Height and width as the file's head says; (0, 0) for a file that `read_image` will refuse."""
    try:
        with opened(path) as file:
            return file.height, file.width
    except CaffeError:
        return 0, 0


def _read(path: Path, prepare: Callable[[np.ndarray], Any]) -> tuple[np.ndarray, Any]:
    image = read_image(path)
    return image, prepare(image)


def _pass(
    paths: list[Path], reads: list[Future[tuple[np.ndarray, Any]]], work: Work[T], writing: ThreadPoolExecutor
) -> list[Future[T]]:
    """One batch on the device, handed on to the writers. Errors stay with the images that they concern."""
    found: list[Future[T]] = [Future() for _ in paths]
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, read in enumerate(reads):
        error = read.exception()
        if error is not None:
            found[i].set_exception(error)
        else:
            groups.setdefault(read.result()[0].shape, []).append(i)
    for members in groups.values():  # one, but for images that their EXIF turns
        try:
            labels = work.label([reads[i].result()[1] for i in members])
        except CaffeError as error:
            for i in members:
                found[i].set_exception(error)
            continue
        for i, each in zip(members, labels, strict=True):
            found[i] = writing.submit(work.finish, paths[i], reads[i].result()[0], each)
    reads.clear()
    return found


@dataclass(frozen=True)
class _Flight(Generic[T]):
    """A batch on its way."""

    cost: int  # bytes
    members: list[int]
    results: Future[list[Future[T]]]


def _land(flying: deque[_Flight[T]], done: dict[int, Future[T]]) -> int:
    """Wait for the oldest batch, to the last file written; the bytes that it took."""
    flight = flying.popleft()
    for i, result in zip(flight.members, flight.results.result(), strict=True):
        result.exception()
        done[i] = result
    return flight.cost


def _ready(
    paths: Sequence[Path], left: deque[int], done: dict[int, Future[T]]
) -> Iterator[tuple[Path, T | CaffeError]]:
    """The outcomes whose turn it is."""
    while left and left[0] in done:
        i = left.popleft()
        error = done[i].exception()
        yield paths[i], error if isinstance(error, CaffeError) else done[i].result()
        del done[i]
