"""What nets that read text need: Lstm, ContinuationIndicator for stock LSTMs, CTCGreedyDecoder."""

from __future__ import annotations

from caffe_fcn.layers.base import (
    Array,
    Builder,
    Layer,
    Parameter,
    Sequence,
    Shape,
    Size,
    Value,
    fixed,
    np,
    product,
)
from caffe_fcn.layers.forks import box_nodes
from caffe_fcn.layers.recurrent import flat_steps
from caffe_fcn.numeric.recurrent import lstm

#: Where i, f, o, g of Caffe stand in ONNX: i, o, f, c.
ONNX_GATES = (0, 2, 1, 3)


class Lstm(Layer):
    """Long short-term memory over the first axis, from a state of zeros; its step is LSTMUnit's.

    Bottom: (T, N, ...). Top: (T, N, num_output). Blobs: weights of the bottom (4 D, I), of the state (4 D, D)
    and bias (4 D), each in the order i, f, o, g (lstm_layer.cu of CTPN; its lstm_layer.cpp adds the first
    item's state to every item). A second bottom, where sequences begin, is not known here.
    """

    fork = "WarpCTC-Caffe, CTPN"

    def setup(self) -> None:
        units = self.param.lstm_param.num_output
        self.check(units > 0, f"num_output {units} must be positive")

    def parameters(self, bottoms: Sequence[Shape]) -> list[Parameter]:
        (bottom,), p = bottoms, self.param.lstm_param
        self.check(len(bottom) >= 3, f"needs at least 3 axes (T, N, ...), got {bottom}")
        rows = 4 * p.num_output
        return [
            Parameter("W_x", (rows, product(bottom[2:])), p.weight_filler),
            Parameter("W_h", (rows, p.num_output), p.weight_filler),
            Parameter("b", (rows,), p.bias_filler),
        ]

    def reshape(self, bottoms: Sequence[Shape]) -> list[Shape]:
        (bottom,), inputs = bottoms, self.blobs[0].shape[1]
        fits = len(bottom) >= 3 and product(bottom[2:]) == inputs
        self.check(fits, f"has weights of {inputs} inputs, its bottom is {bottom}")
        return [(*bottom[:2], self.param.lstm_param.num_output)]

    def forward(self, bottoms: Sequence[Array]) -> list[Array]:
        (x,), (w_x, w_h, bias) = bottoms, self.weights
        time, items = x.shape[:2]
        added = (x.reshape(time * items, -1) @ w_x.T + bias).reshape(time, items, -1)
        zeros = np.zeros((items, w_h.shape[1]), np.float32)
        cont = np.ones((time, items), np.float32)
        return [lstm(added, cont, w_h, zeros, zeros)[0]]

    def to_onnx(self, g: Builder, bottoms: Sequence[Value]) -> list[str]:
        (x,), units = bottoms, self.param.lstm_param.num_output
        w_x, w_h, bias = (
            w.reshape(4, units, -1)[list(ONNX_GATES)].reshape(1, 4 * units, -1) for w in self.weights
        )
        both = np.concatenate([bias[..., 0], np.zeros_like(bias[..., 0])], axis=1)
        weights = (
            g.param(b, name, w)
            for b, name, w in zip(self.blobs, ("W_x", "W_h", "b"), (w_x, w_h, both), strict=True)
        )
        top = g.op("LSTM", flat_steps(g, x), *weights, hidden_size=units)  # (T, directions, N, D)
        return [g.reshape(top, self.reshape([x.shape])[0])]

    def macs(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> Size:
        return product(bottoms[0][:2]) * sum(product(b.shape) for b in self.blobs[:2])


class ContinuationIndicator(Layer, bottoms=range(2)):
    """What LSTM and RNN take as `cont` where every sequence begins at the first step: 0 there, then 1.

    Bottom: none, or any, of which the extent along `axis` is read in place of `batch_size`.
    Top: (`time_step`, batch) (continuation_indicator_layer.cpp of WarpCTC-Caffe; that of jolibrain's Caffe).
    """

    fork = "WarpCTC-Caffe, DeepDetect"
    shape_only = frozenset({0})

    def reshape(self, bottoms: Sequence[Shape]) -> list[Shape]:
        p = self.param.continuation_indicator_param
        batch = bottoms[0][self.axis(p.axis, len(bottoms[0]))] if bottoms else p.batch_size
        for name, value in (("time_step", p.time_step), ("batch_size", batch)):
            self.check(value > 0, f"{name} {value} must be positive")
        return [(p.time_step, batch)]

    def forward(self, bottoms: Sequence[Array]) -> list[Array]:
        values = np.ones([fixed(n) for n in self.reshape([b.shape for b in bottoms])[0]], np.float32)
        values[0] = 0
        return [values]

    def to_onnx(self, g: Builder, bottoms: Sequence[Value]) -> list[str]:
        ((time, batch),) = self.reshape([b.shape for b in bottoms])
        begin, on = g.fill((1, batch), 0), g.fill((time - 1, batch), 1)
        return [g.op("Concat", begin, on, axis=0)]


class CTCGreedyDecoder(Layer):
    """The likeliest class of each step, without blanks, and without what repeats the step before.

    Bottom: (T, N, C). Top: (N, T, 1, 1): of each item its classes, then -1. `blank_index` below 0 is the last
    class; with `ctc_merge_repeated: false` repetitions stay (ctc_decoder_layer.cpp of WarpCTC-Caffe).
    """

    fork = "WarpCTC-Caffe"
    decides = True

    def reshape(self, bottoms: Sequence[Shape]) -> list[Shape]:
        (bottom,) = bottoms
        self.check(len(bottom) == 3 and bottom[2] > 0, f"needs 3 axes (T, N, C), C above 0, got {bottom}")
        return [(bottom[1], bottom[0], 1, 1)]

    def _blank(self, classes: Size) -> int:
        blank: int = self.param.ctc_decoder_param.blank_index
        return blank if blank >= 0 else fixed(classes) - 1

    def forward(self, bottoms: Sequence[Array]) -> list[Array]:
        (x,) = bottoms
        likeliest = x.argmax(axis=2).T
        stays = likeliest != self._blank(x.shape[2])
        if self.param.ctc_decoder_param.ctc_merge_repeated:
            stays[:, 1:] &= likeliest[:, 1:] != likeliest[:, :-1]
        order = np.argsort(~stays, axis=1, kind="stable")
        found = np.take_along_axis(np.where(stays, likeliest, -1), order, axis=1)
        return [found.astype(np.float32)[..., None, None]]

    def to_onnx(self, g: Builder, bottoms: Sequence[Value]) -> list[str]:
        (x,) = bottoms
        time, items, classes = x.shape
        labels = g.op("ArgMax", g.op("Transpose", x, perm=[1, 0, 2]), axis=2, keepdims=0)
        stays = g.op("Not", g.op("Equal", labels, g.ints([self._blank(classes)])))
        if self.param.ctc_decoder_param.ctc_merge_repeated:
            ahead = g.op("Pad", labels, g.ints([0, 1, 0, 0]), g.array(np.asarray(-1, np.int64)))
            before = g.op("Slice", ahead, g.ints([0]), g.ints([-1]), g.ints([1]))
            stays = g.op("And", stays, g.op("Not", g.op("Equal", labels, before)))
        # What stays comes first, in the order of time
        place = g.op(
            "Add", box_nodes.numbers(g, time), g.op("Mul", g.cast(g.op("Not", stays), np.int64), g.size(time))
        )
        _, order = g.op("TopK", place, g.size(time), outputs=2, axis=1, largest=0)
        found = g.op("Where", stays, labels, g.ints([-1]))
        return [g.reshape(g.cast(g.op("GatherElements", found, order, axis=1)), (items, time, 1, 1))]
