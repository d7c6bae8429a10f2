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

    def open(self, least: int) -> bool:
        """Whether the ends keep clear of each other on a map of `least` elements, and so on every larger one."""
        return max(self.before, self.near) + max(self.behind, self.far) <= least

    @property
    def zone(self) -> int:
        """Elements that hold all that the border consists of: near, one of the middle, far."""
        return self.near + 1 + self.far


@dataclass
class Step:
    """A node of the chain; `slides` along H and W, none if it is pointwise."""

    node: Node
    slides: tuple[Slide, Slide] | None
    products: int  # multiplications for one position of its output
    channels: int  # of its output


@dataclass
class Level:
    """A tensor of the chain, with what surrounds the image's part of it along H and W."""

    tensor: str
    channels: int
    sizes: tuple[Size, Size]
    least: tuple[int, int]  # the sizes for an image of one pixel
    frames: tuple[Frame, Frame]
    shared: bool  # others than the chain's next node read it too


@dataclass
class Chain:
    """Nodes that follow one another from a padded Convolution on; levels[i] is what steps[i] reads."""

    steps: list[Step]
    levels: list[Level]

    def needed(self, start: int, stop: int, axis: int, ends: tuple[int, int]) -> list[tuple[int, int]]:
        """What of each level from `start` to `stop` has to be there, as elements that may be left out at each end.

        `ends` are those left out at `stop`. At the end one constant holds for every phase: rounding down drops
        what is too much.
        """
        trims = [ends]
        for step in reversed(self.steps[start:stop]):
            begin, end = trims[0]
            if step.slides:
                slide = step.slides[axis]
                begin, end = begin * slide.stride - slide.begin, end * slide.stride - slide.end
            trims.insert(0, (begin, end))
        return trims

    def stride(self, start: int, stop: int, axis: int) -> int:
        """Elements of level `start` from one element of `stop` to the next."""
        return prod(s.slides[axis].stride for s in self.steps[start:stop] if s.slides)

    def canvas(self, start: int, stop: int, axis: int) -> Size:
        """The size at `start` that makes just a zone at `stop`, in the phase that the whole has."""
        stride, zone = self.stride(start, stop, axis), self.levels[stop].frames[axis].zone
        least = self.levels[start].frames[axis].zone
        while self.count(least, start, stop, axis) < zone:
            least += 1
        return least + (self.levels[start].sizes[axis] - least) % stride

    def count(self, size: Size, start: int, stop: int, axis: int) -> Size:
        """Elements at `stop` that `size` elements at `start` make."""
        for step in self.steps[start:stop]:
            size = step.slides[axis].count(size) if step.slides else size
        return size

    def kept(self, level: int, axis: int) -> tuple[int, int]:
        """Elements of the border at each end of a level."""
        frame = self.levels[level].frames[axis]
        return frame.before, frame.behind


def follow(graph: Graph, first: Node) -> Chain | None:
    """The chain that begins with a Convolution whose padding is at least its windows; None if `first` is not that."""
    data = _value_shape(graph, first.inputs[0])
    step = _step(graph, first, first.inputs[0])
    if step is None or step.slides is None or first.op != "Conv" or data is None or len(data) != 4:
        return None
    if any(min(s.begin, s.end) < s.reach for s in step.slides):
        return None
    sizes = tuple(n + s.begin + s.end for n, s in zip(data[2:], step.slides, strict=True))
    frames = tuple(Frame(s.begin, s.end, 0, 0) for s in step.slides)
    old = step.slides
    step.slides = tuple(s._replace(begin=0, end=0) for s in step.slides)
    least = tuple(1 + s.begin + s.end for s in old)
    chain = Chain([], [Level(first.inputs[0], int(data[1]), sizes, least, frames, False)])
    while step is not None:
        before = chain.levels[-1]
        sizes, frames, least = before.sizes, before.frames, before.least
        if step.slides:
            sizes = tuple(s.count(n) for s, n in zip(step.slides, sizes, strict=True))
            least = tuple(s.count(n) for s, n in zip(step.slides, least, strict=True))
            frames = tuple(f.through(s) for s, f in zip(step.slides, frames, strict=True))
        channels = step.channels or before.channels
        if not all(f.open(n) for f, n in zip(frames, least, strict=True)):
            break
        top = step.node.outputs[0]
        readers = graph.consumers(top)
        shared = len(readers) > 1 or any(v.name == top for v in graph.outputs)
        chain.steps.append(step)
        chain.levels.append(Level(top, channels, sizes, least, frames, shared))
        following = [s for node in readers if (s := _step(graph, node, top))]
        step = max(following, key=lambda s: s.products, default=None)
    return chain if chain.steps else None


def _step(graph: Graph, node: Node, data: str) -> Step | None:
    """A node as part of a chain; None if it is none that we know to be local."""
    a = node.attributes
    others = [graph.constants.get(n) for n in node.inputs if n != data]
    if node.inputs.count(data) != 1 or len(node.outputs) != 1 or any(c is None for c in others):
        return None
    if node.op in POINTWISE:
        spread = node.op in PER_CHANNEL and any(c.ndim > 1 and c.shape[-2:] != (1, 1) or c.ndim == 1 and c.size > 1 for c in others)
        return None if spread else Step(node, None, 0, 0)
    if node.op not in ("Conv", "MaxPool", "AveragePool") or len(a["kernel_shape"]) != 2 or node.inputs[0] != data:
        return None
    dilations = a.get("dilations", [1, 1])
    pads, axes = a.get("pads", [0] * 4), range(2)
    slides = tuple(Slide(dilations[i] * (a["kernel_shape"][i] - 1) + 1, a.get("strides", [1, 1])[i], pads[i], pads[i + 2]) for i in axes)
    if any(s.reach < s.stride or min(s.begin, s.end) < 0 for s in slides):
        return None
    return Step(node, slides, others[0].size if node.op == "Conv" else 0, len(others[0]) if node.op == "Conv" else 0)


def _value_shape(graph: Graph, name: str) -> Shape | None:
    known = {v.name: v for v in graph.inputs} | graph.values
    return known[name].shape if name in known else None


MOVED = 20  # products that take as long as moving one float through a join


def cost(chain: Chain, cuts: Sequence[int]) -> float:
    """Products of the chain at its present size if joined at `cuts`, moves counted as products."""
    total, start = 0.0, 0
    last = len(chain.steps)
    for stop in cuts:
        ends = [chain.kept(stop, axis) for axis in range(2)]
        total += _products(chain, start, stop, ends)
        canvas = [hint(chain.canvas(start, stop, axis)) for axis in range(2)]
        total += _work(chain, start, stop, lambda i, axis: chain.count(canvas[axis], start, i, axis))
        total += MOVED * chain.levels[stop].channels * prod(hint(n) for n in chain.levels[stop].sizes)
        start = stop
    return total + _products(chain, start, last, [(0, 0)] * 2, padded=True)


def _products(chain, start, stop, ends, padded=False):
    trims = [chain.needed(start, stop, axis, ends[axis]) for axis in range(2)]
    def size(i, axis):
        n = hint(chain.levels[i].sizes[axis])
        return n if padded else n - sum(trims[axis][i - start])
    return _work(chain, start, stop, size)


def _work(chain, start, stop, size):
    return sum(chain.steps[i - 1].products * prod(size(i, axis) for axis in range(2)) for i in range(start + 1, stop + 1))


def plans(chain):
    must = [i for i, level in enumerate(chain.levels) if level.shared]
    cand = [i + 1 for i, s in enumerate(chain.steps) if s.slides and max(x.stride for x in s.slides) > 1 or chain.levels[i+1].shared or i + 1 == len(chain.steps)]
    for n in range(len(cand) + 1):
        for cuts in combinations(cand, n):
            if cuts and all(m in cuts for m in must if m < cuts[-1]) and all(min(t) >= 0 for a, b in pairwise([0, *cuts]) for x in range(2) for t in chain.needed(a, b, x, chain.kept(b, x))):
                yield cuts
