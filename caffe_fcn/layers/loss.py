"""Losses: one number that says how far a prediction is from what it should be.

Semantics: loss_layer.cpp and the file of each type in src/caffe/layers. The top is the bare loss; its
`loss_weight` counts in the net's total only. Labels are floats, cut to whole numbers as a C++ cast does.
"""

from __future__ import annotations

from caffe_fcn.layers.base import Array, Builder, Layer, Sequence, Shape, Size, Value, fixed, np, product
from caffe_fcn.symbols import same

LOG_THRESHOLD = 1e-20  # kLOG_THRESHOLD in loss_layer.hpp


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


class MultinomialLogisticLoss(_Loss):
    """The mean of -log(probability of the label).

    Bottoms: probabilities (N, C); labels (N). Top: the loss (multinomial_logistic_loss_layer.cpp).
    """

    def _fit(self, bottoms: Sequence[Shape]) -> None:
        self._agree(product(bottoms[1][1:]) == 1, bottoms, "one label for each item is needed")

    def forward(self, bottoms: Sequence[Array]) -> list[Array]:
        prob = rows(bottoms[0])
        index = self._indices(bottoms[1], prob.shape[1]).reshape(-1)
        return [mean(negative_log(prob[np.arange(len(prob)), index], LOG_THRESHOLD), len(prob))]

    def to_onnx(self, g: Builder, bottoms: Sequence[Value]) -> list[str]:
        prob, labels = bottoms
        n = prob.shape[0]
        index = g.cast(in_shape(g, labels, (n, 1)), np.int64)
        picked = g.op("GatherElements", in_shape(g, prob, (n, product(prob.shape[1:]))), index, axis=1)
        return [onnx_mean(g, onnx_negative_log(g, picked, LOG_THRESHOLD), n)]

    def sample(self, i: int, bottoms: Sequence[Shape], rng: np.random.Generator) -> Array | None:
        return _labels(bottoms, rng) if i == 1 else rng.random(bottoms[0])


class EuclideanLoss(_Loss):
    """Half the mean squared distance of items.

    Bottoms: two blobs of N items, of as many elements. Top: the loss (euclidean_loss_layer.cpp).
    """

    def _fit(self, bottoms: Sequence[Shape]) -> None:
        self._agree(product(bottoms[0]) == product(bottoms[1]), bottoms, "their items differ in size")

    def forward(self, bottoms: Sequence[Array]) -> list[Array]:
        difference = bottoms[0] - bottoms[1].reshape(bottoms[0].shape)
        return [mean(difference * difference, 2 * len(difference))]

    def to_onnx(self, g: Builder, bottoms: Sequence[Value]) -> list[str]:
        difference = g.op("Sub", bottoms[0], in_shape(g, bottoms[1], bottoms[0].shape))
        return [onnx_mean(g, g.op("Mul", difference, difference), 2 * bottoms[0].shape[0])]


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
        margins = rows(bottoms[0]).copy()
        margins[np.arange(len(margins)), self._indices(bottoms[1], margins.shape[1]).reshape(-1)] *= -1
        terms = np.maximum(0, 1 + margins)
        return [mean(terms * terms if self._squared else terms, len(margins))]

    def to_onnx(self, g: Builder, bottoms: Sequence[Value]) -> list[str]:
        scores, labels = bottoms
        n, classes = scores.shape[0], product(scores.shape[1:])
        index = g.cast(in_shape(g, labels, (n,)), np.int64)
        signs = g.op("OneHot", index, g.size(classes), g.array(np.asarray([1, -1], np.float32)))
        margins = g.op("Mul", in_shape(g, scores, (n, classes)), signs)
        terms = g.op("Relu", g.op("Add", margins, g.scalar(1)))
        return [onnx_mean(g, g.op("Mul", terms, terms) if self._squared else terms, n)]

    def sample(self, i: int, bottoms: Sequence[Shape], rng: np.random.Generator) -> Array | None:
        return _labels(bottoms, rng) if i == 1 else None


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
        difference = rows(bottoms[0]) - rows(bottoms[1])
        squared = (difference * difference).sum(axis=1)
        if p.legacy_version:
            apart = np.maximum(np.float32(p.margin) - squared, 0)
        else:
            apart = np.maximum(np.float32(p.margin) - np.sqrt(squared), 0) ** 2
        similar = bottoms[2].reshape(-1).astype(np.int64) != 0
        return [mean(np.where(similar, squared, apart), 2 * len(squared))]

    def to_onnx(self, g: Builder, bottoms: Sequence[Value]) -> list[str]:
        p, (n, channels) = self.param.contrastive_loss_param, bottoms[0].shape[:2]
        first, second = (in_shape(g, bottom, (n, channels)) for bottom in bottoms[:2])
        difference = g.op("Sub", first, second)
        squared = g.op("ReduceSum", g.op("Mul", difference, difference), g.ints([1]), keepdims=0)
        distance = squared if p.legacy_version else g.op("Sqrt", squared)
        apart = g.op("Relu", g.op("Sub", g.scalar(p.margin), distance))
        if not p.legacy_version:
            apart = g.op("Mul", apart, apart)
        # As an integer it is not 0; onnxruntime 1.20 takes two casts, the second to bool, for one.
        similar = g.op("Not", g.op("Less", g.op("Abs", in_shape(g, bottoms[2], (n,))), g.scalar(1)))
        return [onnx_mean(g, g.op("Where", similar, squared, apart), 2 * n)]

    def sample(self, i: int, bottoms: Sequence[Shape], rng: np.random.Generator) -> Array | None:
        return rng.integers(0, 2, bottoms[2]) if i == 2 else None


def _labels(bottoms: Sequence[Shape], rng: np.random.Generator) -> Array:
    """For each item one of its classes."""
    return rng.integers(0, max(1, fixed(product(bottoms[0][1:]))), bottoms[1])


def rows(x: Array) -> Array:
    """(N, everything else)."""
    return x.reshape(len(x), int(product(x.shape[1:])))


def negative_log(prob: Array, floor: float) -> Array:
    return -np.log(np.maximum(prob, np.float32(floor)))


def onnx_negative_log(g: Builder, prob: str, floor: float) -> str:
    return g.op("Neg", g.op("Log", g.op("Max", prob, g.scalar(floor))))


def mean(terms: Array, divisor: int) -> Array:
    """Their sum over `divisor`, without axes."""
    with np.errstate(divide="ignore", invalid="ignore"):  # a batch of none gives 0/0 in Caffe too
        return np.asarray(terms.sum(dtype=np.float64) / np.float64(divisor), np.float32)


def onnx_mean(g: Builder, terms: str, divisor: Size) -> str:
    return g.op("Div", g.op("ReduceSum", terms, keepdims=0), g.count(divisor))


def in_shape(g: Builder, value: Value, shape: Shape) -> str:
    """`value` in another shape; sizes that cannot vary apart from each other are fixed."""
    if len(value.shape) == len(shape) and all(same(a, b) for a, b in zip(value.shape, shape, strict=True)):
        return str(value)
    if not same(product(value.shape), product(shape)):
        for n in (*value.shape, *shape):
            fixed(n)
    return g.reshape(value, shape)
