"""Where the border of a padded net ends, and at which tensors it pays to join it to the image's part.

All of it is the arithmetic of one axis. A `Level` is a tensor of a chain of nodes; level 0 is the padded image.
Along an axis of n elements the image reaches those from `before` to n - `behind`, and the padding inside the
net (a Convolution's pad 1) shows in the first `near` and the last `far`. Between the two lie elements that
neither reaches: they are all alike. All four are constants, whatever n is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from math import prod
from typing import NamedTuple

from caffe_fcn.export.graph import Graph, Node
from caffe_fcn.symbols import Extent, Shape, Size, hint

#: Nodes that compute each element (or each pixel's channels) by itself, from their first input and constants.
POINTWISE = frozenset(
    "Relu LeakyRelu PRelu Elu Sigmoid Tanh Softplus Abs Clip Exp Log Pow Mul Add Sub Div LRN BatchNormalization".split()
)
PER_CHANNEL = frozenset(["PRelu", "Mul", "Add", "Sub", "Div", "Pow"])  # their constants broadcast


class Slide(NamedTuple):
    """Windows along one axis, with a padding of their own at each end."""

    reach: int
    stride: int
    begin: int
    end: int

    def count(self, size: Size) -> Size:
        return (size + self.begin + self.end - self.reach) // self.stride + 1


class Frame(NamedTuple):
    """What lies around the image's part of an axis; elements. See the module's text."""

    before: int
    behind: int
    near: int
    far: int

    def through(self, slide: Slide) -> Frame:
        """The frame behind a slide. How many windows fit depends on the phase of n; these bounds do not."""
        s = slide.stride
        return Frame(
            before=max(0, -((slide.reach - 1 - slide.begin - self.before) // s)),
            behind=(slide.end + self.behind - slide.reach + 1) // s,
            near=-((-self.near - slide.begin) // s),
            far=-((-self.far - slide.end) // s),
        )

    @property
    def open(self) -> bool:
        """Whether the image's part keeps clear of what the inner padding changes."""
        return self.before >= self.near and self.behind >= self.far

    @property
    def zone(self) -> int:
        """Elements that hold all that the border consists of: near, one of the middle, far."""
        return self.near + 1 + self.far
