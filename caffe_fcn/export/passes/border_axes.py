"""The arithmetic of one axis behind a large padding: what no image changes, wherever its ends lie.

A chain of nodes works window by window; its level 0 is the padded image. On an axis of n elements the image
reaches those from `before` to n - `behind`. The padding inside the net (a Convolution's pad of 1, say) shows
in the first `near` and the last `far`. Elements that neither reaches are all alike. These four are constants,
whatever n is, and so is what follows from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

from caffe_fcn.symbols import Size, fixed


class Slide(NamedTuple):
    """Windows along one axis, with a padding of its own at each end."""

    reach: int  # elements from the first to the last that a window reads
    stride: int
    begin: int
    end: int

    def fit(self, size: Size) -> Size:
        """How many windows fit."""
        return (size + self.begin + self.end - self.reach) // self.stride + 1


class Axis(NamedTuple):
    """One axis of a level; see the module's text."""

    size: Size
    least: int  # its size for an image of one pixel
    before: int
    behind: int
    near: int = 0
    far: int = 0
    slide: Slide | None = None  # the windows that made it from the level before; none if pixel by pixel

    def through(self, slide: Slide) -> Axis:
        """The axis behind a slide. How far its last window reaches depends on n; the bounds do not."""
        reach, stride, begin, end = slide
        return Axis(
            slide.fit(self.size),
            fixed(slide.fit(self.least)),
            max(0, -((reach - 1 - begin - self.before) // stride)),
            (self.behind + end - reach + 1) // stride,
            -((-self.near - begin) // stride),
            -((-self.far - end) // stride),
            slide,
        )

    @property
    def zone(self) -> int:
        """Elements that show all that the border consists of: near, one of those that are alike, far."""
        return self.near + 1 + self.far

    @property
    def apart(self) -> bool:
        """Whether the two ends keep clear of each other, whatever the image."""
        return max(self.before, self.near) + max(self.behind, self.far) <= self.least


Line = Sequence[Axis]  # one axis through consecutive levels


def trims(line: Line) -> list[tuple[int, int]]:
    """How many elements at either end of each level the image's part of the last level does without.

    What the end needs depends on n; the number is for those n that need most, and for others rounding down
    drops a rest. A negative one means that a window reads padding.
    """
    found = [(line[-1].before, line[-1].behind)]
    for axis in reversed(line[1:]):
        begin, end = found[-1]
        if axis.slide:
            begin = begin * axis.slide.stride - axis.slide.begin
            end = end * axis.slide.stride - axis.slide.end
        found.append((begin, end))
    return found[::-1]


def counts(line: Line, size: int) -> list[int]:
    """The size of each level if the first one's is `size`."""
    sizes = [size]
    for axis in line[1:]:
        sizes.append(fixed(axis.slide.fit(sizes[-1])) if axis.slide else sizes[-1])
    return sizes


def canvas(line: Line) -> Size:
    """The size of the first level that makes just a zone of the last, the remainders as in the whole."""
    size = line[0].zone
    while counts(line, size)[-1] < line[-1].zone:
        size += 1
    return size + (line[0].size - size) % prod(axis.slide.stride for axis in line[1:] if axis.slide)
