"""Proposal: regions that may hold an object, out of a region proposal network.

Semantics: src/caffe/layers/proposal_layer.cpp of PVANET's Caffe (sanghoon/caffe, branch dev_pvanet), which
caffe-windows has too.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import NamedTuple

from caffe_fcn.layers.base import Array, Builder, Layer, Sequence, Shape, Size, Value, fixed, np, product
from caffe_fcn.layers.forks import box_nodes
from caffe_fcn.numeric.boxes import anchors, descending, move, shifted, suppress

RATIOS, SCALES = (0.5, 1.0, 2.0), (8.0, 16.0, 32.0)  # of Faster R-CNN


class Plan(NamedTuple):
    """What proposals are made by."""

    anchors: Array  # at one cell, (A, 4)
    stride: int  # pixels between two cells
    before: int  # how many are looked at
    after: int  # how many are kept
    overlap: float
    least: float  # pixels of a side, at scale 1
    leave_out: bool = False  # smaller ones, in place of giving them probability 0


class Proposal(Layer, bottoms=3, tops=range(1, 3)):
    """The likeliest anchors, moved as the net says, without those that overlap a likelier one.

    Bottoms: probabilities (1, 2 * A, H, W), of no object and then of one; moves (1, 4 * A, H, W); what is
    known of the image: its height, width, and scale, or that of heights and of widths: (1, 3), (1, 4), or
    (1, 6), whose last two are not read.
    Tops: regions (R, 5), each the item (0), then x1, y1, x2, y2 in pixels; their probabilities (R). R is
    `post_nms_topn` at most; `reshape` says so many, as Caffe does until the first forward pass.

    The A anchors are boxes around `base_size` pixels, of each `ratio` of height to width and each `scale`. A
    region with a side below `min_size` times the image's scale has probability 0. Sides are one longer than
    the difference of their ends.
    """

    fork = "PVANET, caffe-windows"
    decides = True

    def setup(self) -> None:
        p = self.param.proposal_param
        beyond = sorted(self.fields.get("proposal_param", {}))
        self.check(not beyond, f"proposal_param of another fork: {', '.join(beyond)} is not known here")
        for name in ("feat_stride", "base_size", "pre_nms_topn", "post_nms_topn"):
            self.check(getattr(p, name) > 0, f"{name} {getattr(p, name)} must be positive")
        for name in ("ratio", "scale"):
            values = list(getattr(p, name))
            self.check(all(0 < v < math.inf for v in values), f"{name} {values} must be positive and finite")

    @cached_property
    def plan(self) -> Plan:
        """From `proposal_param`."""
        p = self.param.proposal_param
        cell = anchors(p.base_size, list(p.ratio) or RATIOS, list(p.scale) or SCALES)
        return Plan(cell, p.feat_stride, p.pre_nms_topn, p.post_nms_topn, p.nms_thresh, p.min_size)

    def reshape(self, bottoms: Sequence[Shape]) -> list[Shape]:
        (scores, moves, info), names = bottoms, self.param.bottom
        count = len(self.plan.anchors)
        for name, shape, each in zip(names, (scores, moves), (2, 4), strict=False):
            told = f"'{name}' is {shape}: {count} anchors need (1, {each * count}, H, W)"
            self.check(len(shape) == 4 and shape[0] == 1 and shape[1] == each * count, told)
        told = f"'{names[0]}' is {scores}, '{names[1]}' is {moves}: they differ in H or W"
        self.check(scores[2:] == moves[2:], told)
        told = f"'{names[2]}' is {info}, not (1, 3): height, width, scale"
        self.check(product(info) in (3, 4, 6), told)
        return self._shapes()

    def _shapes(self) -> list[Shape]:
        """Of the tops, as long as they can be."""
        shapes: list[Shape] = [(self.plan.after, 5), (self.plan.after,)]
        return shapes[: len(self.param.top)]

    def forward(self, bottoms: Sequence[Array]) -> list[Array]:
        plan, count = self.plan, len(self.plan.anchors)
        height, width = bottoms[0].shape[2:]
        score = bottoms[0][0, count:].transpose(1, 2, 0).reshape(-1)
        moves = bottoms[1][0].reshape(count, 4, height, width).transpose(2, 3, 0, 1).reshape(-1, 4)
        info = bottoms[2].reshape(-1)
        boxes = move(shifted(plan.anchors, height, width, plan.stride), moves)
        boxes = np.maximum(np.minimum(boxes, info[[1, 0, 1, 0]] - 1), 0).astype(np.float32)
        least = plan.least * info[self._scales(len(info))]
        large = (boxes[:, 2:] - boxes[:, :2] + 1 >= least).all(axis=1)
        boxes, score = (boxes[large], score[large]) if plan.leave_out else (boxes, score * large)
        order = descending(score)[: plan.before]
        kept = suppress(boxes, order, plan.overlap, plan.after, extra=1)
        regions = np.pad(boxes[kept], ((0, 0), (1, 0)))
        return self._tops(regions, score[kept])

    def _scales(self, count: int) -> list[int]:
        """Where the scales of widths and of heights stand in what is known of the image."""
        return [2 if count == 3 or self.plan.leave_out else 3, 2]

    def _tops(self, regions: Array, scores: Array) -> list[Array]:
        shapes = [(len(regions), *shape[1:]) for shape in self._shapes()]
        return [top.reshape(shape) for top, shape in zip((regions, scores), shapes, strict=False)]

    def sample(self, i: int, bottoms: Sequence[Shape], rng: np.random.Generator) -> Array | None:
        if i < 2:
            return None
        stride, (height, width) = self.plan.stride, bottoms[0][2:]
        info = np.ones(fixed(product(bottoms[2])))
        info[:2] = fixed(height) * stride, fixed(width) * stride
        return info.reshape([fixed(n) for n in bottoms[2]])

    def to_onnx(self, g: Builder, bottoms: Sequence[Value]) -> list[Value]:
        plan, count = self.plan, len(self.plan.anchors)
        for n in (bottoms[0].shape[0], *bottoms[2].shape):  # one image
            fixed(n)
        height, width = bottoms[0].shape[2:]
        info = g.reshape(bottoms[2], (-1,))
        boxes = self._onnx_boxes(g, bottoms[1], info)
        score = g.op("Slice", bottoms[0], g.ints([count]), g.ints([2 * count]), g.ints([1]))
        score = g.reshape(g.op("Transpose", score, perm=[0, 2, 3, 1]), (height * width * count,))
        least = g.op("Gather", info, g.ints(self._scales(fixed(product(bottoms[2].shape)))))
        boxes, score = self._onnx_large(g, boxes, score, least)
        score, order = g.op(
            "TopK", score, self._onnx_most(g, score, height * width * count), outputs=2, axis=0
        )
        boxes = g.op("Gather", boxes, order, axis=0)
        longer = g.op("Add", boxes, g.array(np.asarray([0, 0, 1, 1], np.float32)))  # by the one pixel more
        longer, ranked = g.op("Unsqueeze", longer, g.ints([0])), g.op("Unsqueeze", score, g.ints([0, 1]))
        kept = box_nodes.suppress(g, longer, ranked, plan.after, plan.overlap)
        index = g.reshape(g.op("Gather", kept, g.ints([2]), axis=1), (-1,))
        regions = g.op("Pad", g.op("Gather", boxes, index, axis=0), g.ints([0, 1, 0, 0]))
        tops = [regions, g.op("Gather", score, index, axis=0)]
        found = []
        for top, shape in zip(tops, self._shapes(), strict=False):
            top = top if len(shape) < 3 and shape[1:] in ((), (5,)) else g.reshape(top, (-1, *shape[1:]))
            found.append(g.found(top, shape, 0, f"{self.name}_regions"))
        return found

    def _onnx_most(self, g: Builder, score: str, count: Size) -> str:
        """How many of the scores are looked at."""
        if isinstance(count, int) and not self.plan.leave_out:
            return g.ints([min(count, self.plan.before)])
        return g.op("Min", g.op("Shape", score), g.ints([self.plan.before]))

    def _onnx_large(self, g: Builder, boxes: str, score: str, scales: str) -> tuple[str, str]:
        """Boxes and scores, without those that are too small, or with probability 0 for them."""
        low, high = box_nodes.halves(g, boxes)
        size = g.op("Add", g.op("Sub", high, low), g.scalar(1))
        least = g.op("Mul", scales, g.scalar(self.plan.least))
        large = g.cast(g.op("GreaterOrEqual", size, least))
        large = g.reduce("ReduceMin", large, [1], keepdims=False)
        if not self.plan.leave_out:
            return boxes, g.op("Mul", score, large)
        chosen = g.cast(large, np.bool_)
        return g.op("Compress", boxes, chosen, axis=0), g.op("Compress", score, chosen, axis=0)

    def _onnx_boxes(self, g: Builder, moves: Value, info: str) -> str:
        """The anchors at every cell, moved and cut at the image: (H * W * A, 4)."""
        height, width = moves.shape[2:]
        flat = (height * width * len(self.plan.anchors), 4)
        start = self._onnx_shifted(g, height, width)
        low, high = box_nodes.halves(g, start)
        size = g.op("Add", g.op("Sub", high, low), g.scalar(1))
        # (1, 4 * A, H, W): an anchor's four moves follow each other
        steps = g.reshape(g.op("Transpose", moves, perm=[0, 2, 3, 1]), flat)
        shift, growth = box_nodes.halves(g, steps)
        centre = g.op("Add", low, g.op("Mul", size, g.scalar(0.5)))
        centre = g.op("Add", g.op("Mul", shift, size), centre)
        half = g.op("Mul", g.op("Mul", g.op("Exp", growth), size), g.scalar(0.5))
        boxes = g.op("Concat", g.op("Sub", centre, half), g.op("Add", centre, half), axis=1)
        edge = g.op("Sub", g.op("Gather", info, g.ints([1, 0, 1, 0])), g.scalar(1))
        return g.op("Max", g.op("Min", boxes, edge), g.scalar(0))

    def _onnx_shifted(self, g: Builder, height: Size, width: Size) -> str:
        """`shifted` of numeric.boxes; a constant if the size is known."""
        cell, stride = self.plan.anchors, self.plan.stride
        if isinstance(height, int) and isinstance(width, int):
            return g.array(shifted(cell, height, width, stride))
        axes = []
        for n, place in ((width, (1, width, 1)), (height, (height, 1, 1))):
            steps = g.op("Mul", box_nodes.numbers(g, n), g.ints([stride]))
            axes.append(g.op("Expand", g.reshape(g.cast(steps), place), g.ints([height, width, 1])))
        shift = g.reshape(g.op("Concat", *axes, *axes, axis=2), (height * width, 1, 4))
        return g.reshape(g.op("Add", shift, g.array(cell)), (height * width * len(cell), 4))
