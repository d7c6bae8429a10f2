"""What no image changes in a padded net, and at which tensors to join it to what the image does change.

A `Chain` is a run of nodes that work window by window; its level 0 is the padded image. Along an axis of n
elements the image reaches those from `before` to n - `behind`. The padding inside the net (a Convolution's pad
of 1, say) shows in the first `near` and the last `far`. Elements that neither reaches are all alike. These
four are constants, whatever n is, and so is all that follows from them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from math import prod
from typing import NamedTuple

from caffe_fcn.export.graph import Graph, Node
from caffe_fcn.symbols import Extent, Shape, Size, hint

WINDOWED = frozenset(["Conv", "MaxPool", "AveragePool"])
#: Nodes that compute each pixel by itself, from one input and constants.
POINTWISE = frozenset(
    "Abs Add BatchNormalization Clip Div Elu Exp LRN LeakyRelu Log Mul PRelu Pow Relu Sigmoid Softplus Sub Tanh".split()
)

#: Multiplications that take as long as moving one float through a join: onnxruntime's CPU provider reorders
#: its blocked layout, concatenates twice and reorders again (docs/performance.md).
MOVE = 60
#: Less than this share of the chain is not worth the nodes.
WORTHWHILE = 0.05


class Slide(NamedTuple):
    """Windows along one axis, with a padding of its own at each end."""

    reach: int
    stride: int
    begin: int
    end: int

    def count(self, size: Size) -> Size:
        return (size + self.begin + self.end - self.reach) // self.stride + 1


class Axis(NamedTuple):
    """One axis of a level; see the module's text."""

    size: Size
    least: int  # its size for an image of one pixel
    before: int
    behind: int
    near: int = 0
    far: int = 0
    slide: Slide | None = None  # the windows that made it

    def through(self, slide: Slide) -> Axis:
        """The axis behind a slide.

        The phase of n decides how far the last window reaches; the bounds hold for every phase.
        """
        k, s, begin, end = slide
        return Axis(
            slide.count(self.size),
            int(slide.count(self.least)),
            max(0, -((k - 1 - begin - self.before) // s)),
            (end + self.behind - k + 1) // s,
            -((-self.near - begin) // s),
            -((-self.far - end) // s),
            slide,
        )

    @property
    def zone(self) -> int:
        """Elements that show all there is besides the image: near, one in the middle, far."""
        return self.near + 1 + self.far

    @property
    def apart(self) -> bool:
        """Whether the two ends keep clear of each other, on every image."""
        return max(self.before, self.near) + max(self.behind, self.far) <= self.least


Line = Sequence[Axis]  # an axis through consecutive levels


def trims(line: Line) -> list[tuple[int, int]]:
    """How many elements at each end of each level the last level's image part does without.

    The end's number is for the phase that needs most; in the others, rounding down drops the rest.
    """
    found = [(line[-1].before, line[-1].behind)]
    for axis in reversed(line[1:]):
        begin, end = found[0]
        if axis.slide:
            s = axis.slide
            begin, end = begin * s.stride - s.begin, end * s.stride - s.end
        found.insert(0, (begin, end))
    return found


def canvas(line: Line) -> Size:
    """The size of the first level that makes just a zone of the last, in the phase that the whole has."""
    size = line[0].zone
    while counts(line, size)[-1] < line[-1].zone:
        size += 1
    return size + (line[0].size - size) % prod(axis.slide.stride for axis in line[1:] if axis.slide)


def counts(line: Line, size: int) -> list[int]:
    """The levels' sizes if the first one's is `size`."""
    sizes = [size]
    for axis in line[1:]:
        sizes.append(int(axis.slide.count(sizes[-1])) if axis.slide else sizes[-1])
    return sizes


@dataclass
class Level:
    """A tensor of the chain, and the node that makes it."""

    tensor: str
    channels: int
    axes: tuple[Axis, Axis]  # H and W
    node: Node | None = None
    products: int = 0  # multiplications an element of H x W
    shared: bool = False  # others than the chain's next node read it


@dataclass
class Chain:
    """Levels from the padded image on, each made from the one before it."""

    batch: Size
    levels: list[Level]

    def lines(self, start: int, stop: int) -> list[Line]:
        """H and W through the levels from `start` to `stop`."""
        return [[level.axes[i] for level in self.levels[start : stop + 1]] for i in range(2)]

    def work(self, start: int, *sizes: Sequence[int]) -> int:
        """Multiplications that make the levels behind `start`, given the sizes of H and of W from `start` on."""
        made = zip(self.levels[start + 1 :], *(axis[1:] for axis in sizes), strict=False)
        return sum(level.products * h * w for level, h, w in made)

    def whole(self, start: int) -> int:
        """Multiplications from `start` to the chain's end, with nothing left out."""
        return self.work(start, *([hint(a.size) for a in line] for line in self.lines(start, len(self.levels))))

    def best(self) -> list[int]:
        """The levels at which to join for the least cost; none if that is not worth the nodes.

        What a join costs depends on the one before it alone: a shortest way from level 0 to the whole map.
        """
        paths: dict[int, tuple[float, list[int]]] = {0: (0, [])}
        for stop in filter(self._place, range(1, len(self.levels))):
            ways = [
                (cost + self._segment(start, stop), [*cuts, stop])
                for start, (cost, cuts) in paths.items()
                if self._allowed(start, stop)
            ]
            if ways:
                paths[stop] = min(ways)
        cost, cuts = min((cost + self.whole(stop), cuts) for stop, (cost, cuts) in paths.items())
        return cuts if cost < (1 - WORTHWHILE) * self.whole(0) else []

    def _place(self, i: int) -> bool:
        """Whether to think of a join here: not before a node that onnxruntime fuses with the one before it."""
        last = i + 1 == len(self.levels)
        return last or self.levels[i].shared or self.levels[i + 1].axes[0].slide is not None

    def _allowed(self, start: int, stop: int) -> bool:
        """Whether no window of the image's part reads padding, and nobody else what lies between."""
        between = any(level.shared for level in self.levels[start + 1 : stop])
        return not between and all(min(trim) >= 0 for line in self.lines(start, stop) for trim in trims(line))

    def _segment(self, start: int, stop: int) -> int:
        """Multiplications from one join to the next, moves counted as such."""
        lines, level = self.lines(start, stop), self.levels[stop]
        image = ([hint(a.size) - sum(t) for a, t in zip(line, trims(line), strict=True)] for line in lines)
        border = (counts(line, hint(canvas(line))) for line in lines)
        moved = level.channels * prod(hint(axis.size) for axis in level.axes)
        return self.work(start, *image) + self.work(start, *border) + MOVE * moved + JOIN


def follow(graph: Graph, first: Node) -> Chain | None:
    """The chain that begins with a Convolution padded by at least its windows; None if `first` is none such."""
    known = {v.name: v.shape for v in (*graph.values.values(), *graph.inputs)}
    data, shape = first.inputs[0], known.get(first.inputs[0], ())
    slides = _slides(graph, first, data)
    if first.op != "Conv" or not slides or not _known(graph, shape) or any(min(s[2:]) < s.reach for s in slides):
        return None
    padded = (Axis(n + s.begin + s.end, 1 + s.begin + s.end, s.begin, s.end) for n, s in zip(shape[2:], slides))
    chain = Chain(shape[0], [Level(data, int(shape[1]), (next(padded), next(padded)))])
    slides = [s._replace(begin=0, end=0) for s in slides]
    node: Node | None = first
    while node is not None and slides is not None:
        level = _next(graph, chain.levels[-1], node, slides)
        if not all(axis.apart for axis in level.axes):
            break
        chain.levels.append(level)
        readers = graph.consumers(level.tensor)
        level.shared = len(readers) > 1 or any(v.name == level.tensor for v in graph.outputs)
        follows = [(n, s) for n in readers if (s := _slides(graph, n, level.tensor)) is not None]
        node, slides = max(follows, key=lambda f: _products(graph, f[0]), default=(None, None))
    return chain


def _known(graph: Graph, shape: Shape) -> bool:
    """Whether a map's size follows from the sizes of the inputs."""
    symbols = {str(n) for v in graph.inputs for n in v.shape if isinstance(n, Extent)}
    return len(shape) == 4 and all(n.symbols() <= symbols for n in shape if isinstance(n, Extent))


def _next(graph: Graph, level: Level, node: Node, slides: Sequence[Slide]) -> Level:
    """The level that `node` makes."""
    h, w = (axis.through(s) for axis, s in zip(level.axes, slides, strict=True)) if slides else level.axes
    weights = graph.constants[node.inputs[1]] if node.op == "Conv" else None
    channels = level.channels if weights is None else len(weights)
    return Level(node.outputs[0], channels, (h._replace(...), w), node, _products(graph, node))


def _products(graph: Graph, node: Node) -> int:
    """Multiplications for one element of H x W."""
    return graph.constants[node.inputs[1]].size if node.op == "Conv" else 0


def _slides(graph: Graph, node: Node, data: str) -> list[Slide] | None:
    """The windows of a node that reads `data`, along H and W; [] if it is pointwise, None if it is neither."""
    others = [graph.constants.get(n) for n in node.inputs if n != data]
    if node.inputs.count(data) != 1 or len(node.outputs) != 1 or any(array is None for array in others):
        return None
    if node.op in POINTWISE:
        ...
