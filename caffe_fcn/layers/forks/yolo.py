"""What a YOLO net found: YoloDetectionOutput of its second version, Yolov3DetectionOutput of its third.

Semantics: src/caffe/layers/yolo_detection_output_layer.cpp, yolov3_detection_output_layer.cpp and
src/caffe/util/bbox_util.cpp of eric612/MobileNet-YOLO, on the CPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from caffe_fcn.layers.base import Array, Builder, Layer, Sequence, Shape, Value, fixed, np
from caffe_fcn.layers.forks import box_nodes
from caffe_fcn.numeric.boxes import descending, suppress
from caffe_fcn.numeric.recurrent import sigmoid
from caffe_fcn.numeric.softmax import softmax


class _Head(NamedTuple):
    """What one bottom says, and how its numbers become boxes."""

    classes: int
    anchors: Array  # (boxes of a cell, 2): width and height in `unit`
    unit: int  # 1: cells; else the pixels of a cell, and anchors are in pixels


class _YoloOutput(Layer, bottoms=range(1, 17)):
    """Bottoms: (N, boxes * (5 + classes), H, W), of each box x, y, width, height, objectness, classes.

    Top: (1, 1, detections, 7), each row 0, class + 1, confidence, x1, y1, x2, y2 as shares of the image, the
    likeliest first. Without any, a row of item, then -1, for each item. How many rows there are, `reshape`
    does not know: it says 1, as the fork does until the first forward pass.
    """

    fork = "MobileNet-YOLO"
    decides = True
    inclusive = False  # whether a box of just the confidence_threshold is one

    def heads(self) -> list[_Head]:
        """One for each bottom."""
        raise NotImplementedError

    def scores(self, objects: Array, classes: Array) -> Array:
        """(..., classes): how likely each is; what is no candidate is -1."""
        raise NotImplementedError

    def onnx_scores(self, g: Builder, objects: str, classes: str, count: int) -> str:
        """The same of (..., 1) and (..., classes)."""
        raise NotImplementedError

    def _setup(self, confidence: float, threshold: float) -> None:
        self.confidence = float(np.float32(confidence))
        self.check(threshold > 0, f"nms_threshold {threshold} must be positive")
        # A box that overlaps by just the threshold goes too
        self.below = float(np.nextafter(np.float32(threshold), np.float32(0)))

    def reshape(self, bottoms: Sequence[Shape]) -> list[Shape]:
        for name, shape, head in zip(self.param.bottom, bottoms, self.heads(), strict=True):
            needed = len(head.anchors) * (5 + head.classes)
            told = f"'{name}' is {shape}: {len(head.anchors)} boxes of {head.classes} classes need"
            self.check(len(shape) == 4 and shape[1] == needed, f"{told} (N, {needed}, H, W)")
            told = f"'{name}' is {shape}, '{self.param.bottom[0]}' is {bottoms[0]}: they differ in N"
            self.check(shape[0] == bottoms[0][0], told)
        return [(1, 1, 1, 7)]

    def forward(self, bottoms: Sequence[Array]) -> list[Array]:
        found = [self._found(x, head) for x, head in zip(bottoms, self.heads(), strict=True)]
        rows = np.concatenate(found)
        rows = rows[descending(rows[:, 2])]
        kept = suppress(rows[:, 3:], np.arange(len(rows)), self.below)
        if not kept:
            rows, kept = np.full((len(bottoms[0]), 7), -1, np.float32), list(range(len(bottoms[0])))
            rows[:, 0] = kept
        return [rows[kept].reshape(1, 1, -1, 7)]

    def _found(self, x: Array, head: _Head) -> Array:
        """Rows of what is likely enough, cell by cell: (M, 7)."""
        (n, _, height, width), count = x.shape, len(head.anchors)
        cells = (
            x.reshape(n, count, -1, height, width).transpose(0, 3, 4, 1, 2).reshape(n, -1, 5 + head.classes)
        )
        start, by, size = self._grid(head, height, width)
        with np.errstate(over="ignore"):
            centre = (start + sigmoid(cells[..., :2])) / by
            half = np.exp(cells[..., 2:4]) * size / 2
            objects = sigmoid(cells[..., 4:5])
        scores = self.scores(objects, cells[..., 5:])
        item, box, label = np.nonzero(
            scores >= self.confidence if self.inclusive else scores > self.confidence
        )
        corners = np.concatenate([centre - half, centre + half], axis=-1)[item, box]
        ahead = np.stack([np.zeros(len(label)), label + 1, scores[item, box, label]], axis=1)
        return np.concatenate([ahead, corners], axis=1).astype(np.float32)

    @staticmethod
    def _grid(head: _Head, height: int, width: int) -> tuple[Array, Array, Array]:
        """Of every box: the corner of its cell (H * W * boxes, 2), what shares are of (2,), and its size."""
        y, x = np.mgrid[:height, :width].astype(np.float32)
        start = np.stack([x, y], axis=-1).reshape(-1, 2).repeat(len(head.anchors), 0)
        by = np.asarray([width, height], np.float32)
        size = np.tile((head.anchors / (by * head.unit)).astype(np.float32), (height * width, 1))
        return start, by, size

    def to_onnx(self, g: Builder, bottoms: Sequence[Value]) -> list[Value]:
        n = bottoms[0].shape[0]
        parts = list(zip(*self._onnx_heads(g, bottoms), strict=True))
        ahead, corners = (p[0] if len(p) == 1 else g.op("Concat", *p, axis=0) for p in parts)
        scores = g.op("Gather", ahead, g.ints([2]), axis=1)
        boxes, ranked = g.op("Unsqueeze", corners, g.ints([0])), g.reshape(scores, (1, 1, -1))
        most = g.op("Shape", scores, start=0, end=1)
        kept = box_nodes.suppress(g, boxes, ranked, most, self.below, -1)
        index = g.reshape(g.op("Gather", kept, g.ints([2]), axis=1), (-1,))
        rows = g.op("Gather", g.op("Concat", ahead, corners, axis=1), index, axis=0)
        # A row for each item if there is nothing else
        blank = g.op("Concat", g.reshape(g.cast(box_nodes.numbers(g, n)), (n, 1)), g.fill((n, 6), -1), axis=1)
        none = g.op("Equal", g.op("Shape", index), g.ints([0]))
        blank = g.op("Compress", blank, g.op("Expand", none, g.ints([n])), axis=0)
        top = g.op("Unsqueeze", g.op("Concat", rows, blank, axis=0), g.ints([0, 1]))
        return [g.found(top, (1, 1, 1, 7), 2, f"{self.name}_detections")]

    def _onnx_heads(self, g: Builder, bottoms: Sequence[Value]) -> Iterator[tuple[str, str]]:
        """`_found`: 0, class + 1, score (M, 3), and corners (M, 4)."""
        for x, head in zip(bottoms, self.heads(), strict=True):
            n, (height, width) = x.shape[0], (fixed(size) for size in x.shape[2:])
            count, each = len(head.anchors), 5 + head.classes
            cells = g.op("Transpose", g.reshape(x, (n, count, each, height * width)), perm=[0, 3, 1, 2])
            cells = g.reshape(cells, (n, height * width * count, each))
            parts = g.op("Split", cells, g.ints([2, 2, 1, head.classes]), outputs=4, axis=2)
            start, by, size = self._grid(head, height, width)
            centre = g.op("Div", g.op("Add", g.op("Sigmoid", parts[0]), g.array(start)), g.array(by))
            half = g.op("Mul", g.op("Exp", parts[1]), g.array(size / 2))
            scores = self.onnx_scores(g, g.op("Sigmoid", parts[2]), parts[3], head.classes)
            likely = g.op(
                "GreaterOrEqual" if self.inclusive else "Greater", scores, g.scalar(self.confidence)
            )
            where = g.op("Transpose", g.op("NonZero", likely), perm=[1, 0])
            corners = g.op("Concat", g.op("Sub", centre, half), g.op("Add", centre, half), axis=2)
            box, label = g.op("Split", where, g.ints([2, 1]), outputs=2, axis=1)
            label = g.cast(g.op("Add", label, g.ints([1])))
            score = g.op("Unsqueeze", g.op("GatherND", scores, where), g.ints([1]))
            ahead = g.op("Concat", g.op("Mul", label, g.scalar(0)), label, score, axis=1)
            yield ahead, g.op("GatherND", corners, box)


class YoloDetectionOutput(_YoloOutput, bottoms=range(1, 3)):
    """The likeliest class of every box, if it is likely, without boxes that overlap a likelier one.

    Bottoms: one or two (N, num_box * (5 + num_classes), S, S). Top: (1, 1, detections, 7), rows of 0,
    class + 1, confidence, x1, y1, x2, y2. Classes are a softmax, `biases` widths and heights in cells;
    boxes of any class and item strike each other out from an overlap of `nms_threshold` on.
    """

    inclusive = True

    def setup(self) -> None:
        p = self.param.yolo_detection_output_param
        self.check(p.num_classes > 0 and p.num_box > 0, "num_classes and num_box must be positive")
        told = f"{len(p.biases)} biases for num_box {p.num_box}, which needs {2 * p.num_box}"
        self.check(len(p.biases) >= 2 * p.num_box, told)
        self._setup(p.confidence_threshold, p.nms_threshold)

    def heads(self) -> list[_Head]:
        p = self.param.yolo_detection_output_param
        anchors = np.asarray(p.biases[: 2 * p.num_box], np.float32).reshape(-1, 2)
        return [_Head(p.num_classes, anchors, 1)] * len(self.param.bottom)

    def reshape(self, bottoms: Sequence[Shape]) -> list[Shape]:
        tops = super().reshape(bottoms)
        for name, shape in zip(self.param.bottom, bottoms, strict=True):
            self.check(shape[2] == shape[3], f"'{name}' is {shape}: the layer takes squares only")
        return tops

    def scores(self, objects: Array, classes: Array) -> Array:
        likely = softmax(classes, 2)
        best = np.arange(classes.shape[2]) == likely.argmax(axis=2)[..., None]
        return np.where(best, likely * objects, np.float32(-1))

    def onnx_scores(self, g: Builder, objects: str, classes: str, count: int) -> str:
        likely = g.op("Softmax", classes, axis=2)
        best = g.op("ArgMax", likely, axis=2, keepdims=1)
        chosen = g.op("Equal", best, g.ints(range(count)))
        return g.op("Where", chosen, g.op("Mul", likely, objects), g.scalar(-1))


class Yolov3DetectionOutput(_YoloOutput):
    """Every class of every box that is likely, without boxes that overlap a likelier one.

    Bottoms: `mask_group_num` maps (N, num_box * (5 + num_classes), H, W). Top: (1, 1, detections, 7), rows of
    0, class + 1, confidence, x1, y1, x2, y2. Classes are sigmoids; `mask` says which of the `biases`, widths
    and heights in pixels, each map has, `anchors_scale` its pixels for a cell. Boxes of any class and item
    strike each other out from an overlap of `nms_threshold` on.
    """

    def setup(self) -> None:
        p, bottoms = self.param.yolov3_detection_output_param, len(self.param.bottom)
        self.check(p.num_classes > 0 and p.num_box > 0, "num_classes and num_box must be positive")
        self.check(not p.gaussian_box, "gaussian_box is not known here")
        self.check(p.mask_group_num == bottoms, f"mask_group_num {p.mask_group_num}, bottoms: {bottoms}")
        self.check(
            len(p.anchors_scale) >= bottoms, f"{len(p.anchors_scale)} anchors_scale for {bottoms} bottoms"
        )
        self.check(all(p.anchors_scale), f"anchors_scale {list(p.anchors_scale)} must be positive")
        told = f"{len(p.mask)} mask for {bottoms} bottoms of num_box {p.num_box}"
        self.check(len(p.mask) // bottoms * (bottoms - 1) + p.num_box <= len(p.mask), told)
        told = f"mask {list(p.mask)} names more than {len(p.biases) // 2} pairs of biases"
        self.check(all(2 * m + 1 < len(p.biases) for m in p.mask), told)
        self._setup(p.confidence_threshold, p.nms_threshold)

    def heads(self) -> list[_Head]:
        p = self.param.yolov3_detection_output_param
        pairs = np.asarray(p.biases[: len(p.biases) // 2 * 2], np.float32).reshape(-1, 2)
        step = len(p.mask) // len(self.param.bottom)
        return [
            _Head(p.num_classes, pairs[list(p.mask[i * step : i * step + p.num_box])], p.anchors_scale[i])
            for i in range(len(self.param.bottom))
        ]

    def scores(self, objects: Array, classes: Array) -> Array:
        with np.errstate(over="ignore"):
            return objects / (1 + np.exp(-classes))

    def onnx_scores(self, g: Builder, objects: str, classes: str, count: int) -> str:
        return g.op("Mul", g.op("Sigmoid", classes), objects)
