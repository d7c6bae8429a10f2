"""Layers that pick items out of a batch: Filter, BatchReindex."""

from __future__ import annotations

from caffe_fcn.layers.base import Array, Builder, Layer, Sequence, Shape, Value, fixed, np


class Filter(Layer, bottoms=range(2, 1 << 31), tops=range(1, 1 << 31)):
    """Keep the items of a batch whose selector is not 0 (filter_layer.cpp).

    Bottoms: blobs that begin with axis N; last the selector, (N) or (N, 1, ...). Tops: one for each blob,
    with as many items as were selected. How many these are depends on values: `reshape` says N, which is what
    Caffe says as well until the first forward pass.
    """

    def setup(self) -> None:
        blobs, tops = len(self.param.bottom) - 1, len(self.param.top)
        self.check(
            tops == blobs, f"{tops} tops for {blobs} blobs in front of the selector", "give one for each"
        )

    def reshape(self, bottoms: Sequence[Shape]) -> list[Shape]:
        *blobs, selector = bottoms
        self.check(
            len(selector) > 0 and all(n == 1 for n in selector[1:]), f"the selector is {selector}, not (N)"
        )
        for name, shape in zip(self.param.bottom, blobs, strict=False):
            fits = len(shape) > 0 and shape[0] == selector[0]
            self.check(fits, f"'{name}' is {shape}, the selector {selector}: they differ in axis 0")
        return list(blobs)

    def forward(self, bottoms: Sequence[Array]) -> list[Array]:
        *blobs, selector = bottoms
        chosen = selector.reshape(-1) != 0
        return [blob[chosen] for blob in blobs]

    def to_onnx(self, g: Builder, bottoms: Sequence[Value]) -> list[Value]:
        *blobs, selector = bottoms
        flat = g.reshape(selector, selector.shape[:1]) if len(selector.shape) > 1 else selector
        chosen = g.cast(flat, np.bool_)
        symbol = f"{self.name}_selected"
        return [g.found(g.op("Compress", blob, chosen, axis=0), blob.shape, 0, symbol) for blob in blobs]

    def sample(self, i: int, bottoms: Sequence[Shape], rng: np.random.Generator) -> Array | None:
        return rng.integers(0, 2, bottoms[i]) if i == len(bottoms) - 1 else None


class BatchReindex(Layer, bottoms=2):
    """Select items of a batch by index, in any order and number (batch_reindex_layer.cpp).

    Bottoms: (N, ...); indices below N, (M). Top: (M, ...).
    """

    def reshape(self, bottoms: Sequence[Shape]) -> list[Shape]:
        data, index = bottoms
        self.check(len(index) == 1, f"'{self.param.bottom[1]}' is {index}: indices have one axis")
        self.check(len(data) > 0, f"'{self.param.bottom[0]}' is {data}: it has no axis to select from")
        return [(index[0], *data[1:])]

    def forward(self, bottoms: Sequence[Array]) -> list[Array]:
        data, index = bottoms
        inside = (index >= 0) & (index < len(data))
        self.check(bool(inside.all()), f"index {index[~inside][:1]} is not inside a batch of {len(data)}")
        return [data[index.astype(np.int64)]]

    def to_onnx(self, g: Builder, bottoms: Sequence[Value]) -> list[str]:
        return [g.op("Gather", bottoms[0], g.cast(bottoms[1], np.int64), axis=0)]

    def sample(self, i: int, bottoms: Sequence[Shape], rng: np.random.Generator) -> Array | None:
        return rng.integers(0, fixed(bottoms[0][0]), bottoms[1]) if i == 1 else None
