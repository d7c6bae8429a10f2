"""Losses and metrics of forks: SmoothL1Loss, and those that only training needs."""

from __future__ import annotations

from caffe_fcn.layers.base import Array, Builder, Layer, Role, Sequence, Shape, Value, np
from caffe_fcn.layers.loss import _Loss

MANY = 1 << 31


class SmoothL1Loss(_Loss, bottoms=range(2, 5)):
    """The sum of x * x * s / 2 where |x| < 1 / s, of |x| - 1 / (2 * s) elsewhere, over N.

    s is `sigma` squared, x the weighed difference.
    Bottoms: prediction (N, ...); target; weights of their difference; weights of the terms; all alike.
    Top: the loss (smooth_L1_loss_layer.cpp of Fast R-CNN and SSD).
    """

    fork = "Fast R-CNN, SSD"

    def setup(self) -> None:
        sigma = self.param.smooth_l1_loss_param.sigma
        self.check(1e-9 < abs(sigma) < 1e9, f"sigma {sigma} must be positive")

    def _fit(self, bottoms: Sequence[Shape]) -> None:
        self._agree(all(b == bottoms[0] for b in bottoms), bottoms, "they differ")

    def forward(self, bottoms: Sequence[Array]) -> list[Array]:
        square = np.float32(self.param.smooth_l1_loss_param.sigma) ** 2
        x = bottoms[0] - bottoms[1]
        for inside in bottoms[2:3]:
            x = x * inside
        terms = np.where(np.abs(x) < 1 / square, x * x * square / 2, np.abs(x) - 1 / (2 * square))
        for outside in bottoms[3:]:
            terms = terms * outside
        with np.errstate(invalid="ignore"):
            return [np.asarray(terms.sum(dtype=np.float64) / np.float64(len(x)), np.float32)]

    def to_onnx(self, g: Builder, bottoms: Sequence[Value]) -> list[str]:
        square = self.param.smooth_l1_loss_param.sigma**2
        x = g.op("Sub", bottoms[0], bottoms[1])
        for inside in bottoms[2:3]:
            x = g.op("Mul", x, inside)
        size = g.op("Abs", x)
        small = g.op("Mul", g.op("Mul", x, x), g.scalar(square / 2))
        large = g.op("Sub", size, g.scalar(1 / (2 * square)))
        terms = g.op("Where", g.op("Less", size, g.scalar(1 / square)), small, large)
        for outside in bottoms[3:]:
            terms = g.op("Mul", terms, outside)
        return [g.op("Div", g.op("ReduceSum", terms, keepdims=0), g.count(bottoms[0].shape[0]))]


class _TrainingOnly(Layer, bottoms=range(1, MANY), tops=range(MANY)):
    """What a fork computes to learn or to be judged. Bottoms: any. Tops: scalars; they are not computed."""

    role: Role = "loss"
    no_onnx = "is there for training only; `caffe-fcn deploy` leaves it out"

    def reshape(self, bottoms: Sequence[Shape]) -> list[Shape]:
        return [()] * len(self.param.top)

    def forward(self, bottoms: Sequence[Array]) -> list[Array]:
        self.check(
            False, "is there for training only, and is not computed", "`caffe-fcn deploy` leaves it out"
        )
        return []


class MultiBoxLoss(_TrainingOnly):
    """SSD's loss of boxes and classes. Bottoms: locations; confidences; priors; truth. Top: the loss."""

    fork = "SSD"


class SmoothL1LossOHEM(_TrainingOnly):
    """R-FCN's loss of the hardest regions.

    Bottoms: prediction; target; weights. Tops: the loss; each region's.
    """

    fork = "R-FCN"


class SoftmaxWithLossOHEM(_TrainingOnly):
    """R-FCN's loss of the hardest regions.

    Bottoms: scores; labels. Tops: the loss; probabilities; each region's.
    """

    fork = "R-FCN"


class BoxAnnotatorOHEM(_TrainingOnly):
    """R-FCN's choice of the hardest regions.

    Bottoms: regions; their losses, labels, weights. Tops: labels; weights.
    """

    fork = "R-FCN"


class FrcnnAnchorTarget(_TrainingOnly):
    """What Faster R-CNN's anchors are to say.

    Bottoms: scores; truth; the image. Tops: labels; targets; weights.
    """

    fork = "makefile/frcnn"


class FrcnnProposalTarget(_TrainingOnly):
    """What Faster R-CNN's regions are to say.

    Bottoms: regions; truth. Tops: regions; labels; targets; weights.
    """

    fork = "makefile/frcnn"


class FocalLoss(_TrainingOnly):
    """RetinaNet's loss. Bottoms: scores; labels. Top: the loss."""

    fork = "caffe-windows, makefile/frcnn"


class CenterLoss(_TrainingOnly):
    """The distance of features from their class's centre. Bottoms: features; labels. Top: the loss."""

    fork = "caffe-windows"


class TripletLoss(_TrainingOnly):
    """How much nearer a feature lies to its own class. Bottoms: features. Top: the loss."""

    fork = "caffe-windows"


class RegionLoss(_TrainingOnly):
    """YOLO v2's loss. Bottoms: the map; truth. Top: the loss."""

    fork = "MobileNet-YOLO, Intel Caffe"


class Yolov3(_TrainingOnly):
    """YOLO v3's loss. Bottoms: the map; truth. Top: the loss."""

    fork = "MobileNet-YOLO"


class _JudgedOnly(_TrainingOnly):
    """A metric of a fork. Bottoms: any. Tops: scalars; they are not computed."""

    role: Role = "metric"


class SegAccuracy(_JudgedOnly):
    """DeepLab's accuracy of label images. Bottoms: scores; labels. Top: the metric."""

    fork = "DeepLab, PSPNet"


class MatWrite(_JudgedOnly):
    """Write blobs to .mat files, in DeepLab's tests. Bottoms: any. No tops."""

    fork = "DeepLab, PSPNet"


class DetectionEvaluate(_JudgedOnly):
    """SSD's comparison of boxes with the truth. Bottoms: detections; truth. Top: counts."""

    fork = "SSD"


class EvalDetection(_JudgedOnly):
    """YOLO's comparison of boxes with the truth. Bottoms: the map; truth. Top: counts."""

    fork = "Intel Caffe"
