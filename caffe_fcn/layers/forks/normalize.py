"""Normalize: vectors over the sum of their elements, of SSD and of caffe-windows."""

from __future__ import annotations

from caffe_fcn.layers.base import Array, Builder, Layer, Parameter, Sequence, Shape, Value, np

VECTOR_EPS = 1e-6


class Normalize(Layer, tops=range(1, 3)):
    """Divide by a norm over channels, and over all positions too if `across_spatial`.

    Bottom: (N, C, H, W), or fewer axes. Top: the same.

    SSD's has `norm_param`: the norm is L2, sqrt(sum of squares + `eps`), and a learned scale follows, one
    number if `channel_shared`, else one for each channel (normalize_layer.cpp of SSD).
    caffe-windows' has `normalize_param` and nothing learned: L2 or L1 at each position, and a second top that
    holds the norm (normalize_layer.cpp of caffe-windows). `variant` says which was taken.
    """

    fork = "SSD, caffe-windows"
    settings = "norm_param"

    def setup(self) -> None:
        p = self.param
        both = p.HasField("norm_param") and p.HasField("normalize_param")
        self.check(not both, "has norm_param, which is SSD's, and normalize_param, which is caffe-windows'")
        self.learned = not p.HasField("normalize_param")
        kind = p.normalize_param.normalize_type
        self.check(self.learned or kind in ("L1", "L2"), f'normalize_type "{kind}" is neither "L1" nor "L2"')
        self.check(not self.learned or len(p.top) == 1, f"makes 1 top, got {len(p.top)}")

    @property
    def variant(self) -> str:
        """Whose Normalize it is."""
        return "SSD's Normalize" if self.learned else "caffe-windows' Normalize"

    def parameters(self, bottoms: Sequence[Shape]) -> list[Parameter]:
        (bottom,), p = bottoms, self.param.norm_param
        self.check(2 <= len(bottom) <= 4, f"needs 2 to 4 axes (N, C, H, W), got {bottom}")
        if not self.learned:
            return []
        one = type(p.scale_filler)(type="constant", value=1)
        filler = p.scale_filler if p.HasField("scale_filler") else one
        return [Parameter("scale", () if p.channel_shared else (bottom[1],), filler)]

    def reshape(self, bottoms: Sequence[Shape]) -> list[Shape]:
        (bottom,) = bottoms
        if self.learned and self.blobs[0].shape:
            (channels,) = self.blobs[0].shape
            self.check(bottom[1] == channels, f"has scales of {channels} channels, its bottom is {bottom}")
        return [bottom, (bottom[0], 1, *bottom[2:])][: len(self.param.top)]

    def _axes(self, rank: int) -> list[int]:
        across = self.learned and self.param.norm_param.across_spatial
        return list(range(1, rank)) if across else [1]

    def _scale(self, rank: int) -> Array:
        return self.weights[0].reshape(self.weights[0].size, *(1,) * (rank - 2))

    def forward(self, bottoms: Sequence[Array]) -> list[Array]:
        (x,), p = bottoms, self.param
        axes = tuple(self._axes(x.ndim))
        if not self.learned and p.normalize_param.normalize_type == "L1":
            norm = np.abs(x).sum(axes, keepdims=True) + np.float32(VECTOR_EPS)
        else:
            eps = np.float32(p.norm_param.eps if self.learned else VECTOR_EPS)
            norm = np.sqrt(np.square(x).sum(axes, keepdims=True) + eps)
        top = x / norm
        return [top * self._scale(x.ndim) if self.learned else top, norm][: len(p.top)]

    def to_onnx(self, g: Builder, bottoms: Sequence[Value]) -> list[str]:
        (x,), p = bottoms, self.param
        axes = self._axes(len(x.shape))
        if not self.learned and p.normalize_param.normalize_type == "L1":
            norm = g.op("Add", g.reduce("ReduceSum", g.op("Abs", x), axes), g.scalar(VECTOR_EPS))
        else:
            eps = g.scalar(p.norm_param.eps if self.learned else VECTOR_EPS)
            norm = g.op("Sqrt", g.op("Add", g.reduce("ReduceSum", g.op("Mul", x, x), axes), eps))
        top = g.op("Div", x, norm)
        if self.learned:
            top = g.op("Mul", top, g.param(self.blobs[0], "scale", self._scale(len(x.shape))))
        return [top, norm][: len(p.top)]
