"""DetectionOutput of SSD and RefineDet: what a detector found.

Semantics: src/caffe/layers/detection_output_layer.cpp and src/caffe/util/bbox_util.cpp of weiliu89/caffe,
branch ssd, and of sfzhang15/RefineDet.
"""

from __future__ import annotations

from typing import NamedTuple

from caffe_fcn.layers.base import Array, Builder, Layer, Sequence, Shape, Size, Value, fixed, np, product
from caffe_fcn.layers.forks import box_nodes
from caffe_fcn.layers.forks.box_nodes import NONE
from caffe_fcn.numeric.boxes import decode, descending, suppress

CUT = "stop before it: --output with the blobs of locations, confidences and priors"


class _Sizes(NamedTuple):
    items: Size
    priors: Size
    classes: int
    boxes: int  # per prior: one for all classes, or one for each


class DetectionOutput(Layer, bottoms=range(3, 6)):
    """The boxes that are likely and overlap no likelier one of their class by more than `nms_threshold`.

    Bottoms: locations (N, priors * 4), or priors * classes * 4 without `share_location`; confidences
    (N, priors * classes); priors (1, 2, priors * 4) of PriorBox. SSD's fourth is the image, which is not
    read; RefineDet's are the first stage's confidences (N, priors * 2) and locations (N, priors * 4).
    Top: (1, 1, detections, 7), each row item, class, confidence, x1, y1, x2, y2 as shares of the image: item
    by item, class by class, the likeliest first. Without any, a row of -1 for each item.

    Of each class `top_k` at most are looked at, of each item `keep_top_k` are kept. How many rows there are,
    `reshape` does not know: it says 1, as SSD does until the first forward pass.
    """

    fork = "SSD, RefineDet"
    decides = True

    def setup(self) -> None:
        p = self.param.detection_output_param
        self.check(p.num_classes > 0, "num_classes is missing")
        self.check(not p.use_polygon, "use_polygon of TextBoxes++ is not known here", CUT)
        self.check(p.nms_param.nms_threshold >= 0, f"nms_threshold {p.nms_param.nms_threshold} is negative")
        self.check(0 < p.nms_param.eta <= 1, f"eta {p.nms_param.eta} is not in (0, 1]")

    def _sizes(self, bottoms: Sequence[Shape]) -> _Sizes:
        """The sizes, checked."""
        p, names = self.param.detection_output_param, self.param.bottom
        locations, confidences, priors = bottoms[:3]
        fits = len(priors) >= 3 and priors[1] == 2
        self.check(fits, f"'{names[2]}' is {priors}, not (1, 2, priors * 4)")
        count, boxes = priors[2] // 4, 1 if p.share_location else p.num_classes
        for name, shape, each in zip(
            names, (locations, confidences), (4 * boxes, p.num_classes), strict=False
        ):
            has = product(shape[1:])
            told = f"'{name}' is {shape}: {has} numbers for each item, {count} priors need {count * each}"
            self.check(len(shape) >= 2 and has == count * each, told, CUT if has > count * each else "")
        told = f"'{names[0]}' is {locations}, '{names[1]}' is {confidences}: they differ in N"
        self.check(locations[0] == confidences[0], told)
        for i in range(3, 3 + self._first_stage(bottoms)):
            need = locations[0] * count * 2 * (i - 2)
            told = f"'{names[i]}' is {bottoms[i]}, {count} priors need {need} numbers"
            self.check(product(bottoms[i]) == need, told)
        return _Sizes(locations[0], count, p.num_classes, boxes)

    def _first_stage(self, bottoms: Sequence[Shape]) -> int:
        """How many of RefineDet's bottoms there are; SSD's fourth is an image."""
        image = len(bottoms) == 4 and product(bottoms[3][1:]) != bottoms[2][2] // 2
        return 0 if image else len(bottoms) - 3

    def reshape(self, bottoms: Sequence[Shape]) -> list[Shape]:
        self._sizes(bottoms)
        return [(1, 1, 1, 7)]

    def _code(self) -> str:
        """The name of the enum's value."""
        p = self.param.detection_output_param
        return str(p.DESCRIPTOR.fields_by_name["code_type"].enum_type.values_by_number[p.code_type].name)

    def _threshold(self) -> float:
        p = self.param.detection_output_param
        return p.confidence_threshold if p.HasField("confidence_threshold") else NONE

    def forward(self, bottoms: Sequence[Array]) -> list[Array]:
        p, sizes = self.param.detection_output_param, self._sizes([b.shape for b in bottoms])
        items, priors, classes, each = (fixed(n) for n in sizes)
        corners, variance = bottoms[2].reshape(-1)[: 8 * priors].reshape(2, priors, 1, 4)
        how = (None if p.variance_encoded_in_target else variance, self._code())
        scores = bottoms[1].reshape(items, priors, classes)
        stage = self._first_stage([b.shape for b in bottoms])
        if stage:
            scores = self._objects(scores, bottoms[3].reshape(items, priors, 2)[..., 1])
        if stage == 2:
            corners = decode(corners, *how, bottoms[4].reshape(items, priors, 1, 4))
        boxes = decode(corners, *how, bottoms[0].reshape(items, priors, each, 4))
        rows = [row for i in range(items) for row in self._item(i, boxes[i], scores[i])]
        if not rows:
            rows = [(i, *[-1] * 6) for i in range(items)]
        return [np.asarray(rows, np.float32).reshape(1, 1, -1, 7)]

    def _objects(self, scores: Array, objectness: Array) -> Array:
        """Background alone where the first stage saw no object."""
        background = np.zeros(scores.shape[2], np.float32)
        background[0] = 1
        seen = objectness >= np.float32(self.param.detection_output_param.objectness_score)
        return np.where(seen[..., None], scores, background)

    def _item(self, item: int, boxes: Array, scores: Array) -> list[tuple[float, ...]]:
        """Its rows, from boxes (priors, 1 or classes, 4) and scores (priors, classes)."""
        p, found = self.param.detection_output_param, []
        for label in range(p.num_classes):
            if label == p.background_label_id:
                continue
            own, score = boxes[:, min(label, boxes.shape[1] - 1)], scores[:, label]
            order = descending(score)
            order = order[score[order] > np.float32(self._threshold())]
            if p.nms_param.HasField("top_k") and p.nms_param.top_k > -1:
                order = order[: p.nms_param.top_k]
            kept = suppress(own, order, p.nms_param.nms_threshold, eta=p.nms_param.eta)
            found += [(item, label, score[k], *own[k]) for k in kept]
        if -1 < p.keep_top_k < len(found):
            best = descending(np.asarray([row[2] for row in found]))[: p.keep_top_k]
            found = [found[k] for k in sorted(best)]
        return found

    # --- ONNX

    def to_onnx(self, g: Builder, bottoms: Sequence[Value]) -> list[Value]:
        p, sizes = self.param.detection_output_param, self._sizes([b.shape for b in bottoms])
        if p.nms_param.eta < 1:
            problem = f"ONNX's NonMaxSuppression has no threshold that falls, as eta {p.nms_param.eta:g} says"
            self.unsupported(problem, CUT)
        sizes = sizes._replace(priors=fixed(sizes.priors))
        boxes = self._onnx_boxes(g, bottoms, sizes)
        kept = self._onnx_kept(g, boxes, self._onnx_scores(g, bottoms, sizes), sizes)
        top = g.op("Unsqueeze", self._onnx_rows(g, boxes, kept, sizes), g.ints([0, 1]))
        return [g.found(top, (1, 1, 1, 7), 2, f"{self.name}_detections")]

    def _onnx_boxes(self, g: Builder, bottoms: Sequence[Value], sizes: _Sizes) -> str:
        """(N, 1 or classes, priors, 4)."""
        n, priors, _, each = sizes
        halves = g.reshape(bottoms[2], (2, 1, priors, 4))
        corners, variance = g.op("Split", halves, g.ints([1, 1]), outputs=2, axis=0)
        told = self.param.detection_output_param.variance_encoded_in_target
        how = (None if told else variance, self._code())
        if self._first_stage([b.shape for b in bottoms]) == 2:
            corners = box_nodes.decode(g, corners, *how, g.reshape(bottoms[4], (n, 1, priors, 4)))
        if each == 1:
            moves = g.reshape(bottoms[0], (n, 1, priors, 4))
        else:
            moves = g.op("Transpose", g.reshape(bottoms[0], (n, priors, each, 4)), perm=[0, 2, 1, 3])
        return box_nodes.decode(g, corners, *how, moves)

    def _onnx_scores(self, g: Builder, bottoms: Sequence[Value], sizes: _Sizes) -> str:
        """(N, classes, priors), NONE for the background, and for all but the `top_k` best of a class."""
        p, (n, priors, classes, _) = self.param.detection_output_param, sizes
        scores = g.reshape(bottoms[1], (n, priors, classes))
        if self._first_stage([b.shape for b in bottoms]):
            objectness = g.op("Gather", g.reshape(bottoms[3], (n, priors, 2)), g.ints([1]), axis=2)
            seen = g.op("GreaterOrEqual", objectness, g.scalar(p.objectness_score))
            background = np.zeros((1, 1, classes), np.float32)
            background[..., 0] = 1
            scores = g.op("Where", seen, scores, g.array(background))
        scores = g.op("Transpose", scores, perm=[0, 2, 1])
        if 0 <= p.background_label_id < classes:
            background = np.zeros((1, classes, 1), np.bool_)
            background[0, p.background_label_id] = True
            scores = g.op("Where", g.array(background), g.scalar(NONE), scores)
        if p.nms_param.HasField("top_k") and -1 < p.nms_param.top_k < priors:
            values, index = g.op("TopK", scores, g.ints([p.nms_param.top_k]), outputs=2, axis=2)
            scores = g.op("ScatterElements", g.fill((n, classes, priors), NONE), index, values, axis=2)
        return scores

    def _onnx_kept(self, g: Builder, boxes: str, scores: str, sizes: _Sizes) -> str:
        """The scores of what is left, (N, classes * priors), and NONE elsewhere."""
        p, (n, priors, classes, each) = self.param.detection_output_param, sizes
        if self._code() != "CENTER_SIZE":
            boxes = box_nodes.upright(g, boxes)
        shape = (n * each, classes // each, priors)
        boxes, scores = g.reshape(boxes, (n * each, priors, 4)), g.reshape(scores, shape)
        threshold = p.nms_param.nms_threshold
        index = box_nodes.suppress(g, boxes, scores, fixed(priors), threshold, self._threshold())
        kept = g.op("ScatterND", g.fill(shape, NONE), index, g.op("GatherND", scores, index))
        return g.reshape(kept, (n, classes * priors))

    def _onnx_rows(self, g: Builder, boxes: str, kept: str, sizes: _Sizes) -> str:
        """(detections, 7): of each item the best, put in order of their classes."""
        n, priors, classes, each = sizes
        most = self.param.detection_output_param.keep_top_k
        k = classes * priors if most < 0 else min(most, classes * priors)
        scores, index = g.op("TopK", kept, g.ints([k]), outputs=2, axis=1)
        place = g.op("Add", g.op("Mul", g.op("Div", index, g.ints([priors])), g.ints([k])), g.ints(range(k)))
        _, order = g.op("TopK", place, g.ints([k]), outputs=2, axis=1, largest=0)
        scores, index = (g.op("GatherElements", x, order, axis=1) for x in (scores, index))
        label, prior = g.op("Div", index, g.ints([priors])), g.op("Mod", index, g.ints([priors]))
        item = g.reshape(box_nodes.numbers(g, n), (n, 1))
        start = g.op("Mul", item, g.ints([each * priors]))
        start = g.op("Add", start, g.op("Mul", label, g.ints([priors])) if each > 1 else prior)
        where = g.op("Add", start, prior) if each > 1 else start
        corners = g.op("Gather", g.reshape(boxes, (n * each * priors, 4)), where, axis=0)
        columns = [g.op("Expand", item, g.ints([n, k])), label, scores]
        columns = [x if x == scores else g.cast(x) for x in columns]
        rows = g.op("Concat", *(g.reshape(x, (n, k, 1)) for x in columns), corners, axis=2)
        found = g.reshape(g.op("Greater", scores, g.scalar(NONE)), (n * k,))
        # A row for each item if there is nothing else
        nothing = g.op("Less", g.reduce("ReduceSum", g.cast(found), [0]), g.scalar(0.5))
        blank = g.op("Concat", g.cast(item), g.fill((n, 6), -1), axis=1)
        rows = g.op("Concat", g.reshape(rows, (n * k, 7)), blank, axis=0)
        return g.op(
            "Compress", rows, g.op("Concat", found, g.op("Expand", nothing, g.ints([n])), axis=0), axis=0
        )
