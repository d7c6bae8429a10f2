"""border"""

from __future__ import annotations

import numpy as np

from caffe_fcn.export.builder import Builder
from caffe_fcn.export.graph import Graph, Node
from caffe_fcn.export.passes.border_plan import Chain, cost, follow, plans
from caffe_fcn.symbols import Size, same, hint

NAME = "border"
CUTS = None

def apply(graph: Graph) -> int:
    changed = 0
    for node in [n for n in graph.nodes if n.op == "Conv"]:
        chain = follow(graph, node)
        if chain is None:
            continue
        if CUTS is not None:
            cuts = [i for i, l in enumerate(chain.levels) if l.tensor in CUTS]
        else:
            base = cost(chain, [])
            best = min(plans(chain), key=lambda c: cost(chain, c), default=None)
            for c in plans(chain):
                print([chain.levels[i].tensor for i in c], cost(chain, c) / 1e9, base / 1e9)
            cuts = best
        if cuts:
            Rewrite(graph, chain, cuts).run()
            changed += 1
    graph.prune()
    return changed


class Rewrite:
    def __init__(self, graph: Graph, chain: Chain, cuts) -> None:
        self.graph, self.chain, self.cuts = graph, chain, cuts
        self.g = Builder("border", 17)
        for v in graph.inputs:
            self.g.input(v.name, v.shape)
        self.inner: dict[int, str] = {}
        self.zones: dict[int, str] = {}

    def run(self) -> None:
        chain, start = self.chain, 0
        self.inner[0] = chain.levels[0].tensor
        for stop in self.cuts:
            self.g.layer = chain.levels[stop].tensor + "/border"
            trims = [chain.needed(start, stop, axis, chain.kept(stop, axis))[0] for axis in range(2)]
            if start == 0:
                source = self.inner[0]
                pads = [chain.kept(0, axis)[side] - trims[axis][side] for side in range(2) for axis in range(2)]
            else:
                source, pads = self.joined(start, trims, last=False), [0] * 4
            self.inner[stop] = self.steps(start, stop, source, pads, valid=True)
            self.zones[stop] = self.steps(start, stop, self.canvas(start, stop), [0] * 4, valid=False)
            start = stop
        self.joined(start, [(0, 0)] * 2, last=True)
        self.splice()

    def steps(self, start, stop, x, pads, valid):
        for i in range(start, stop):
            step = self.chain.steps[i]
            node = step.node
            attributes = dict(node.attributes)
            if step.slides:
                if i == start and valid or i == 0:
                    attributes["pads"] = pads
                elif valid:
                    attributes["pads"] = [0] * 4
            top = f"{node.outputs[0]}/{'image' if valid else 'border'}"
            self.g.graph.nodes.append(Node(node.op, [x if n == self.chain.levels[i].tensor else n for n in node.inputs], [top], attributes, f"{node.name}{'' if valid else '/border'}", node.layer))
            x = top
        return x

    def canvas(self, start, stop):
        sizes = [self.chain.canvas(start, stop, axis) for axis in range(2)]
        level = self.chain.levels[start]
        if start == 0:
            return self.g.op("ConstantOfShape", self.g.ints((1, level.channels, *sizes)), value=np.zeros(1, np.float32))
        x = self.zones[start]
        for axis in range(2):
            x = self.along(x, start, axis, sizes[axis], 0, 0)
        return x

    def along(self, x, level, axis, size: Size, first: int, last: int):
        """Elements `first` to size - `last` of a map of `size`, taken from the zone `x`."""
        g, f = self.g, self.chain.levels[level].frames[axis]
        begin, end = list(range(first, f.near)), list(range(f.zone - f.far, f.zone - last))
        count = size - max(first, f.near) - max(last, f.far)
        if isinstance(count, int):
            index = g.array(np.asarray([*begin, *[f.near] * count, *end], np.int64))
        else:
            middle = g.op("ConstantOfShape", g.size(count), value=np.asarray([f.near], np.int64))
            parts = [*([g.array(np.asarray(begin, np.int64))] if begin else []), middle, *([g.array(np.asarray(end, np.int64))] if end else [])]
            index = g.op("Concat", *parts, axis=0) if len(parts) > 1 else parts[0]
        return g.op("Gather", x, index, axis=axis + 2)

    def joined(self, level, trims, last):
        lv = self.chain.levels[level]
        self.g.layer = lv.tensor + "/border"
        if not lv.shared:
            return self.assemble(level, trims, lv.tensor if last else None)
        full = self.assemble(level, [(0, 0)] * 2, lv.tensor)
        if all(t == (0, 0) for t in trims):
            return full
        starts, ends, axes = [], [], []
        for axis, (a, b) in enumerate(trims):
            starts.append(a); ends.append(-b if b else 2**62); axes.append(axis + 2)
        g = self.g
        return g.op("Slice", full, g.ints(starts), g.ints(ends), g.ints(axes))

    def assemble(self, level, trims, name):
        g, lv, z = self.g, self.chain.levels[level], self.zones[level]
        ends = []
        for axis in range(2):
            f = lv.frames[axis]
            a, b = trims[axis]
            ends.append(([min(r, f.near) for r in range(a, f.before)], [max(f.near, f.zone - f.behind + r) for r in range(f.behind - b)]))
        n = self.graph.inputs[0].shape[0]
        def batch(x):
            return x if n == 1 and isinstance(n, int) else g.op("Expand", x, g.ints([n, 1, 1, 1]))
        def rows(index):
            x = g.op("Gather", z, g.array(np.asarray(index, np.int64)), axis=2)
            return batch(self.along(x, level, 1, lv.sizes[1], *trims[1]))
        def side(index):
            x = g.op("Gather", z, g.array(np.asarray(index, np.int64)), axis=3)
            return batch(self.along(x, level, 0, lv.sizes[0], *self.chain.kept(level, 0)))
        parts = [side(ends[1][0])] if ends[1][0] else []
        parts.append(self.inner[level])
        parts += [side(ends[1][1])] if ends[1][1] else []
        middle = g.op("Concat", *parts, axis=3)
        parts = [rows(ends[0][0])] if ends[0][0] else []
        parts.append(middle)
        parts += [rows(ends[0][1])] if ends[0][1] else []
        x = g.op("Concat", *parts, axis=2)
        if name:
            g.graph.rename({x: name})
            x = name
        return x

    def splice(self):
        s = self.g.graph
        s.rename({c: f"border/{c}" for c in s.constants})
        for node in s.nodes:
            node.name = node.name or node.outputs[0]
        gone = {id(st.node) for st in self.chain.steps[: self.cuts[-1]]}
        at = next(i for i, n in enumerate(self.graph.nodes) if id(n) in gone)
        rest = [n for n in self.graph.nodes[at:] if id(n) not in gone]
        self.graph.nodes[at:] = s.nodes + rest
        self.graph.constants.update(s.constants)
