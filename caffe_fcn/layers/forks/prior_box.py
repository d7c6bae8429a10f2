"""PriorBox. Semantics: src/caffe/layers/prior_box_layer.cpp of weiliu89/caffe, branch ssd, and its forks."""

from __future__ import annotations

import math

from caffe_fcn.layers.base import Around, Array, Builder, Layer, Sequence, Shape, Value, fixed, np
from caffe_fcn.numeric.boxes import prior_boxes, prior_sizes

SSD, TEXTBOXES, FACEBOXES = "", "TextBoxes", "FaceBoxes"
#: FaceBoxes: of the squares of these sizes so many a side stand in a cell, 8 and 16 pixels apart.
DENSE = {32: 4, 64: 2}


class PriorBox(Layer, bottoms=2):
    """The boxes that a detector starts from, around the centre of every cell of a map, and their variances.

    Bottoms: a map (N, C, H, W) and the image (N, C', H', W'), of which only the sizes are read.
    Top: (1, 2, 4 * H * W * priors): corners as shares of the image, then what predictions are multiplied by.
    At each cell: for every `min_size` a square, then one of sqrt(min_size * max_size), then a box of the
    min_size's area for each `aspect_ratio`, with `flip` also turned. Sizes are cut to whole pixels. `step`
    and `img_size` are taken from the bottoms where they are not given. With `denser_prior_boxes` each is
    followed by the same at the lower edge of the cell (prior_box_layer.cpp of TextBoxes++).
    That of TextBoxes does so unasked; that of FaceBoxes makes squares a pixel shorter, 16 of the min_size 32
    and 4 of 64. Which it is shows in the number of boxes that the net predicts.
    """

    fork = "SSD, TextBoxes, FaceBoxes"
    shape_only = frozenset({0, 1})

    def setup(self) -> None:
        p = self.param.prior_box_param
        self.kind = SSD
        beyond = sorted(self.fields.get("prior_box_param", {}))
        self.check(not beyond, f"prior_box_param of another fork: {', '.join(beyond)} is not known here")
        self.check(len(p.min_size) > 0, "min_size is missing")
        for name in ("min_size", "max_size", "variance", "aspect_ratio"):
            values = list(getattr(p, name))
            self.check(all(0 < v < math.inf for v in values), f"{name} {values} must be positive and finite")
        told = f"{len(p.max_size)} max_size for {len(p.min_size)} min_size"
        self.check(len(p.max_size) in (0, len(p.min_size)), told, "give one for each, or none")
        for low, high in zip(p.min_size, p.max_size, strict=False):
            self.check(high > low, f"max_size {high:g} must be greater than min_size {low:g}")
        self.check(len(p.variance) in (0, 1, 4), f"{len(p.variance)} variance, give 1 or 4")
        for plain in ("img", "step"):
            self._check_pair(plain)

    def _check_pair(self, plain: str) -> None:
        """A size is given once, or as height and width."""
        p, whole = self.param.prior_box_param, "img_size" if plain == "img" else plain
        h, w = f"{plain}_h", f"{plain}_w"
        self.check(
            p.HasField(h) == p.HasField(w) and not (p.HasField(h) and p.HasField(whole)),
            f"give either {whole}, or {h} and {w}",
        )
        for name in (whole, h, w):
            self.check(not p.HasField(name) or getattr(p, name) > 0, f"{name} must be positive")

    def _ratios(self) -> list[float]:
        """The aspect ratios beside 1, each once."""
        p = self.param.prior_box_param
        ratios = [1.0]
        for ratio in p.aspect_ratio:
            if all(abs(ratio - other) >= 1e-6 for other in ratios):
                ratios += [ratio, float(np.float32(1 / ratio))] if p.flip else [ratio]
        return ratios[1:]

    @property
    def variant(self) -> str:
        """Whose PriorBox it is, if not SSD's."""
        return self.kind and f"{self.kind}' PriorBox, with more boxes than SSD's"

    @property
    def _levels(self) -> int:
        """How many heights in a cell have boxes."""
        return 2 if self.kind == TEXTBOXES or self.param.prior_box_param.denser_prior_boxes else 1

    @property
    def unsettled(self) -> bool:
        return True

    def settle(self, around: Around) -> None:
        """Take it for the fork's whose number of boxes is predicted, if it is not SSD's.

        Beside it two Convolutions read the map, one for 4 numbers of each box, one for its classes.
        """
        params = around.params
        classes = {p.detection_output_param.num_classes for p in params if p.type == "DetectionOutput"}
        if len(classes) != 1:
            return
        splits = {top: p.bottom[0] for p in params if p.type == "Split" for top in p.top}
        read = splits.get(self.param.bottom[0], self.param.bottom[0])
        predicted = {
            p.convolution_param.num_output
            for p in params
            if p.type == "Convolution" and p.bottom and splits.get(p.bottom[0], p.bottom[0]) == read
        }
        (of,) = classes
        fits = [kind for kind, count in self.counts().items() if {4 * count, of * count} <= predicted]
        if fits:
            self.kind = fits[0]

    def counts(self) -> dict[str, int]:
        """How many boxes of a cell each fork would make."""
        plain, faces = len(self._cell(SSD)[0]), len(self._cell(FACEBOXES)[0])
        return {SSD: plain * self._levels, TEXTBOXES: plain * 2, FACEBOXES: faces}

    def _cell(self, kind: str) -> tuple[Array, Array]:
        """Of the boxes of a cell width and height, and x and y from its point: (n, 2) pixels."""
        p = self.param.prior_box_param
        sizes = prior_sizes(p.min_size, p.max_size, [r for r in self._ratios() if abs(r - 1) >= 1e-6])
        places = [np.zeros((1, 2), np.float32) for _ in sizes]
        if kind == FACEBOXES:
            each = len(sizes) // len(p.min_size)  # the first of each min_size is its square
            for i, low in enumerate(map(int, p.min_size)):
                sizes[i * each] -= 1
                side = DENSE.get(low, 1)
                y, x = np.mgrid[:side, :side] - side // 2
                places[i * each] = np.stack([x, y], axis=-1).reshape(-1, 2) * np.float32(32 / side)
        sizes = np.concatenate([np.tile(s, (len(p), 1)) for s, p in zip(sizes, places, strict=True)])
        return sizes, np.concatenate(places).astype(np.float32)

    def reshape(self, bottoms: Sequence[Shape]) -> list[Shape]:
        for name, shape in zip(self.param.bottom, bottoms, strict=True):
            self.check(len(shape) == 4, f"'{name}' is {shape}, not (N, C, H, W)")
        _, _, height, width = bottoms[0]
        return [(1, 2, height * width * self.counts()[self.kind] * 4)]

    def _boxes(self, bottoms: Sequence[Shape]) -> Array:
        """The top's values, which depend on sizes alone."""
        p = self.param.prior_box_param
        cells = (fixed(bottoms[0][2]), fixed(bottoms[0][3]))
        image = self._pair("img", "img_size") or (fixed(bottoms[1][2]), fixed(bottoms[1][3]))
        step = self._pair("step", "step") or (image[0] / cells[0], image[1] / cells[1])
        cell = self._cell(self.kind)
        boxes = prior_boxes(*cell, cells, image, step, (p.offset, p.offset))
        if self._levels > 1:
            lower = prior_boxes(*cell, cells, image, step, (1, p.offset))
            boxes = np.stack([boxes, lower], axis=1).reshape(-1, 4)
        if p.clip:
            boxes = boxes.clip(0, 1)
        variance = np.asarray(list(p.variance) or [0.1], np.float32)
        return np.stack([boxes, np.broadcast_to(variance, boxes.shape)]).reshape(1, 2, -1)

    def _pair(self, plain: str, whole: str) -> tuple[float, float] | None:
        p = self.param.prior_box_param
        if p.HasField(f"{plain}_h"):
            return getattr(p, f"{plain}_h"), getattr(p, f"{plain}_w")
        return (getattr(p, whole),) * 2 if p.HasField(whole) else None

    def forward(self, bottoms: Sequence[Array]) -> list[Array]:
        return [self._boxes([b.shape for b in bottoms])]

    def to_onnx(self, g: Builder, bottoms: Sequence[Value]) -> list[str]:
        return [g.array(self._boxes([b.shape for b in bottoms]))]
