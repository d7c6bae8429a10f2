"""Accuracy. Semantics: src/caffe/layers/accuracy_layer.cpp."""

from __future__ import annotations

from caffe_fcn.layers.base import Array, Builder, Layer, Sequence, Shape, Value, fixed, np, product


class Accuracy(Layer, bottoms=2, tops=range(1, 3)):
    """The share of labels whose score is among the `top_k` best; elements equal to it count against it.

    Bottoms: scores, with one element a class along `axis`; labels, one for each place across the other axes.
    Tops: a scalar; optionally the share within each class, (classes). 0 where there is nothing to judge,
    `ignore_label` apart.
    """

    role = "metric"

    def _split(self, scores: Shape, labels: Shape) -> tuple[int, Shape]:
        """The axis of the classes, and the labels' shape with an axis of 1 in its place."""
        p = self.param.accuracy_param
        axis = self.axis(p.axis, len(scores))
        places = (*scores[:axis], 1, *scores[axis + 1 :])
        self.check(
            product(places) == product(labels),
            f"{product(labels)} labels for {product(places)} predictions",
            f"scores are {scores} with the classes along axis {axis}, labels {labels}",
        )
        self.check(p.top_k <= scores[axis], f"top_k {p.top_k} of {scores[axis]} classes")
        return axis, places

    def reshape(self, bottoms: Sequence[Shape]) -> list[Shape]:
        axis, _ = self._split(*bottoms)
        return [(), (bottoms[0][axis],)][: len(self.param.top)]

    def forward(self, bottoms: Sequence[Array]) -> list[Array]:
        (scores, labels), p = bottoms, self.param.accuracy_param
        axis, places = self._split(scores.shape, labels.shape)
        classes = scores.shape[axis]
        label = labels.astype(np.int64).reshape(places)
        judged = label != p.ignore_label if p.HasField("ignore_label") else np.ones(places, bool)
        wrong = label[judged & ((label < 0) | (label >= classes))]
        self.check(
            wrong.size == 0,
            f"label {wrong[:1]} is not one of {classes} classes",
            "name the label of what is not to be judged as accuracy_param { ignore_label: ... }",
        )
        label = np.where(judged, label, 0)
        as_good = scores >= np.take_along_axis(scores, label, axis)
        right = judged & (as_good.sum(axis, keepdims=True) <= p.top_k)
        totals = [np.bincount(label[which], minlength=classes) for which in (right, judged)]
        share = np.float32(totals[0].sum() / max(totals[1].sum(), 1))
        tops = [np.asarray(share), (totals[0] / np.maximum(totals[1], 1)).astype(np.float32)]
        return tops[: len(self.param.top)]

    def to_onnx(self, g: Builder, bottoms: Sequence[Value]) -> list[str]:
        (scores, labels), p = bottoms, self.param.accuracy_param
        axis, places = self._split(scores.shape, labels.shape)
        label = g.cast(g.reshape(labels, places), np.int64)
        judged = ""
        if p.HasField("ignore_label"):
            ignored = g.op("Equal", label, g.ints([p.ignore_label]))
            label = g.op("Where", ignored, g.ints([0]), label)
            judged = g.cast(g.op("Not", ignored))
        own = g.op("GatherElements", scores, label, axis=axis)
        as_good = g.reduce("ReduceSum", g.cast(g.op("GreaterOrEqual", scores, own)), [axis])
        right = g.cast(g.op("LessOrEqual", as_good, g.scalar(p.top_k)))
        if judged:
            right = g.op("Mul", right, judged)
        tops = [self._share(g, right, judged, range(len(places)))]
        if len(self.param.top) == 2:
            numbers = np.arange(fixed(scores.shape[axis])).reshape(-1, *(1,) * (len(places) - axis - 1))
            member = g.cast(g.op("Equal", label, g.array(numbers)))
            member = g.op("Mul", member, judged) if judged else member
            others = [i for i in range(len(places)) if i != axis]
            tops.append(self._share(g, g.op("Mul", member, right), member, others))
        return tops

    @staticmethod
    def _share(g: Builder, part: str, whole: str, axes: Sequence[int]) -> str:
        """The sum of `part` over the sum of `whole` (all of it if ""), and 0 over nothing."""
        if not whole:
            return g.reduce("ReduceMean", part, axes, keepdims=False)
        top, over = (g.reduce("ReduceSum", x, axes, keepdims=False) for x in (part, whole))
        return g.op("Div", top, g.op("Max", over, g.scalar(1)))

    def sample(self, i: int, bottoms: Sequence[Shape], rng: np.random.Generator) -> Array | None:
        axis = self.axis(self.param.accuracy_param.axis, len(bottoms[0]))
        return rng.integers(0, max(1, fixed(bottoms[0][axis])), bottoms[1]) if i == 1 else None
