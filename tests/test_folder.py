"""Many images at a time: their order, their batches, their errors, and how many are on their way."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from caffe_fcn.errors import CaffeError
from caffe_fcn.folder import BYTES, OPEN, Work, plan, stream
from caffe_fcn.segment import Labels


@pytest.fixture
def images(tmp_path):
    """Twenty images of three sizes; the value of image i is i."""
    paths = []
    for i in range(20):
        path = tmp_path / f"{i:02}.png"
        Image.fromarray(np.full([(4, 6, 3), (6, 4, 3), (5, 5, 3)][i * i % 3], i, np.uint8)).save(path)
        paths.append(path)
    return paths


def found(image) -> list[Labels]:
    return [Labels("score", image[:, :, 0])]


def value(path, image, labels) -> int:
    """The image's number, if everything that belongs to it came together."""
    assert int(path.stem) == image[0, 0, 0] == labels[0].labels[0, 0]
    return int(path.stem)


@pytest.mark.parametrize("batch", [1, 3, 50])
@pytest.mark.parametrize("lanes", [1, 2])
def test_order_and_batches(images, batch, lanes):
    seen = []

    def label(items):
        seen.append([item.shape for item in items])
        time.sleep(0.001 * (len(seen) % 3))
        return [found(item) for item in items]

    outcomes = list(stream(images, Work(np.copy, label, value, batch, lanes)))
    assert outcomes == [(path, i) for i, path in enumerate(images)]
    assert all(len(set(shapes)) == 1 and len(shapes) <= batch for shapes in seen)
    assert sum(map(len, seen)) == 20
    if batch == 3:
        assert sorted(map(len, seen)) == [1, 1, 3, 3, 3, 3, 3, 3]  # 7 and 13 images of two sizes


def test_errors_stay_with_their_images(images):
    images[3].write_bytes(b"broken")
    images[4].unlink()

    def prepare(image):
        if image[0, 0, 0] == 5:
            raise CaffeError("five is not prepared")
        return image

    def label(items):
        if any(item[0, 0, 0] == 6 for item in items):
            raise CaffeError("six is not labelled")
        return [found(item) for item in items]

    def finish(path, image, labels):
        if path.stem == "07":
            raise CaffeError("seven is not written")
        return value(path, image, labels)

    outcomes = [outcome for _, outcome in stream(images, Work(prepare, label, finish))]
    assert [i for i, outcome in enumerate(outcomes) if outcome == i] == [0, 1, 2, *range(8, 20)]
    errors = [str(outcome) for outcome in outcomes[3:8]]
    assert "03.png: cannot be read" in errors[0]
    assert "04.png: cannot be read" in errors[1]
    assert errors[2:] == ["five is not prepared", "six is not labelled", "seven is not written"]


def test_what_is_no_user_error_is_raised(images):
    def label(items):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(stream(images, Work(np.copy, label, value)))


def test_images_that_exif_turns_leave_their_batch(tmp_path):
    """Their size in the file's head is not the one they are shown in."""
    exif = Image.Exif()
    exif[0x0112] = 6
    paths = [tmp_path / f"{i}.png" for i in range(4)]
    for i, path in enumerate(paths):
        Image.fromarray(np.full((4, 6, 3), i, np.uint8)).save(path, **({"exif": exif} if i % 2 else {}))
    seen = []

    def label(items):
        seen.append([item.shape[:2] for item in items])
        return [found(item) for item in items]

    assert [i for _, i in stream(paths, Work(np.copy, label, value, 4))] == [0, 1, 2, 3]
    assert seen == [[(4, 6)] * 2, [(6, 4)] * 2]


def test_few_images_are_on_their_way(images):
    """Of memory for two images no more than two are read before their results are written."""
    lock, alive, most = threading.Lock(), [0], [0]

    def prepare(image):
        with lock:
            alive[0] += 1
            most[0] = max(most[0], alive[0])
        return image

    def finish(path, image, labels):
        time.sleep(0.001)
        with lock:
            alive[0] -= 1
        return value(path, image, labels)

    work = Work(prepare, lambda items: [found(item) for item in items], finish)
    assert len(list(stream(images, work, memory=2 * 25 * BYTES))) == 20
    assert most[0] <= 2
    assert len(list(stream(images, work, memory=0))) == 20  # one at a time always passes


def test_giving_up_early(images):
    threads = threading.active_count()
    outcomes = stream(images, Work(np.copy, lambda items: [found(i) for i in items], value))
    assert next(outcomes)[1] == 0
    outcomes.close()
    assert threading.active_count() == threads


def test_nothing():
    assert list(stream([], Work(np.copy, list, value))) == []


@given(st.lists(st.integers(1, 4), max_size=60), st.integers(1, 5))
def test_plan(widths, batch):
    """Every image once, in batches of one size, in order within a size, and none waits for ever."""
    sizes = [(9, width) for width in widths]
    taken = 0

    def read():
        nonlocal taken
        for size in sizes:
            taken += 1
            yield size

    planned: list[int] = []
    for members, size in plan(read(), batch):
        assert len(members) <= batch
        assert {sizes[i] for i in members} == {size}
        assert [i for i in planned if sizes[i] == size] == [i for i in range(members[0]) if sizes[i] == size]
        planned += members
        assert taken - len(planned) < OPEN * batch
    assert sorted(planned) == list(range(len(sizes)))
