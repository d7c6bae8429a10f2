"""ArgMax. Semantics: src/caffe/layers/argmax_layer.cpp."""

from __future__ import annotations

from caffe_fcn.layers.base import Array, Builder, CoordMap, Layer, Sequence, Shape, Size, Value, np, product


class ArgMax(Layer):
    """Positions of the `top_k` largest elements, largest first; of equal ones the last comes first.

    Bottom: any shape. With `axis`, top: the bottom's shape with `top_k` along it; positions along it, or with
    `out_max_val` the values. Without, each item is taken as one row, and the top is (N, 1, top_k), with 1s
    appended up to the bottom's number of axes; with out_max_val (N, 2, top_k): positions, then values.
    """

    pointwise = True  # along the channels; see coord_map
    decides = True

    def setup(self) -> None:
        p = self.param.argmax_param
        self.check(p.top_k >= 1, f"top_k {p.top_k} is less than 1")
        self.along = p.HasField("axis")

    def _row(self, bottom: Shape) -> tuple[int, Size]:
        """The axis to search along, after flattening if there is none, and how long it is."""
        p = self.param.argmax_param
        self.check(len(bottom) > 0, "its bottom has no axes")
        axis = self.axis(p.axis, len(bottom)) if self.along else 1
        size = bottom[axis] if self.along else product(bottom[1:])
        self.check(p.top_k <= size, f"top_k {p.top_k} of {size} elements")
        return axis, size

    def reshape(self, bottoms: Sequence[Shape]) -> list[Shape]:
        (bottom,), p = bottoms, self.param.argmax_param
        axis, _ = self._row(bottom)
        if self.along:
            return [(*bottom[:axis], p.top_k, *bottom[axis + 1 :])]
        return [(bottom[0], 2 if p.out_max_val else 1, p.top_k, *(1,) * (len(bottom) - 3))]

    def forward(self, bottoms: Sequence[Array]) -> list[Array]:
        (x,), p = bottoms, self.param.argmax_param
        axis, size = self._row(x.shape)
        shape = self.reshape([x.shape])[0]
        x = x if self.along else x.reshape(len(x), size)
        if p.top_k == 1:  # of equal ones np.argmax takes the first: search from behind
            at = size - 1 - np.expand_dims(np.flip(x, axis).argmax(axis), axis)
        else:
            at = np.flip(x.argsort(axis, kind="stable"), axis).take(range(p.top_k), axis)
        if not p.out_max_val:
            return [at.astype(np.float32).reshape(shape)]
        values = np.take_along_axis(x, at, axis)
        return [values if self.along else np.stack([at, values], 1).astype(np.float32).reshape(shape)]

    def to_onnx(self, g: Builder, bottoms: Sequence[Value]) -> list[str]:
        (x,), p = bottoms, self.param.argmax_param
        axis, size = self._row(x.shape)
        row = str(x) if self.along else g.op("Flatten", x, axis=1)
        # of equal ones ONNX takes the first: search from behind. onnxruntime has ArgMax's
        # select_last_index on the CPU alone, and would move all scores there and back
        backwards = [g.ints([n]) for n in (-1, np.iinfo(np.int64).min, axis, -1)]
        reversed_row = g.op("Slice", row, *backwards)
        if p.top_k == 1:
            values = g.reduce("ReduceMax", row, [axis]) if p.out_max_val else ""
            at = g.op("ArgMax", reversed_row, axis=axis, keepdims=1)
        else:
            values, at = g.op("TopK", reversed_row, g.ints([p.top_k]), outputs=2, axis=axis)
        at = g.op("Sub", g.size(size - 1), at)
        if self.along:
            return [values if p.out_max_val else g.cast(at)]
        behind = [1, *range(3, max(3, len(x.shape)))]
        parts = [g.op("Unsqueeze", part, g.ints(behind)) for part in (g.cast(at), values) if part]
        return [g.op("Concat", *parts, axis=1) if p.out_max_val else parts[0]]

    def coord_map(self) -> CoordMap | None:
        return super().coord_map() if self.along and self.param.argmax_param.axis == 1 else None
