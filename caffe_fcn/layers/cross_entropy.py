"""Losses of probabilities that are computed from scores, stably: softmax and sigmoid cross entropy.

Semantics: softmax_loss_layer.cpp, infogain_loss_layer.cpp, sigmoid_cross_entropy_loss_layer.cpp.
"""

from __future__ import annotations

from functools import cached_property

from caffe_fcn.layers.base import Array, Builder, Sequence, Shape, Size, Value, fixed, np, product
from caffe_fcn.layers.loss import LOG_THRESHOLD, _Loss, in_shape, mean, negative_log, onnx_negative_log, rows
from caffe_fcn.numeric.softmax import softmax

FLT_MIN = float(np.finfo(np.float32).tiny)


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
        return mean(losses, max(1, losses.size if divisor is None else fixed(divisor)))

    def _onnx_mean(self, g: Builder, losses: str, ignored: str, outer: Size, inner: Size) -> str:
        """From all losses, and a mask of those that do not count ('' if all do)."""
        divisor = self._divisor(outer, inner)
        if ignored:
            losses = g.op("Where", ignored, g.scalar(0), losses)
        if isinstance(divisor, int):
            return g.op("Div", g.op("ReduceSum", losses, keepdims=0), g.scalar(max(1, divisor)))
        if divisor is None:
            count = g.op("ReduceSum", g.cast(g.op("Not", ignored)), keepdims=0)
        else:
            count = g.count(divisor)
        return g.op("Div", g.op("ReduceSum", losses, keepdims=0), g.op("Max", count, g.scalar(1)))

    def _onnx_ignored(self, g: Builder, labels: str) -> str:
        """A mask of the labels (int64) that do not count, or ''."""
        if self._ignored is None:
            return ""
        return g.op("Equal", labels, g.array(np.asarray(self._ignored, np.int64)))


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
        index = g.cast(in_shape(g, labels, shape), np.int64)
        ignored = self._onnx_ignored(g, index)
        return (
            g.op("Where", ignored, g.array(np.asarray(0, np.int64)), index) if ignored else index
        ), ignored

    def sample(self, i: int, bottoms: Sequence[Shape], rng: np.random.Generator) -> Array | None:
        classes = fixed(bottoms[0][self.axis(self._axis, len(bottoms[0]))])
        return rng.integers(0, max(1, classes), bottoms[1]) if i == 1 else None


class SoftmaxWithLoss(_Classified):
    """Softmax over `softmax_param.axis`, then the mean of -log(probability of the label).

    Bottoms: scores (N, C, H, W), or any shape; labels, one for each score vector, such as (N, 1, H, W).
    Tops: the loss; a second is the probabilities (softmax_loss_layer.cpp).
    """

    def forward(self, bottoms: Sequence[Array]) -> list[Array]:
        axis, outer, classes, inner = (fixed(n) for n in self._sides(bottoms[0].shape))
        prob = softmax(bottoms[0], axis)
        front, label, behind = self._index(bottoms)
        losses = negative_log(prob.reshape(outer, classes, inner)[front, label, behind], FLT_MIN)
        return [self._mean(losses, outer, inner), prob][: len(self.param.top)]

    def to_onnx(self, g: Builder, bottoms: Sequence[Value]) -> list[str]:
        scores, labels = bottoms
        axis, outer, _, inner = self._sides(scores.shape)
        prob = g.op("Softmax", scores, axis=axis)
        index, ignored = self._onnx_index(g, labels, (*scores.shape[:axis], 1, *scores.shape[axis + 1 :]))
        losses = onnx_negative_log(g, g.op("GatherElements", prob, index, axis=axis), FLT_MIN)
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
        losses = negative_log(prob.reshape(outer, classes, inner)[front, :, behind], LOG_THRESHOLD)
        return [self._mean((matrix[label] * losses).sum(axis=1), outer, inner), prob][: len(self.param.top)]

    def to_onnx(self, g: Builder, bottoms: Sequence[Value]) -> list[str]:
        scores, labels = bottoms[:2]
        axis, outer, classes, inner = self._sides(scores.shape)
        classes = fixed(classes)
        if len(bottoms) > 2:
            matrix = in_shape(g, bottoms[2], (classes, classes))
        else:
            matrix = g.array(self._square(self._stored, classes))
        prob = g.op("Softmax", scores, axis=axis)
        index, ignored = self._onnx_index(g, labels, (outer, inner))
        losses = onnx_negative_log(g, g.reshape(prob, (outer, classes, inner)), LOG_THRESHOLD)
        weighed = g.op(
            "Mul", g.op("Gather", matrix, index, axis=0), g.op("Transpose", losses, perm=[0, 2, 1])
        )
        losses = g.op("ReduceSum", weighed, g.ints([2]), keepdims=0)
        return [self._onnx_mean(g, losses, ignored, outer, inner), prob][: len(self.param.top)]


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
        x, target = rows(bottoms[0]), bottoms[1].reshape(rows(bottoms[0]).shape)
        if self._ignored is not None:
            kept = target.astype(np.int64) != self._ignored
            x, target = x[kept], target[kept]
        losses = np.maximum(x, 0) - x * target + np.log1p(np.exp(-np.abs(x)))
        return [self._mean(losses, *rows(bottoms[0]).shape)]

    def to_onnx(self, g: Builder, bottoms: Sequence[Value]) -> list[str]:
        x, target = str(bottoms[0]), in_shape(g, bottoms[1], bottoms[0].shape)
        linear = g.op("Sub", g.op("Relu", x), g.op("Mul", x, target))
        losses = g.op("Add", linear, g.op("Softplus", g.op("Neg", g.op("Abs", x))))
        ignored = "" if self._ignored is None else self._onnx_ignored(g, g.cast(target, np.int64))
        shape = bottoms[0].shape
        return [self._onnx_mean(g, losses, ignored, shape[0], product(shape[1:]))]

    def sample(self, i: int, bottoms: Sequence[Shape], rng: np.random.Generator) -> Array | None:
        return rng.integers(0, 2, bottoms[1]) if i == 1 else None
