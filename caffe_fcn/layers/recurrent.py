"""RNN, LSTM and LSTMUnit.

Semantics: src/caffe/layers/recurrent_layer.cpp, rnn_layer.cpp, lstm_layer.cpp, lstm_unit_layer.cpp. Caffe
unrolls the net over its T time steps; so does the lowering, for ONNX's own LSTM cannot begin a new sequence
in the middle.
"""

from __future__ import annotations

import warnings

from caffe_fcn.errors import CaffeWarning
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
from caffe_fcn.numeric.recurrent import lstm, lstm_unit, rnn


class _Recurrent(Layer):
    """What RNN and LSTM have in common.

    Bottoms: x (T, N, ...); cont (T, N), 0 where a sequence begins, which forgets the state before that step;
    with `expose_hidden` the state to start from, each blob (1, N, D); in front of it, if there is one bottom
    more, a static input (N, ...) that is added at every step. Tops: (T, N, D); with `expose_hidden` the last
    state. Without `expose_hidden` every pass starts from zeros, as Caffe's first does; its later ones go on
    from the last state where cont is not 0.
    """

    gates = 1  # rows of weights for each of the D = num_output units
    states: tuple[str, ...] = ("h",)

    def setup(self) -> None:
        p, bottoms, tops = self.param.recurrent_param, len(self.param.bottom), len(self.param.top)
        self.check(p.num_output > 0, f"num_output {p.num_output} must be positive")
        exposed = len(self.states) if p.expose_hidden else 0
        told = "with expose_hidden " if exposed else "without expose_hidden "
        self.check(
            bottoms in (2 + exposed, 3 + exposed),
            f"{told}takes {2 + exposed} bottoms or one more, got {bottoms}",
        )
        self.check(tops == 1 + exposed, f"{told}makes {1 + exposed} tops, got {tops}")
        self.exposed, self.static = exposed, bottoms == 3 + exposed

    @property
    def _units(self) -> int:
        return self.param.recurrent_param.num_output

    def parameters(self, bottoms: Sequence[Shape]) -> list[Parameter]:
        """Of x, of the static input, of the hidden state: the order in Caffe's unrolled net."""
        self._check(bottoms)
        p, rows = self.param.recurrent_param, self.gates * self._units
        blobs = [
            Parameter("W_x", (rows, product(bottoms[0][2:])), p.weight_filler),
            Parameter("b", (rows,), p.bias_filler),
        ]
        if self.static:
            blobs.append(Parameter("W_static", (rows, product(bottoms[2][1:])), p.weight_filler))
        return [*blobs, Parameter("W_h", (rows, self._units), p.weight_filler)]

    def _check(self, bottoms: Sequence[Shape]) -> None:
        x, cont = bottoms[:2]
        self.check(len(x) >= 3 and x[0] > 0, f"'{self.param.bottom[0]}' is {x}: needs (T, N, ...), T above 0")
        if self.blobs:
            inputs = self.blobs[0].shape[1]
            told = (
                f"'{self.param.bottom[0]}' is {x}: {product(x[2:])} numbers a step, the weights take {inputs}"
            )
            self.check(product(x[2:]) == inputs, told)
        self.check(cont == x[:2], f"'{self.param.bottom[1]}' is {cont}: needs (T, N), {x[:2]}")
        if self.static:
            fits = len(bottoms[2]) >= 2 and bottoms[2][0] == x[1]
            self.check(fits, f"'{self.param.bottom[2]}' is {bottoms[2]}: needs (N, ...), N = {x[1]}")
        for name, shape in zip(self.param.bottom[2 + self.static :], bottoms[2 + self.static :], strict=True):
            wanted = (1, x[1], self._units)
            self.check(shape == wanted, f"'{name}' is {shape}: the state it starts from needs {wanted}")

    def reshape(self, bottoms: Sequence[Shape]) -> list[Shape]:
        self._check(bottoms)
        time, streams = bottoms[0][:2]
        return [(time, streams, self._units), *[(1, streams, self._units)] * self.exposed]

    def _input(self, bottoms: Sequence[Array]) -> Array:
        """What x and the static input add at each step: (T, N, rows)."""
        x, (w_x, bias, *w_rest) = bottoms[0], self.weights
        added = x.reshape(-1, w_x.shape[1]) @ w_x.T + bias
        added = added.reshape(*x.shape[:2], -1)
        return added + bottoms[2].reshape(len(bottoms[2]), -1) @ w_rest[0].T if self.static else added

    def _start(self, bottoms: Sequence[Array]) -> list[Array]:
        """The state, (N, D) each."""
        if self.exposed:
            return [state[0] for state in bottoms[2 + self.static :]]
        if bottoms[1][:1].any():
            warnings.warn(
                f"{self.where}: layer '{self.name}' ({self.param.type}): cont is not 0 at the first step:"
                " Caffe goes on from the pass before, here every pass starts from zeros"
                " (expose_hidden hands the state on)",
                CaffeWarning,
                stacklevel=2,
            )
        return [np.zeros((bottoms[0].shape[1], self._units), np.float32)] * len(self.states)

    def _onnx_input(self, g: Builder, bottoms: Sequence[Value]) -> list[str]:
        """`_input`, and cut into time steps: (1, N, rows) each."""
        x, (w_x, bias) = bottoms[0], self.blobs[:2]
        added = g.op(
            "Add", g.op("MatMul", flat_steps(g, x), g.param(w_x, "W_x", w_x.data.T)), g.param(bias, "b")
        )
        if self.static:
            static, w = bottoms[2], self.blobs[2]
            rows = g.reshape(static, (fixed(static.shape[0]), product(static.shape[1:])))
            added = g.op("Add", added, g.op("MatMul", rows, g.param(w, "W_static", w.data.T)))
        return self._steps(g, added, fixed(x.shape[0]))

    def _onnx_cont(self, g: Builder, bottoms: Sequence[Value]) -> list[str]:
        """`cont` of each time step, (1, N, 1)."""
        cont = bottoms[1]
        return self._steps(g, g.reshape(cont, (*cont.shape, 1)), fixed(cont.shape[0]))

    @staticmethod
    def _steps(g: Builder, value: str, time: int) -> list[str]:
        return g.op("Split", value, g.ints([1] * time), outputs=time, axis=0) if time > 1 else [value]

    def _onnx_start(self, bottoms: Sequence[Value]) -> list[str]:
        """The state, (1, N, D) each; '' where it is zero."""
        for state in bottoms[2 + self.static :]:
            fixed(state.shape[0])
        return (
            [str(state) for state in bottoms[2 + self.static :]] if self.exposed else [""] * len(self.states)
        )

    def _onnx_hidden(self, g: Builder, added: str, h: str, cont: str, w: str) -> str:
        """What one step computes before its nonlinearity: `added` and W_h * (cont * h)."""
        return g.op("Add", added, g.op("MatMul", g.op("Mul", h, cont), w)) if h else added

    def macs(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> Size:
        matrices = [product(blob.shape) for blob in self.blobs if len(blob.shape) == 2]
        once = matrices.pop(1) if self.static else 0
        return product(bottoms[0][:2]) * sum(matrices) + bottoms[0][1] * once

    def sample(self, i: int, bottoms: Sequence[Shape], rng: np.random.Generator) -> Array | None:
        return rng.integers(0, 2, bottoms[1]) if i == 1 else rng.normal(0, 1, bottoms[i])


class RNN(_Recurrent, bottoms=range(2, 5), tops=range(1, 3)):
    """h_t = tanh(W_h h + W_x x_t + b), o_t = tanh(W_o h_t + b_o).

    Bottoms: x (T, N, ...); cont (T, N); a static input (N, ...) if there is one bottom more; with
    `expose_hidden` h (1, N, D). Tops: o (T, N, D); with `expose_hidden` the last h (1, N, D).
    """

    def parameters(self, bottoms: Sequence[Shape]) -> list[Parameter]:
        p = self.param.recurrent_param
        output = Parameter("W_o", (self._units, self._units), p.weight_filler)
        return [*super().parameters(bottoms), output, Parameter("b_o", (self._units,), p.bias_filler)]

    def forward(self, bottoms: Sequence[Array]) -> list[Array]:
        w_h, w_o, b_o = self.weights[-3:]
        h = rnn(self._input(bottoms), bottoms[1], w_h, *self._start(bottoms))
        return [np.tanh(h @ w_o.T + b_o), h[-1:]][: 1 + self.exposed]

    def to_onnx(self, g: Builder, bottoms: Sequence[Value]) -> list[str]:
        w_h, w_o, b_o = self.blobs[-3:]
        w, (h,) = g.param(w_h, "W_h", w_h.data.T), self._onnx_start(bottoms)
        hidden = []
        for added, cont in zip(self._onnx_input(g, bottoms), self._onnx_cont(g, bottoms), strict=True):
            h = g.op("Tanh", self._onnx_hidden(g, added, h, cont, w))
            hidden.append(h)
        output = g.op("MatMul", g.op("Concat", *hidden, axis=0), g.param(w_o, "W_o", w_o.data.T))
        return [g.op("Tanh", g.op("Add", output, g.param(b_o, "b_o"))), h][: 1 + self.exposed]


class LSTM(_Recurrent, bottoms=range(2, 6), tops=range(1, 4)):
    """Long short-term memory; its step is LSTMUnit's.

    Bottoms: x (T, N, ...); cont (T, N); a static input (N, ...) if there is one bottom more; with
    `expose_hidden` h and c (1, N, D). Tops: h (T, N, D); with `expose_hidden` the last h and c (1, N, D).
    """

    gates = 4
    states = ("h", "c")

    def forward(self, bottoms: Sequence[Array]) -> list[Array]:
        h, c = lstm(self._input(bottoms), bottoms[1], self.weights[-1], *self._start(bottoms))
        return [h, h[-1:], c[None]][: 1 + self.exposed]

    def to_onnx(self, g: Builder, bottoms: Sequence[Value]) -> list[str]:
        w_h = self.blobs[-1]
        w, (h, c) = g.param(w_h, "W_h", w_h.data.T), self._onnx_start(bottoms)
        hidden = []
        for added, cont in zip(self._onnx_input(g, bottoms), self._onnx_cont(g, bottoms), strict=True):
            c, h = _onnx_unit(g, c, self._onnx_hidden(g, added, h, cont, w), cont, self._units)
            hidden.append(h)
        return [g.op("Concat", *hidden, axis=0), h, c][: 1 + self.exposed]


class LSTMUnit(Layer, bottoms=3, tops=2):
    """One step of an LSTM: c' = cont * sigmoid(f) * c + sigmoid(i) * tanh(g), h' = sigmoid(o) * tanh(c').

    Bottoms: c (1, N, D); i, f, o, g side by side (1, N, 4 D); cont (1, N). Tops: c', h' (1, N, D).
    """

    def reshape(self, bottoms: Sequence[Shape]) -> list[Shape]:
        c, gates, cont = bottoms
        self.check(len(c) == 3 and c[0] == 1, f"'{self.param.bottom[0]}' is {c}: needs (1, N, D)")
        for name, shape, wanted in zip(
            self.param.bottom[1:], (gates, cont), ((*c[:2], 4 * c[2]), c[:2]), strict=True
        ):
            self.check(
                shape == wanted, f"'{self.param.bottom[0]}' is {c}, so '{name}' needs {wanted}, it is {shape}"
            )
        return [c, c]

    def forward(self, bottoms: Sequence[Array]) -> list[Array]:
        return list(lstm_unit(*bottoms))

    def to_onnx(self, g: Builder, bottoms: Sequence[Value]) -> list[str]:
        c, gates, cont = bottoms
        return list(_onnx_unit(g, str(c), str(gates), g.reshape(cont, (*cont.shape, 1)), fixed(c.shape[2])))

    def sample(self, i: int, bottoms: Sequence[Shape], rng: np.random.Generator) -> Array | None:
        return rng.integers(0, 2, bottoms[2]) if i == 2 else rng.normal(0, 1, bottoms[i])


def flat_steps(g: Builder, x: Value) -> str:
    """(T, N, ...) as (T, N, I)."""
    for size in x.shape[2:]:  # the weights are made for so many
        fixed(size)
    return str(x) if len(x.shape) == 3 else g.reshape(x, (*x.shape[:2], product(x.shape[2:])))


def _onnx_unit(g: Builder, c: str, gates: str, cont: str, units: int) -> tuple[str, str]:
    """LSTMUnit with cont (1, N, 1); a cell of '' is zero."""
    bounded, candidate = g.op("Split", gates, g.ints([3 * units, units]), outputs=2, axis=2)
    i, f, o = g.op("Split", g.op("Sigmoid", bounded), g.ints([units] * 3), outputs=3, axis=2)
    new = g.op("Mul", i, g.op("Tanh", candidate))
    if c:
        new = g.op("Add", new, g.op("Mul", g.op("Mul", f, cont), c))
    return new, g.op("Mul", o, g.op("Tanh", new))
