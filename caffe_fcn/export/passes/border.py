"""What a large padding adds around the image is computed apart: it is the same for every image.

With a pad of 100 a third of all that an FCN multiplies at 500 x 500 goes into features that no pixel reaches.
Here the nodes run without padding on the part that pixels do reach, and the border is put around it by Concat
where that pays; `border_plan` chooses the tensors. The border's values come from the same nodes, run on a
canvas of zeros just large enough to show each of them once: corners, edges, and one element of the middle,
which is repeated. Sizes that depend on the image are computed from its Shape; every pad is a constant.

Requires: a Convolution padded by at least its windows, at the start of nodes that work window by window.
Keeps: every element, a sum of the same products. Bit for bit in onnxruntime's CPU provider where the numbers
of channels fill its blocks, as the FCN family's do; what does not runs as matrix products there, which sum in
an order that depends on the map's size. Tensors that hold a part of a blob's map are called BLOB/image or
BLOB/border.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from caffe_fcn.export.builder import Builder
from caffe_fcn.export.graph import Graph, Node, Value
from caffe_fcn.export.passes.border_axes import Axis, canvas, trims
from caffe_fcn.export.passes.border_plan import MOST, POINTWISE, WINDOWED, Chain, Level, follow, starts
from caffe_fcn.symbols import Extent, Size, same

NAME = "border"

Trims = Sequence[tuple[int, int]]  # for H and for W: elements left out at either end
Compute = Callable[[Graph, Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]
WHOLE: Trims = ((0, 0), (0, 0))


def apply(graph: Graph) -> int:
    """Split the chains for which it pays; returns how many."""
    changed = 0
    for node in [node for node in graph.nodes if starts(graph, node)][:MOST]:
        chain = follow(graph, node)
        cuts = chain.best() if chain else []
        if chain and cuts:
            _Split(graph, chain).at(cuts)
            changed += 1
    graph.prune()
    return changed


def store(graph: Graph, compute: Compute) -> None:
    """Keep the borders of fixed sizes as constants.

    `compute(graph, inputs)` runs a graph in onnxruntime, which would compute them itself when it loads the
    file, but by other kernels than those of the plain graph, so that the last bits differ.
    """
    known, loose = set(graph.constants), []
    for node in graph.nodes:
        if known.issuperset(node.inputs):
            known.update(node.outputs)
            loose.append(node)
    local = [node for node in loose if node.op in WINDOWED | POINTWISE]
    read = {name for node in graph.nodes if node not in local for name in node.inputs}
    for node in local:  # one after the other, so that few weights are in memory at a time
        if read.intersection(node.outputs):
            graph.constants.update(_computed(graph, node.outputs[0], loose, compute))
            loose = loose[loose.index(node) + 1 :]
            graph.nodes.remove(node)
    graph.prune()


def _computed(graph: Graph, name: str, nodes: list[Node], compute: Compute) -> Mapping[str, np.ndarray]:
    anything = tuple(Extent.symbol(axis, 1) for axis in "nchw")
    part = Graph("border", outputs=[Value(name, anything)], nodes=nodes, constants=graph.constants)
    part.prune()
    data = {node.inputs[0] for node in part.nodes} & set(part.constants)
    inputs = {n: part.constants.pop(n) for n in data}  # were they constants, all would be folded
    part.inputs = [Value(n, array.shape) for n, array in inputs.items()]
    return compute(part, inputs)


class _Split:
    """One chain, computed as image and border, in nodes of its own that then replace the chain's."""

    def __init__(self, graph: Graph, chain: Chain) -> None:
        self.graph, self.chain = graph, chain
        self.g = Builder("border", opset=17)
        for value in graph.inputs:
            self.g.input(value.name, value.shape)

    def at(self, cuts: Sequence[int]) -> None:
        """Join at the levels `cuts`; the last one is put together whole."""
        image, zone = self.chain.levels[0].tensor, ""
        for start, stop in pairwise((0, *cuts)):
            self.g.layer = f"{self.chain.levels[start].tensor}/border"
            border = self._canvas(zone, start, stop)
            image, pads = self._reached(image, zone, start, stop)
            image, zone = self._image(image, start, stop, pads), self._border(border, start, stop)
        self.g.layer = f"{self.chain.levels[cuts[-1]].tensor}/border"
        self._whole(self.chain.levels[cuts[-1]], image, zone)
        self._replace(cuts[-1])

    def _canvas(self, zone: str, start: int, stop: int) -> str:
        """Just so much of a level's border that the levels up to `stop` show all of theirs."""
        lines = self.chain.lines(start, stop)
        sizes = [canvas(line) for line in lines]
        if start == 0:
            return self.g.fill((1, self.chain.levels[0].channels, *sizes), 0.0)
        for place, (line, size) in enumerate(zip(lines, sizes, strict=True), 2):
            zone = self.g.op("Gather", zone, self._index(line[0], size, (0, 0)), axis=place)
        return zone

    def _reached(self, image: str, zone: str, start: int, stop: int) -> tuple[str, list[int]]:
        """What the image's part of `stop` is made of, and the pads that its first windows still need."""
        level, lines = self.chain.levels[start], self.chain.lines(start, stop)
        trim = [trims(line)[0] for line in lines]
        if start:
            return self._join(level, image, zone, trim), [0] * 4
        (top, bottom), (left, right) = trim
        h, w = level.axes
        return image, [h.before - top, w.before - left, h.behind - bottom, w.behind - right]

    # --- the chain's nodes, twice

    def _image(self, x: str, start: int, stop: int, pads: list[int]) -> str:
        """The levels behind `start` up to `stop` on the image's part; `pads` are of the first windows."""
        for before, level in pairwise(self.chain.levels[start : stop + 1]):
            windowed = level.axes[0].slide is not None
            x = self._copy(before, level, x, "image", pads if windowed else None)
            pads = [0] * 4 if windowed else pads
        return x

    def _border(self, x: str, start: int, stop: int) -> str:
        """The same levels on a canvas of the border."""
        for before, level in pairwise(self.chain.levels[start : stop + 1]):
            h, w = (axis.slide for axis in level.axes)
            x = self._copy(before, level, x, "border", [h.begin, w.begin, h.end, w.end] if h and w else None)
        return x

    def _copy(self, before: Level, level: Level, x: str, part: str, pads: list[int] | None) -> str:
        node, top = level.node, f"{level.tensor}/{part}"
        if node is None:
            return x
        inputs = [x if name == before.tensor else name for name in node.inputs]
        attributes = node.attributes if pads is None else {**node.attributes, "pads": pads}
        self.g.graph.nodes.append(Node(node.op, inputs, [top], attributes, f"{node.name}/{part}", node.layer))
        return top

    # --- image and border put together

    def _join(self, level: Level, image: str, zone: str, trim: Trims) -> str:
        """A level without what `trim` leaves out of it; the whole as well if others read it."""
        if not level.shared:
            return self._put_together(level, image, zone, trim)
        whole, g = self._whole(level, image, zone), self.g
        if not any(map(any, trim)):
            return whole
        starts, stops = ([t[0] for t in trim], [-t[1] if t[1] else 1 << 62 for t in trim])
        return g.op("Slice", whole, g.ints(starts), g.ints(stops), g.ints([2, 3]))

    def _whole(self, level: Level, image: str, zone: str) -> str:
        """A level under its own name."""
        self.g.graph.rename({self._put_together(level, image, zone, WHOLE): level.tensor})
        return level.tensor

    def _put_together(self, level: Level, image: str, zone: str, trim: Trims) -> str:
        """A level without what `trim` leaves out: left and right of the image first, then top and bottom."""
        (h, w), n = level.axes, self.chain.batch
        zone = zone if same(n, 1) else self.g.op("Expand", zone, self.g.ints([n, 1, 1, 1]))
        (top, bottom), (left, right) = (_ends(axis, t) for axis, t in zip(level.axes, trim, strict=True))
        beside = self._index(h, h.size, (h.before, h.behind))
        row = [self._take(zone, left, 3, beside, 2), image, self._take(zone, right, 3, beside, 2)]
        middle = self._concat(row, 3)
        along = self._index(w, w.size, trim[1])
        return self._concat(
            [self._take(zone, top, 2, along, 3), middle, self._take(zone, bottom, 2, along, 3)], 2
        )

    def _take(self, zone: str, ends: Sequence[int], axis: int, along: str, other: int) -> str:
        """The strip of the border that is `ends` of the zone on one axis, and spread over the other."""
        part = self.g.op("Gather", zone, self.g.ints(ends), axis=axis) if ends else ""
        return self.g.op("Gather", part, along, axis=other) if part else ""

    def _index(self, axis: Axis, size: Size, trim: tuple[int, int]) -> str:
        """Where in the zone to find the elements of an axis of `size`, but for `trim`."""
        g, (first, last) = self.g, trim
        begin = list(range(first, axis.near))
        end = list(range(axis.zone - axis.far, axis.zone - last))
        count = size - max(first, axis.near) - max(last, axis.far)
        if not isinstance(count, Extent):
            return g.ints([*begin, *[axis.near] * count, *end])
        middle = g.op("ConstantOfShape", g.size(count), value=np.asarray([axis.near], np.int64))
        return self._concat([begin and g.ints(begin), middle, end and g.ints(end)], 0)

    def _concat(self, parts: Sequence[Any], axis: int) -> str:
        there = [str(part) for part in parts if part]
        return self.g.op("Concat", *there, axis=axis) if len(there) > 1 else there[0]

    def _replace(self, last: int) -> None:
        """Put the nodes where the chain's were, up to the level `last`."""
        gone = {id(level.node) for level in self.chain.levels[1 : last + 1]}
        at = next(i for i, node in enumerate(self.graph.nodes) if id(node) in gone)
        kept = [node for node in self.graph.nodes if id(node) not in gone]
        taken = {v.name for v in self.graph.inputs} | set(self.graph.constants)
        taken.update(name for node in kept for name in (*node.outputs, node.name))
        new = self.g.graph
        wanted = {level.tensor for level in self.chain.levels}
        made = [name for node in new.nodes for name in node.outputs if name not in wanted]
        new.rename({name: Builder.fresh(name, taken) for name in made if name in taken})
        new.rename({name: Builder.fresh(f"border/{name}", taken) for name in new.constants})
        for node in new.nodes:
            node.name = Builder.fresh(node.name, taken)
            taken.add(node.name)
        self.graph.nodes = [*kept[:at], *new.nodes, *kept[at:]]
        self.graph.constants.update(new.constants)


def _ends(axis: Axis, trim: tuple[int, int]) -> tuple[list[int], list[int]]:
    """Where in the zone lie the elements before the image's part, and behind it, but for `trim`."""
    begin = [min(i, axis.near) for i in range(trim[0], axis.before)]
    end = [max(i, axis.near) for i in range(axis.zone - axis.behind, axis.zone - trim[1])]
    return begin, end
