"""Blob: whose memory it is. Caffe's blobs keep theirs (blob.cpp); here it changes where nobody can tell."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from caffe_fcn.blob import Blob, BlobVec, ReshapedBlob
from caffe_fcn.errors import CaffeError


def ramp(*shape: int) -> np.ndarray:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def test_data_is_a_view_that_writes_go_through():
    blob = Blob((2, 3))
    blob.data[...] = ramp(2, 3)
    blob.data[1].flat = [7, 8, 9]
    assert blob.data.tolist() == [[0, 1, 2], [7, 8, 9]]
    assert blob.data.dtype == np.float32


def test_a_result_is_taken_over_where_nobody_looks():
    blob = Blob((2, 3))
    blob.data[...] = 1
    result = ramp(2, 3)
    blob.store(result)
    assert address(blob.data) == address(result)


@pytest.mark.parametrize(
    "look", [lambda d: d, lambda d: d[0], lambda d: d.T[1:], lambda d: d.reshape(-1)[2:]]
)
def test_a_view_shows_what_later_passes_store(look):
    blob = Blob((2, 3))
    view = look(blob.data)
    assert blob.held
    for scale in (1, 10):
        blob.store(scale * ramp(2, 3))
        assert np.array_equal(view, look(scale * ramp(2, 3)))
    del view
    assert not blob.held


def test_a_view_of_memory_that_lies_in_a_larger_array():
    whole = ramp(4, 5)
    blob = Blob()
    blob.share(whole[1:3])
    assert blob.held, "the caller's array"
    del whole
    assert not blob.held
    view = blob.data[0]
    blob.store(np.zeros((2, 5), np.float32))
    assert view.tolist() == [0] * 5


def test_shared_memory_stays_shared():
    one, two = Blob((3,)), Blob((3,))
    two.share(one.peek())
    one.store(ramp(3))
    assert two.data.tolist() == [0, 1, 2]
    two.data[0] = 5
    assert one.data[0] == 5


def test_reshape_keeps_memory_that_is_large_enough():
    blob = Blob((2, 3))
    blob.data[...] = ramp(2, 3)
    blob.reshape(4)
    assert blob.data.tolist() == [0, 1, 2, 3]
    blob.reshape(3, 2)
    assert blob.data.tolist() == [[0, 1], [2, 3], [4, 5]], "what was beyond its end is still there"


def test_reshape_beyond_the_memory_gives_zeros():
    blob = Blob((2,))
    blob.data[...] = 1
    blob.diff[...] = 1
    blob.reshape(2, 2)
    assert not blob.data.any()
    assert not blob.diff.any()
    assert blob.data.shape == blob.diff.shape == (2, 2)


def test_reshape_takes_no_negative_sizes():
    with pytest.raises(CaffeError, match=r"\(2, -1\)"):
        Blob().reshape(2, -1)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=6), st.booleans())
def test_what_was_stored_is_what_is_read(shapes, looked_at):
    blob, views = Blob(), []
    for shape in shapes:
        blob.store(ramp(*shape))
        assert np.array_equal(blob.data, ramp(*shape))
        if looked_at:
            views.append(blob.data)
    assert blob.shape == shapes[-1]


def test_values_from_elsewhere_are_brought_when_they_are_read():
    blob, asked = Blob((2,)), []

    def bring() -> None:
        asked.append(1)
        blob.store(ramp(3))

    blob.defer((3,), bring)
    assert blob.shape == (3,)
    assert blob.deferred
    assert not asked
    assert not blob.touched
    assert blob.data.tolist() == blob.data.tolist() == [0, 1, 2]
    assert asked == [1]
    assert not blob.deferred


def test_values_from_elsewhere_reach_views_that_are_there():
    blob = Blob((3,))
    view = blob.data
    blob.defer((3,), lambda: blob.store(ramp(3)))
    blob.peek()
    assert view.tolist() == [0, 1, 2]


def test_a_store_before_the_read_wins():
    blob = Blob((3,))
    blob.defer((3,), lambda: pytest.fail("was not asked for"))
    blob.store(ramp(3))
    assert blob.data.tolist() == [0, 1, 2]


def test_a_parameter_under_another_shape():
    owner = Blob((2, 3))
    other = ReshapedBlob(owner, (6,))
    owner.data[...] = ramp(2, 3)
    other.data[0] = 9
    assert owner.data[0, 0] == 9
    view = owner.data
    other.store(np.ones(6, np.float32))
    assert view.tolist() == [[1, 1, 1]] * 2


def test_the_names_of_four_axes():
    blob = Blob((2, 3))
    assert (blob.num, blob.channels, blob.height, blob.width, blob.count) == (2, 3, 1, 1, 6)
    with pytest.raises(CaffeError, match="at most 4 axes"):
        Blob((1, 2, 3, 4, 5)).num  # noqa: B018


def test_parameters_of_a_layer_in_python():
    blobs = BlobVec()
    blobs.add_blob(2, 3)
    blobs.add_blob()
    assert [blob.shape for blob in blobs] == [(2, 3), ()]
    assert not blobs[0].data.any()


def test_a_gradient_is_a_view_too():
    blob = Blob((2,))
    view = blob.diff
    view[...] = 3
    assert blob.diff.tolist() == [3, 3]
    blob.clear_diff()
    assert view.tolist() == [0, 0]
