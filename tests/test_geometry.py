"""The arithmetic of one axis, against Caffe's rules written down once more, as loops over small sizes."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caffe_fcn.geometry import AxisMap, PoolAxis, Window, ceil_div
from caffe_fcn.symbols import Extent, SizeNeeded, hint

# every kernel, stride and pad that Caffe takes (pad < kernel, and the kernel fits), over small sizes
POOLINGS = [
    (size, kernel, stride, pad, ceil)
    for size, kernel, stride, pad, ceil in product(
        range(1, 14), range(1, 6), range(1, 7), range(4), (True, False)
    )
    if pad < kernel <= size + 2 * pad
]
windows = st.builds(Window, st.integers(1, 9), st.integers(1, 9), st.integers(0, 9), st.integers(1, 4))


def caffe_pooled(size: int, kernel: int, stride: int, pad: int, ceil: bool) -> int:
    """PoolingLayer::Reshape: divide, round; if padded, drop a last window that starts in the end padding."""
    rounded = math.ceil if ceil else math.floor
    pooled = int(rounded(float(size + 2 * pad - kernel) / stride)) + 1
    if pad and (pooled - 1) * stride >= size + pad:
        pooled -= 1
    return pooled


def test_pooling_counts_windows_as_caffe_does() -> None:
    wrong = {case for case in POOLINGS if PoolAxis(*case).out != caffe_pooled(*case)}
    assert not wrong
    assert len(POOLINGS) > 1000


def test_pooling_counts_symbolic_windows_alike() -> None:
    for size, kernel, stride, pad, ceil in POOLINGS:
        axis = PoolAxis(Extent.symbol("H", 100), kernel, stride, pad, ceil)
        assert axis.out.at({"H": size}) == caffe_pooled(size, kernel, stride, pad, ceil)  # type: ignore[union-attr]


def test_ave_divides_by_the_window_inside_the_padded_input() -> None:
    """PoolingLayer::Forward_cpu, AVE: pool_size = (hend - hstart), hend cut at height + pad."""
    for case in POOLINGS:
        size, kernel, stride, pad, _ = case
        for i, count in enumerate(PoolAxis(*case).counts):
            start = i * stride - pad
            assert count == min(start + kernel, size + pad) - start, (case, i)


def test_empty_windows_are_those_beyond_the_input() -> None:
    for case in POOLINGS:
        size, kernel, stride, pad, _ = case
        starts = [i * stride - pad for i in range(PoolAxis(*case).out)]
        assert PoolAxis(*case).empty == sum(max(s, 0) >= min(s + kernel, size) for s in starts if s > 0), case
        assert all(s + kernel > 0 for s in starts)


def test_whole_means_that_no_window_with_input_in_it_is_cut() -> None:
    for case in POOLINGS:
        axis = PoolAxis(*case)
        if axis.whole:
            assert (axis.counts[: int(axis.out) - axis.empty] == axis.kernel).all(), axis


def test_rounding_down_with_end_padding_that_fits_gives_all_windows_but_empty_ones() -> None:
    for case in POOLINGS:
        axis = PoolAxis(*case)
        assert axis.fit < axis.kernel
        floored = Window(axis.kernel, axis.stride).count(axis.size + axis.pad + axis.fit)
        assert floored == axis.out - axis.empty, axis


def test_whether_a_window_is_empty_may_need_the_size() -> None:
    assert PoolAxis(Extent.symbol("H", 9), 2, 2, 0, True).empty == 0
    with pytest.raises(SizeNeeded):
        _ = PoolAxis(Extent.symbol("H", 9), 1, 3, 0, True).empty


@given(windows, st.integers(0, 60))
def test_convolution_counts_the_places_where_a_window_fits(window: Window, size: int) -> None:
    padded = size + 2 * window.pad
    taps = [k * window.dilation for k in range(window.kernel)]
    places = [start for start in range(0, padded, window.stride) if start + taps[-1] < padded]
    if padded >= window.reach:
        assert window.count(size) == len(places)


@given(windows, st.integers(1, 60))
def test_deconvolution_undoes_convolution(window: Window, count: int) -> None:
    """So many windows cover a span, and into that span fit so many windows (where any is left)."""
    span = window.span(count)
    if span > 0:
        assert window.count(span) == count
        assert window.count(span + window.stride - 1) == count
        assert window.count(span + window.stride) == count + 1


@given(windows, st.integers(1, 200), st.integers(1, 200))
def test_windows_are_counted_alike_on_symbols(window: Window, built_at: int, size: int) -> None:
    h = Extent.symbol("H", built_at)
    assert hint(window.count(h)) == window.count(built_at)
    assert window.count(h).at({"H": size}) == window.count(size)  # type: ignore[union-attr]
    assert window.span(h).at({"H": size}) == window.span(size)  # type: ignore[union-attr]


@given(st.integers(-99, 99), st.integers(1, 20))
def test_ceil_div(a: int, b: int) -> None:
    assert ceil_div(a, b) == math.ceil(Fraction(a, b))


maps = st.builds(
    AxisMap,
    st.sampled_from([Fraction(1), Fraction(1, 2), Fraction(1, 3), Fraction(8)]),
    st.fractions(-50, 50),
)


@given(maps, maps, maps, st.fractions(-50, 50))
def test_coordinate_maps_compose(a: AxisMap, b: AxisMap, c: AxisMap, x: Fraction) -> None:
    def apply(m: AxisMap, at: Fraction) -> Fraction:
        return m.scale * at + m.shift

    assert apply(b.after(a), x) == apply(b, apply(a, x))
    assert c.after(b).after(a) == c.after(b.after(a))
    assert a.inverse().after(a) == AxisMap() == a.after(a.inverse())


@given(windows, st.integers(0, 20))
def test_the_map_of_a_window_leads_from_its_centre_to_its_index(window: Window, index: int) -> None:
    first = index * window.stride - window.pad
    centre = Fraction(first + first + window.reach - 1, 2)
    there = AxisMap.of(window)
    assert there.scale * centre + there.shift == index
