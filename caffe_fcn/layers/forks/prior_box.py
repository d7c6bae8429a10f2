"""PriorBox of SSD. Semantics: src/caffe/layers/prior_box_layer.cpp of weiliu89/caffe, branch ssd."""

from __future__ import annotations

import math

from caffe_fcn.layers.base import Array, Builder, Layer, Sequence, Shape, Value, fixed, np
from caffe_fcn.numeric.boxes import prior_boxes, prior_sizes


class PriorBox(Layer, bottoms=2):
    """The boxes that a detector starts from, around the centre of every cell of a map, and their variances.

    Bottoms: a map (N, C, H, W) and the image (N, C', H', W'), of which only the sizes are read.
    Top: (1, 2, 4 * H * W * priors): corners as shares of the image, then what predictions are multiplied by.
    At each cell: for every `min_size` a square, then one of sqrt(min_size * max_size), then a box of the
    min_size's area for each `aspect_ratio`, with `flip` also turned. Sizes are cut to whole pixels. `step`
    and `img_size` are taken from the bottoms where they are not given.
    """

    fork = "SSD"
    shape_only = frozenset({0, 1})

    def setup(self) -> None:
        p = self.param.prior_box_param
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

    def _sizes(self) -> Array:
        p = self.param.prior_box_param
        return prior_sizes(p.min_size, p.max_size, [r for r in self._ratios() if abs(r - 1) >= 1e-6])

    def reshape(self, bottoms: Sequence[Shape]) -> list[Shape]:
        for name, shape in zip(self.param.bottom, bottoms, strict=True):
            self.check(len(shape) == 4, f"'{name}' is {shape}, not (N, C, H, W)")
        _, _, height, width = bottoms[0]
        return [(1, 2, height * width * len(self._sizes()) * 4)]

    def _boxes(self, bottoms: Sequence[Shape]) -> Array:
        """The top's values, which depend on sizes alone."""
        p = self.param.prior_box_param
        cells = (fixed(bottoms[0][2]), fixed(bottoms[0][3]))
        image = self._pair("img", "img_size") or (fixed(bottoms[1][2]), fixed(bottoms[1][3]))
        step = self._pair("step", "step") or (image[0] / cells[0], image[1] / cells[1])
        boxes = prior_boxes(self._sizes(), cells, image, step, p.offset)
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
