"""The chain of nodes behind a large padding, and at which of its tensors to join border and image.

Every join moves a map through memory and saves multiplications before and behind it. The cheapest set of
joins at the net's present sizes is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from caffe_fcn.export.graph import Graph, Node
from caffe_fcn.export.passes.border_axes import Axis, Line, Slide, canvas, counts, trims
from caffe_fcn.symbols import Extent, Shape, Size, fixed, hint

WINDOWED = frozenset(["Conv", "MaxPool", "AveragePool"])
#: What computes each pixel by itself, from one input and constants.
ARITHMETIC = frozenset(["Add", "Clip", "Div", "Mul", "PRelu", "Pow", "Sub"])
POINTWISE = ARITHMETIC | {
    *(
        "Abs",
        "BatchNormalization",
        "Elu",
        "Exp",
        "LRN",
        "LeakyRelu",
        "Log",
        "Relu",
        "Sigmoid",
        "Softplus",
        "Tanh",
    )
}

#: Multiplications that take as long as moving one float through a join in onnxruntime's CPU provider, which
#: reorders its blocked layout, concatenates twice and reorders again (docs/performance.md has the figures).
MOVE = 80
#: The same for the calls of a join's nodes.
JOIN = 20_000_000
#: The share of a chain's cost that has to be saved.
WORTHWHILE = 0.05
#: Levels that are looked at, and the padding up to which a border is one: lists of it have to stay short.
LONGEST, WIDEST = 64, 1 << 12
#: Chains that are looked at. An FCN has one, and a net with thousands is none that a person wrote.
MOST = 16


@dataclass
class Level:
    """A tensor of the chain, and the node that makes it; none for the padded image."""

    tensor: str
    channels: int
    axes: tuple[Axis, Axis]  # H and W
    node: Node | None = None
    products: int = 0  # multiplications for one element of H x W
    shared: bool = False  # others than the chain's next node read it


@dataclass
class Chain:
    """Levels from the padded image on, each made from the one before it alone."""

    batch: Size
    levels: list[Level]

    def lines(self, start: int, stop: int) -> tuple[Line, Line]:
        """H and W through the levels from `start` to `stop`."""
        part = self.levels[start : stop + 1]
        return [level.axes[0] for level in part], [level.axes[1] for level in part]

    def best(self) -> list[int]:
        """The levels at which to join; none if it is not worth the nodes.

        What a join costs depends on the one before it alone: a shortest way from level 0 to the end.
        """
        ways: dict[int, tuple[int, list[int]]] = {0: (0, [])}
        for stop in filter(self._place, range(1, len(self.levels))):
            found = [
                (cost + self._segment(start, stop), [*cuts, stop])
                for start, (cost, cuts) in ways.items()
                if self._allowed(start, stop)
            ]
            if found:
                ways[stop] = min(found)
        cost, cuts = min((cost + self._rest(stop), cuts) for stop, (cost, cuts) in ways.items())
        return cuts if cost <= (1 - WORTHWHILE) * self._rest(0) else []

    def _place(self, i: int) -> bool:
        """Whether a join is thought of here: not before a node that is fused with the one before it."""
        last = i + 1 == len(self.levels)
        return last or self.levels[i].shared or self.levels[i + 1].axes[0].slide is not None

    def _allowed(self, start: int, stop: int) -> bool:
        """Whether nobody else reads what lies between, and no window of the image's part reads padding."""
        hidden = not any(level.shared for level in self.levels[start + 1 : stop])
        return hidden and all(min(trim) >= 0 for line in self.lines(start, stop) for trim in trims(line))

    def _segment(self, start: int, stop: int) -> int:
        """Cost of the image's part and of the border between two joins, and of the second join."""
        level, lines = self.levels[stop], self.lines(start, stop)
        image = ([hint(a.size) - sum(t) for a, t in zip(line, trims(line), strict=True)] for line in lines)
        border = (counts(line, hint(canvas(line))) for line in lines)
        moved = level.channels * prod(hint(axis.size) for axis in level.axes)
        return self._work(start, *image) + self._work(start, *border) + MOVE * moved + JOIN

    def _rest(self, start: int) -> int:
        """Multiplications from `start` to the chain's end, on whole maps."""
        lines = self.lines(start, len(self.levels))
        return self._work(start, *([hint(axis.size) for axis in line] for line in lines))

    def _work(self, start: int, heights: Sequence[int], widths: Sequence[int]) -> int:
        """Multiplications that make the levels behind `start`; the sizes are those from `start` on."""
        made = zip(self.levels[start + 1 :], heights[1:], widths[1:], strict=False)
        return sum(level.products * h * w for level, h, w in made)


def starts(graph: Graph, node: Node) -> bool:
    """Whether a node is a Convolution whose padding is at least its windows."""
    slides = _slides(graph, node, node.inputs[0]) if node.op == "Conv" else None
    if not slides:
        return False
    return all(s.reach <= min(s.begin, s.end) and max(s.begin, s.end) <= WIDEST for s in slides)


def follow(graph: Graph, first: Node) -> Chain | None:
    """The chain that begins with a node that `starts` one; None if its sizes are not the inputs' alone."""
    data = first.inputs[0]
    slides = _slides(graph, first, data)
    if not slides:
        return None
    shapes = {v.name: v.shape for v in (*graph.values.values(), *graph.inputs)}
    shape = shapes.get(data, ())
    if not _from_inputs(graph, shape):
        return None
    padded = zip(shape[2:], slides, strict=True)
    h, w = (Axis(n + s.begin + s.end, 1 + s.begin + s.end, s.begin, s.end) for n, s in padded)
    chain = Chain(shape[0], [Level(data, fixed(shape[1]), (h, w))])
    node: Node | None = first
    slides = tuple(s._replace(begin=0, end=0) for s in slides)
    while node and slides is not None and len(chain.levels) < LONGEST:
        level = _next(graph, chain.levels[-1], node, slides)
        if not level:
            break
        chain.levels.append(level)
        readers = graph.consumers(level.tensor)
        level.shared = len(readers) > 1 or any(v.name == level.tensor for v in graph.outputs)
        following = [n for n in readers if _slides(graph, n, level.tensor) is not None]
        node = max(following, key=lambda n: _weights(graph, n), default=None)
        slides = _slides(graph, node, level.tensor) if node else None
    return chain


def _from_inputs(graph: Graph, shape: Shape) -> bool:
    """Whether it is the shape of maps, and follows from those of the inputs."""
    symbols = {str(n) for v in graph.inputs for n in v.shape if isinstance(n, Extent)}
    return len(shape) == 4 and all(n.symbols() <= symbols for n in shape if isinstance(n, Extent))


def _next(graph: Graph, level: Level, node: Node, slides: Sequence[Slide]) -> Level | None:
    """The level that `node` makes; None if the border's two ends may meet there."""
    if slides:
        h, w = (axis.through(s) for axis, s in zip(level.axes, slides, strict=True))
    else:
        h, w = (axis._replace(slide=None) for axis in level.axes)
    products = _weights(graph, node)
    channels = len(graph.constants[node.inputs[1]]) if node.op == "Conv" else level.channels
    return Level(node.outputs[0], channels, (h, w), node, products) if h.apart and w.apart else None


def _weights(graph: Graph, node: Node) -> int:
    """How many weights a Convolution has: its multiplications for one element of H x W."""
    return graph.constants[node.inputs[1]].size if node.op == "Conv" else 0


def _slides(graph: Graph, node: Node, data: str) -> tuple[Slide, ...] | None:
    """The windows of a node that reads `data`, along H and W; () if it works pixel by pixel; else None."""
    others = [name for name in node.inputs if name != data]
    if (
        len(others) != len(node.inputs) - 1
        or len(node.outputs) != 1
        or not graph.constants.keys() >= set(others)
    ):
        return None
    if node.op in POINTWISE:
        ends = [graph.constants[name].shape[-2:] for name in others]
        alike = node.op not in ARITHMETIC or all(end in ((), (1,), (1, 1)) for end in ends)
        return () if alike else None
    a = node.attributes
    if node.op not in WINDOWED or node.inputs[0] != data or len(a["kernel_shape"]) != 2:
        return None
    if not set(a) <= {"kernel_shape", "strides", "dilations", "pads", "group", "count_include_pad"}:
        return None
    pads, strides, dilations = a.get("pads", [0] * 4), a.get("strides", [1] * 2), a.get("dilations", [1] * 2)
    reach = [d * (k - 1) + 1 for k, d in zip(a["kernel_shape"], dilations, strict=True)]
    slides = tuple(map(Slide, reach, strides, pads[:2], pads[2:]))
    return slides if all(s.reach >= s.stride and min(s.begin, s.end) >= 0 for s in slides) else None
