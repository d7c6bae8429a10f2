"""Losses: one number that says how far a prediction is from what it should be.

Semantics: loss_layer.cpp and the file of each type in src/caffe/layers. The top is the bare loss; its
`loss_weight` counts in the net's total only. Labels are floats, cut to whole numbers as a C++ cast does.
"""

from __future__ import annotations

from functools import cached_property

from caffe_fcn.layers.base import Array, Builder, Layer, Sequence, Shape, Size, Value, fixed, np, product
from caffe_fcn.numeric.softmax import softmax
from caffe_fcn.symbols import same

LOG_THRESHOLD = 1e-20  # kLOG_THRESHOLD in loss_layer.hpp
FLT_MIN = float(np.finfo(np.float32).tiny)


class _Loss(Layer, bottoms=2):
    """Bottoms: prediction (N, ...) and what it is held against (N, ...). Top: a scalar, of shape ()."""

    role = "loss"

    def reshape(self, bottoms: Sequence[Shape]) -> list[Shape]:
        prediction, target = bottoms[:2]
        alike = len(prediction) > 0 and len(target) > 0 and prediction[0] == target[0]
        self._agree(alike, bottoms, "their first extents differ")
        self._fit(bottoms)
        return [(), *[prediction] * (len(self.param.top) - 1)]

    def _fit(self, bottoms: Sequence[Shape]) -> None:
        """What a type demands of its bottoms beyond the first extent."""

    def _agree(self, ok: bool, bottoms: Sequence[Shape], problem: str, hint: str = "") -> None:
        told = ", ".join(
            f"'{name}' is {shape}" for name, shape in zip(self.param.bottom, bottoms, strict=True)
        )
        self.check(ok, f"{told}: {problem}", hint)

    def _indices(self, labels: Array, classes: int, ignored: int | None = None) -> Array:
        """Labels as whole numbers, checked."""
        with np.errstate(invalid="ignore"):
            index = labels.astype(np.int64)
        wrong = index[((index < 0) | (index >= classes)) & (index != ignored)]
        self.check(
            not wrong.size,
            f"label {wrong[0] if wrong.size else ''} is none of the {classes} classes, 0 to {classes - 1}",
            "give loss_param { ignore_label } if it marks what should not count, or more num_output",
        )
        return index


class _Normalized(_Loss):
    """A loss whose divisor and ignored label are told by `loss_param`."""

    def _mode(self) -> int:
        """Today's `normalization`, or what the legacy `normalize` means in its terms."""
        p = self.param.loss_param
        if p.HasField("normalization") or not p.HasField("normalize"):
            return p.normalization
        return p.VALID if p.normalize else p.BATCH_SIZE

    @property
    def _ignored(self) -> int | None:
        p = self.param.loss_param
        return p.ignore_label if p.HasField("ignore_label") else None

    def _divisor(self, outer: Size, inner: Size) -> Size | None:
        """What the sum is divided by, if it is at least 1; None: the number of labels that count."""
        p, mode = self.param.loss_param, self._mode()
        if mode == p.VALID and self._ignored is not None:
            return None
        return 1 if mode == p.NONE else outer if mode == p.BATCH_SIZE else outer * inner

    def _mean(self, losses: Array, outer: int, inner: int) -> Array:
        """From the losses that count."""
        divisor = self._divisor(outer, inner)
        return _scalar(losses, max(1, losses.size if divisor is None else fixed(divisor)))

    def _onnx_mean(self, g: Builder, losses: str, ignored: str, outer: Size, inner: Size) -> str:
        """From all losses, and a mask of those that do not count ('' if all do)."""
        divisor = self._divisor(outer, inner)
        if ignored:
            losses = g.op("Where", ignored, g.scalar(0), losses)
        if isinstance(divisor, int):
            count = g.scalar(max(1, divisor))
        else:
            count = (
                g.count(divisor)
                if divisor is not None
                else g.op("ReduceSum", g.cast(g.op("Not", ignored)), keepdims=0)
            )
            count = g.op("Max", count, g.scalar(1))
        return g.op("Div", g.op("ReduceSum", losses, keepdims=0), count)

    def _onnx_ignored(self, g: Builder, labels: str) -> str:
        """A mask of the labels (int64) that do not count, or ''."""
        return (
            ""
            if self._ignored is None
            else g.op("Equal", labels, g.array(np.asarray(self._ignored, np.int64)))
        )


class _Classified(_Normalized):
    """A loss of scores, whose axis `_axis` runs over the classes, and one label for each other position."""

    tops = range(1, 3)

    @property
    def _axis(self) -> int:
        return self.param.softmax_param.axis

    def _sides(self, scores: Shape) -> tuple[int, Size, Size, Size]:
        """The axis of the classes; how many positions are in front of it, classes, and positions behind."""
        axis = self.axis(self._axis, len(scores))
        return axis, product(scores[:axis]), scores[axis], product(scores[axis + 1 :])

    def _fit(self, bottoms: Sequence[Shape]) -> None:
        axis, outer, _, inner = self._sides(bottoms[0])
        problem = f"{outer * inner} labels are needed, one for each position beside axis {axis}, got"
        count = product(bottoms[1])
        self._agree(
            count == outer * inner, bottoms, f"{problem} {count}", "Crop or Interp brings maps to one size"
        )

    def _index(self, bottoms: Sequence[Array]) -> tuple[Array, Array, Array]:
        """For every label that counts: its position in front of the axis, the label, its position behind."""
        _, outer, classes, inner = (fixed(n) for n in self._sides(bottoms[0].shape))
        index = self._indices(bottoms[1], classes, self._ignored).reshape(outer, inner)
        front, behind = np.nonzero(index != self._ignored)
        return front, index[front, behind], behind

    def _onnx_index(self, g: Builder, labels: Value, shape: Shape) -> tuple[str, str]:
        """Labels as int64 in `shape`, 0 where they are ignored; and the mask of these, or ''."""
        index = g.cast(_in_shape(g, labels, shape), np.int64)
        ignored = self._onnx_ignored(g, index)
        return (
            g.op("Where", ignored, g.array(np.asarray(0, np.int64)), index) if ignored else index
        ), ignored


class SoftmaxWithLoss(_Classified):
    """Softmax over `softmax_param.axis`, then the mean of -log(probability of the label).

    Bottoms: scores (N, C, H, W), or any shape; labels, one for each score vector, such as (N, 1, H, W).
    Tops: the loss; a second is the probabilities (softmax_loss_layer.cpp).
    """

    def forward(self, bottoms: Sequence[Array]) -> list[Array]:
        axis, outer, classes, inner = (fixed(n) for n in self._sides(bottoms[0].shape))
        prob = softmax(bottoms[0], axis)
        front, label, behind = self._index(bottoms)
        losses = _negative_log(prob.reshape(outer, classes, inner)[front, label, behind], FLT_MIN)
        return [self._mean(losses, outer, inner), prob][: len(self.param.top)]

    def to_onnx(self, g: Builder, bottoms: Sequence[Value]) -> list[str]:
        scores, labels = bottoms
        axis, outer, _, inner = self._sides(scores.shape)
        prob = g.op("Softmax", scores, axis=axis)
        index, ignored = self._onnx_index(g, labels, (*scores.shape[:axis], 1, *scores.shape[axis + 1 :]))
        losses = _onnx_negative_log(g, g.op("GatherElements", prob, index, axis=axis), FLT_MIN)
        return [self._onnx_mean(g, losses, ignored, outer, inner), prob][: len(self.param.top)]


class InfogainLoss(_Classified, bottoms=range(2, 4)):
    """Softmax over `infogain_loss_param.axis`, then the mean of -sum(H[label] * log(probabilities)).

    Bottoms: scores (N, C, H, W), or any shape; labels, one for each score vector; the matrix H of C * C
    elements, unless `infogain_loss_param.source` names its file, which is read when it is first needed. Tops:
    the loss; a second is the probabilities (infogain_loss_layer.cpp).
    """

    def setup(self) -> None:
        p, inside = self.param, len(self.param.bottom) < 3
        self.check(not p.loss_param.HasField("normalize"), "normalize is not known here", "use normalization")
        named = p.infogain_loss_param.HasField("source")
        self.check(named or not inside, "the matrix is missing", "give its file as source, or a third bottom")

    @property
    def _axis(self) -> int:
        return self.param.infogain_loss_param.axis

    def _fit(self, bottoms: Sequence[Shape]) -> None:
        super()._fit(bottoms)
        classes = self._sides(bottoms[0])[2]
        for matrix in bottoms[2:]:
            fits = product(matrix) == classes * classes
            self._agree(fits, bottoms, f"a matrix of {classes} x {classes} is needed")

    @cached_property
    def _stored(self) -> Array:
        from caffe_fcn.formats.binaryproto import read_blob

        return np.asarray(read_blob(self.param.infogain_loss_param.source), np.float32)

    def _square(self, matrix: Array, classes: int) -> Array:
        self.check(
            matrix.size == classes**2, f"the matrix is {matrix.shape}, {classes} x {classes} is needed"
        )
        return matrix.reshape(classes, classes)

    def forward(self, bottoms: Sequence[Array]) -> list[Array]:
        axis, outer, classes, inner = (fixed(n) for n in self._sides(bottoms[0].shape))
        matrix = self._square(bottoms[2] if len(bottoms) > 2 else self._stored, classes)
        prob = softmax(bottoms[0], axis)
        front, label, behind = self._index(bottoms)
        losses = _negative_log(prob.reshape(outer, classes, inner)[front, :, behind], LOG_THRESHOLD)
        return [self._mean((matrix[label] * losses).sum(axis=1), outer, inner), prob][: len(self.param.top)]

    def to_onnx(self, g: Builder, bottoms: Sequence[Value]) -> list[str]:
        scores, labels = bottoms[:2]
        axis, outer, classes, inner = self._sides(scores.shape)
        classes = fixed(classes)
        if len(bottoms) > 2:
            matrix = _in_shape(g, bottoms[2], (classes, classes))
        else:
            matrix = g.array(self._square(self._stored, classes))
        prob = g.op("Softmax", scores, axis=axis)
        index, ignored = self._onnx_index(g, labels, (outer, inner))
        losses = _onnx_negative_log(g, g.reshape(prob, (outer, classes, inner)), LOG_THRESHOLD)
        weighed = g.op(
            "Mul", g.op("Gather", matrix, index, axis=0), g.op("Transpose", losses, perm=[0, 2, 1])
        )
        losses = g.op("ReduceSum", weighed, g.ints([2]), keepdims=0)
        return [self._onnx_mean(g, losses, ignored, outer, inner), prob][: len(self.param.top)]


class MultinomialLogisticLoss(_Loss):
    """The mean of -log(probability of the label).

    Bottoms: probabilities (N, C); labels (N). Top: the loss (multinomial_logistic_loss_layer.cpp).
    """

    def _fit(self, bottoms: Sequence[Shape]) -> None:
        self._agree(product(bottoms[1][1:]) == 1, bottoms, "one label for each item is needed")

    def forward(self, bottoms: Sequence[Array]) -> list[Array]:
        prob = _rows(bottoms[0])
        index = self._indices(bottoms[1], prob.shape[1]).reshape(-1)
        return [_scalar(_negative_log(prob[np.arange(len(prob)), index], LOG_THRESHOLD), len(prob))]

    def to_onnx(self, g: Builder, bottoms: Sequence[Value]) -> list[str]:
        prob, labels = bottoms
        n = prob.shape[0]
        index = g.cast(_in_shape(g, labels, (n, 1)), np.int64)
        picked = g.op("GatherElements", _in_shape(g, prob, (n, product(prob.shape[1:]))), index, axis=1)
        return [_onnx_scalar(g, _onnx_negative_log(g, picked, LOG_THRESHOLD), n)]


class SigmoidCrossEntropyLoss(_Normalized):
    """The sum of -(t * log(p) + (1 - t) * log(1 - p)), p the sigmoid of a score and t its target, over N.

    Bottoms: scores; targets from 0 to 1, as many. Top: the loss. Without `loss_param` the sum is divided by
    N, unlike in SoftmaxWithLoss (sigmoid_cross_entropy_loss_layer.cpp).
    """

    def _mode(self) -> int:
        p = self.param.loss_param
        return super()._mode() if p.HasField("normalization") or p.HasField("normalize") else p.BATCH_SIZE

    def _fit(self, bottoms: Sequence[Shape]) -> None:
        self._agree(
            product(bottoms[0]) == product(bottoms[1]), bottoms, "as many targets as scores are needed"
        )

    def forward(self, bottoms: Sequence[Array]) -> list[Array]:
        x, target = _rows(bottoms[0]), bottoms[1].reshape(_rows(bottoms[0]).shape)
        if self._ignored is not None:
            kept = target.astype(np.int64) != self._ignored
            x, target = x[kept], target[kept]
        losses = np.maximum(x, 0) - x * target + np.log1p(np.exp(-np.abs(x)))
        return [self._mean(losses, *_rows(bottoms[0]).shape)]

    def to_onnx(self, g: Builder, bottoms: Sequence[Value]) -> list[str]:
        x, target = str(bottoms[0]), _in_shape(g, bottoms[1], bottoms[0].shape)
        linear = g.op("Sub", g.op("Relu", x), g.op("Mul", x, target))
        losses = g.op("Add", linear, g.op("Softplus", g.op("Neg", g.op("Abs", x))))
        ignored = "" if self._ignored is None else self._onnx_ignored(g, g.cast(target, np.int64))
        shape = bottoms[0].shape
        return [self._onnx_mean(g, losses, ignored, shape[0], product(shape[1:]))]


class EuclideanLoss(_Loss):
    """Half the mean squared distance of items.

    Bottoms: two blobs of N items, of as many elements. Top: the loss (euclidean_loss_layer.cpp).
    """

    def _fit(self, bottoms: Sequence[Shape]) -> None:
        self._agree(product(bottoms[0]) == product(bottoms[1]), bottoms, "their items differ in size")

    def forward(self, bottoms: Sequence[Array]) -> list[Array]:
        difference = bottoms[0] - bottoms[1].reshape(bottoms[0].shape)
        return [_scalar(difference * difference, 2 * len(difference))]

    def to_onnx(self, g: Builder, bottoms: Sequence[Value]) -> list[str]:
        difference = g.op("Sub", bottoms[0], _in_shape(g, bottoms[1], bottoms[0].shape))
        return [_onnx_scalar(g, g.op("Mul", difference, difference), 2 * bottoms[0].shape[0])]


class HingeLoss(_Loss):
    """The sum of max(0, 1 - score) of the label and max(0, 1 + score) of the other classes, over N.

    Bottoms: scores (N, C); labels (N). Top: the loss; `norm: L2` squares each term (hinge_loss_layer.cpp).
    """

    def _fit(self, bottoms: Sequence[Shape]) -> None:
        self._agree(product(bottoms[1][1:]) == 1, bottoms, "one label for each item is needed")

    @property
    def _squared(self) -> bool:
        p = self.param.hinge_loss_param
        return p.norm == p.L2

    def forward(self, bottoms: Sequence[Array]) -> list[Array]:
        margins = _rows(bottoms[0]).copy()
        margins[np.arange(len(margins)), self._indices(bottoms[1], margins.shape[1]).reshape(-1)] *= -1
        terms = np.maximum(0, 1 + margins)
        return [_scalar(terms * terms if self._squared else terms, len(margins))]

    def to_onnx(self, g: Builder, bottoms: Sequence[Value]) -> list[str]:
        scores, labels = bottoms
        n, classes = scores.shape[0], product(scores.shape[1:])
        index = g.cast(_in_shape(g, labels, (n,)), np.int64)
        signs = g.op("OneHot", index, g.size(classes), g.array(np.asarray([1, -1], np.float32)))
        margins = g.op("Mul", _in_shape(g, scores, (n, classes)), signs)
        terms = g.op("Relu", g.op("Add", margins, g.count(1)))
        return [_onnx_scalar(g, g.op("Mul", terms, terms) if self._squared else terms, n)]


class ContrastiveLoss(_Loss, bottoms=3):
    """Half the mean of d**2 for pairs that are similar, of max(0, margin - d)**2 for those that are not.

    Bottoms: features (N, C) of each pair's two sides; (N), not 0 where they are similar. Top: the loss.
    d is their distance; `legacy_version` takes max(0, margin - d**2) instead (contrastive_loss_layer.cpp).
    """

    def _fit(self, bottoms: Sequence[Shape]) -> None:
        first, second, similar = bottoms
        flat = len(first) > 1 and len(second) > 1 and product(first[2:]) == product(second[2:]) == 1
        self._agree(flat and first[1] == second[1], bottoms, "(N, C), (N, C) and (N) are needed")
        self._agree(product(similar) == first[0], bottoms, "one number for each pair is needed")

    def forward(self, bottoms: Sequence[Array]) -> list[Array]:
        p = self.param.contrastive_loss_param
        difference = _rows(bottoms[0]) - _rows(bottoms[1])
        squared = (difference * difference).sum(axis=1)
        if p.legacy_version:
            apart = np.maximum(np.float32(p.margin) - squared, 0)
        else:
            apart = np.maximum(np.float32(p.margin) - np.sqrt(squared), 0) ** 2
        similar = bottoms[2].reshape(-1).astype(np.int64) != 0
        return [_scalar(np.where(similar, squared, apart), 2 * len(squared))]

    def to_onnx(self, g: Builder, bottoms: Sequence[Value]) -> list[str]:
        p, (n, channels) = self.param.contrastive_loss_param, bottoms[0].shape[:2]
        first, second = (_in_shape(g, bottom, (n, channels)) for bottom in bottoms[:2])
        difference = g.op("Sub", first, second)
        squared = g.op("ReduceSum", g.op("Mul", difference, difference), g.ints([1]), keepdims=0)
        distance = squared if p.legacy_version else g.op("Sqrt", squared)
        apart = g.op("Relu", g.op("Sub", g.scalar(p.margin), distance))
        if not p.legacy_version:
            apart = g.op("Mul", apart, apart)
        similar = g.cast(g.cast(_in_shape(g, bottoms[2], (n,)), np.int64), np.bool_)
        return [_onnx_scalar(g, g.op("Where", similar, squared, apart), 2 * n)]


def _rows(x: Array) -> Array:
    """(N, everything else)."""
    return x.reshape(len(x), int(product(x.shape[1:])))


def _negative_log(prob: Array, floor: float) -> Array:
    return -np.log(np.maximum(prob, np.float32(floor)))


def _onnx_negative_log(g: Builder, prob: str, floor: float) -> str:
    return g.op("Neg", g.op("Log", g.op("Max", prob, g.scalar(floor))))


def _scalar(terms: Array, divisor: int) -> Array:
    """Their sum over `divisor`, without axes."""
    with np.errstate(divide="ignore", invalid="ignore"):  # a batch of none gives 0/0 in Caffe too
        return np.asarray(terms.sum(dtype=np.float64) / np.float64(divisor), np.float32)


def _onnx_scalar(g: Builder, terms: str, divisor: Size) -> str:
    return g.op("Div", g.op("ReduceSum", terms, keepdims=0), g.count(divisor))


def _in_shape(g: Builder, value: Value, shape: Shape) -> str:
    """`value` in another shape; sizes that cannot vary apart from each other are fixed."""
    if len(value.shape) == len(shape) and all(same(a, b) for a, b in zip(value.shape, shape, strict=True)):
        return str(value)
    if not same(product(value.shape), product(shape)):
        for n in (*value.shape, *shape):
            fixed(n)
    return g.reshape(value, shape)
