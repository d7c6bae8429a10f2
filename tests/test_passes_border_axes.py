"""What lies around the image's part of an axis: the bounds hold for every size, found by marking elements."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caffe_fcn.export.passes.border_axes import Axis, Slide, canvas, counts, trims
from caffe_fcn.symbols import Extent

PADS = st.integers(8, 20)


@st.composite
def slides(draw, most: int = 6) -> list[Slide]:
    found = [Slide(draw(st.integers(2, 7)), 1, 0, 0)]  # the padded Convolution, its padding part of level 0
    for _ in range(draw(st.integers(0, most - 1))):
        reach = draw(st.integers(1, 5))
        stride = draw(st.integers(1, reach))
        begin = draw(st.integers(0, reach - 1))
        found.append(Slide(reach, stride, begin, draw(st.integers(0, reach - 1))))
    return found


def line(windows: list[Slide], pad: int, size) -> list[Axis]:
    levels = [Axis(size + 2 * pad, 1 + 2 * pad, pad, pad)]
    for slide in windows:
        levels.append(levels[-1].through(slide))
    return levels


def mark(slide: Slide, reached: list[bool], padded: list[bool]) -> tuple[list[bool], list[bool]]:
    """Which windows read what the image reaches; which read padding, or what padding has changed."""
    n, image, inner = len(reached), [], []
    for i in range(int(slide.fit(n))):
        start = i * slide.stride - slide.begin
        window = range(start, start + slide.reach)
        image.append(any(reached[j] for j in window if 0 <= j < n))
        inner.append(any(not 0 <= j < n or padded[j] for j in window))
    return image, inner


@given(slides(), PADS, st.integers(1, 60))
def test_bounds(windows, pad, size):
    """The image stays between `before` and `behind`, the inner padding in `near` and `far`."""
    axes = line(windows, pad, size)
    reached, padded = [False] * pad + [True] * size + [False] * pad, [False] * (size + 2 * pad)
    for slide, axis in zip(windows, axes[1:], strict=True):
        reached, padded = mark(slide, reached, padded)
        if axis.size < 1:
            return
        assert axis.size == len(reached)
        assert not any(reached[: axis.before])
        assert not any(reached[len(reached) - max(axis.behind, 0) :] if axis.behind > 0 else [])
        assert not any(padded[axis.near : len(padded) - axis.far])


@given(slides(), PADS, st.integers(1, 60))
def test_trimmed_windows_make_just_the_image_s_part(windows, pad, size):
    """Without padding, on what `trims` leaves, each level has the size that `trims` says."""
    axes = line(windows, pad, size)
    found = trims(axes)
    if not axes[-1].apart or min(min(trim) for trim in found) < 0:
        return
    n = axes[0].size - sum(found[0])
    for slide, axis, trim in zip(windows, axes[1:], found[1:], strict=True):
        start = slide.stride * trim[0] - slide.begin
        assert start >= 0
        n = (n - slide.reach) // slide.stride + 1
        assert n >= axis.size - sum(trim)
    assert n == axes[-1].size - axes[-1].before - axes[-1].behind > 0


@given(slides(), PADS, st.integers(1, 60))
def test_a_canvas_makes_one_zone(windows, pad, size):
    """Its last window ends as far from the end as the whole map's."""
    axes = line(windows, pad, size)
    if not axes[-1].apart:
        return
    n = int(canvas(axes))
    whole = counts(axes, int(axes[0].size))
    small = counts(axes, n)
    assert small[-1] == axes[-1].zone
    total = 1
    for slide, a, b in zip(windows, whole, small, strict=False):
        assert (a + slide.begin + slide.end - slide.reach) % slide.stride == (
            b + slide.begin + slide.end - slide.reach
        ) % slide.stride
        total *= slide.stride
    assert (axes[0].size - n) % total == 0


def test_the_numbers_of_vgg():
    """With a pad of 100 the image reaches rows 10 to n - 10 of pool3, and 3 to n - 3 of pool4."""
    three, pool = Slide(3, 1, 1, 1), Slide(2, 2, 0, 1)
    blocks = [
        [Slide(3, 1, 0, 0), three, pool],
        [three, three, pool],
        [three] * 3 + [pool],
        [three] * 3 + [pool],
    ]
    windows = [slide for block in blocks for slide in block]
    axes = line(windows, 100, Extent.symbol("H", 500))
    at = {"pool1": 3, "pool2": 6, "pool3": 10, "pool4": 14}
    assert [(axes[i].before, axes[i].behind) for i in at.values()] == [(48, 48), (23, 23), (10, 10), (3, 3)]
    assert [(axes[i].near, axes[i].far) for i in at.values()] == [(1, 1), (2, 2), (3, 3), (3, 4)]
    assert trims(axes[: at["pool3"] + 1])[0] == (100 - 37, 100 - 37 - 7)  # the end's remainder is 0 to 7
    assert str(axes[at["pool3"]].size) == "ceil((H+198)/8)"


@pytest.mark.parametrize("axis", [Axis(9, 9, 5, 5), Axis(9, 9, 2, 2, 5, 5), Axis(9, 9, 5, 0, 0, 5)])
def test_ends_that_meet(axis):
    assert not axis.apart
    assert axis._replace(least=10).apart
