"""RNN, LSTM and LSTMUnit against steps written out: what no case of real Caffe states."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caffe_fcn.errors import CaffeWarning, LayerError
from caffe_fcn.export.exporter import export
from caffe_fcn.formats.prototxt import read_net
from caffe_fcn.net import Net
from tests.layer_nets import build, draw, nodes, run, to_session
from tests.reference_cases import assert_close

UNITS = 4


def recurrent(kind: str, x, *, static=(), exposed=False, units=UNITS, setting="") -> Net:
    """A layer with random weights; bottoms x, cont, the static input, the state."""
    states = ((1, x[1], units),) * (2 if kind == "LSTM" else 1) if exposed else ()
    tops = " ".join(f'top: "top{i}"' for i in range(len(states)))
    setting = f"num_output: {units} expose_hidden: {str(exposed).lower()} {setting}"
    layer = f'type: "{kind}" {tops} recurrent_param {{ {setting} }}'
    net = build(layer, x, x[:2], *((static,) if static else ()), *states)
    for i, blob in enumerate(net.params["layer"]):
        blob.data[...] = draw(*blob.shape, seed=10 + i) / 4
    return net


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def expected(kind: str, weights, x, cont, static, h, c):
    """Each stream and step on its own, in float64."""
    weights = [w.astype(np.float64) for w in weights]
    w_x, bias, *weights = weights
    w_static = weights.pop(0) if static is not None else None
    w_h, *w_o = weights
    out, last = np.zeros((*x.shape[:2], h.shape[1])), []
    for n in range(x.shape[1]):
        hidden, cell = h[n].astype(float), c[n].astype(float)
        for t in range(x.shape[0]):
            gates = w_x @ x[t, n].ravel() + bias + w_h @ (cont[t, n] * hidden)
            if static is not None:
                gates += w_static @ static[n].ravel()
            if kind == "RNN":
                hidden = np.tanh(gates)
                out[t, n] = np.tanh(w_o[0] @ hidden + w_o[1])
            else:
                i, f, o, g = np.split(gates, 4)
                cell = cont[t, n] * sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
                out[t, n] = hidden = sigmoid(o) * np.tanh(cell)
        last.append((hidden, cell))
    return out, np.array([h for h, _ in last])[None], np.array([c for _, c in last])[None]


@given(
    kind=st.sampled_from(["RNN", "LSTM"]),
    time=st.integers(1, 4),
    streams=st.integers(1, 3),
    features=st.sampled_from([(3,), (2, 2), (1, 2, 1)]),
    static=st.sampled_from([(), (2,), (2, 2)]),
    exposed=st.booleans(),
    seed=st.integers(0, 9),
)
@settings(max_examples=40, deadline=None)
def test_every_stream_goes_its_own_way(kind, time, streams, features, static, exposed, seed):
    net = recurrent(kind, (time, streams, *features), static=static and (streams, *static), exposed=exposed)
    x = draw(time, streams, *features, seed=seed)
    cont = np.random.default_rng(seed).choice(np.float32([0, 1, 1, 0.5]), (time, streams))
    beside = draw(streams, *static, seed=seed + 1) if static else None
    state = [draw(1, streams, UNITS, seed=seed + 2 + i) for i in range(2)]
    if not exposed:
        cont[0] *= 0  # or Caffe would go on from the pass before
    given_state = state[: 2 if kind == "LSTM" else 1] if exposed else []
    got = run(net, x, cont, *([] if beside is None else [beside]), *given_state)
    start = [s[0] if exposed else np.zeros((streams, UNITS)) for s in state]
    weights = [blob.data for blob in net.params["layer"]]
    wanted = expected(kind, weights, x, cont, beside, *start)
    got = got if exposed else {"top": got}
    for name, value in zip(["top", "top0", "top1"][: len(got)], wanted, strict=False):
        assert_close(got[name], value, name)


def test_a_sequence_in_pieces_is_the_sequence():
    for kind in ("RNN", "LSTM"):
        whole = recurrent(kind, (6, 2, 3))
        parts = recurrent(kind, (2, 2, 3), exposed=True)
        x, cont = draw(6, 2, 3), np.float32([[0, 0], [1, 1], [1, 1], [1, 0], [1, 1], [1, 1]])
        state = [np.zeros((1, 2, UNITS), np.float32)] * (2 if kind == "LSTM" else 1)
        pieces = []
        for t in range(0, 6, 2):
            got = run(parts, x[t : t + 2], cont[t : t + 2], *state)
            pieces.append(got["top"])
            state = [got[f"top{i}"] for i in range(len(state))]
        assert_close(np.concatenate(pieces), run(whole, x, cont), kind)


def test_parameters_lie_in_caffes_order():
    def shapes(kind: str, **options) -> list[tuple[int, ...]]:
        return [blob.shape for blob in recurrent(kind, (3, 2, 5, 2), **options).params["layer"]]

    assert shapes("LSTM") == [(16, 10), (16,), (16, 4)]
    assert shapes("LSTM", static=(2, 7)) == [(16, 10), (16,), (16, 7), (16, 4)]
    assert shapes("RNN") == [(4, 10), (4,), (4, 4), (4, 4), (4,)]
    assert shapes("RNN", static=(2, 7), exposed=True) == [(4, 10), (4,), (4, 7), (4, 4), (4, 4), (4,)]


def test_fillers_start_the_weights():
    layer = """type: "RNN" recurrent_param {
      num_output: 2
      weight_filler { type: "constant" value: 3 } bias_filler { type: "constant" value: -1 } }"""
    net = build(layer, (1, 1, 2), (1, 1))
    assert [float(blob.data.flat[0]) for blob in net.params["layer"]] == [3, -1, 3, 3, -1]


def test_products_are_counted():
    layer = recurrent("LSTM", (3, 2, 5), static=(2, 7)).layer_dict["layer"]
    assert layer.macs([(3, 2, 5), (3, 2), (2, 7)], []) == 3 * 2 * (16 * 5 + 16 * 4) + 2 * 16 * 7
    layer = recurrent("RNN", (3, 2, 5)).layer_dict["layer"]
    assert layer.macs([(3, 2, 5), (3, 2)], []) == 3 * 2 * (4 * 5 + 4 * 4 + 4 * 4)


def test_a_pass_that_would_go_on_from_the_one_before_says_so(recwarn):
    net = recurrent("LSTM", (2, 1, 3))
    net.forward(a=draw(2, 1, 3), b=[[0], [1]])
    with pytest.warns(CaffeWarning, match="cont is not 0 at the first step"):
        net.forward(a=draw(2, 1, 3), b=[[1], [1]])


@pytest.mark.parametrize("kind", ["RNN", "LSTM"])
def test_a_step_takes_few_nodes(kind):
    lengths = [len(nodes(recurrent(kind, (time, 2, 3)))) for time in (4, 5)]
    assert lengths[1] - lengths[0] == {"RNN": 4, "LSTM": 13}[kind]


@pytest.mark.parametrize("kind", ["RNN", "LSTM"])
@pytest.mark.parametrize("opset", [18, 20])
def test_other_opsets(kind, opset):
    net = recurrent(kind, (3, 2, 3), static=(2, 2))
    cont = np.float32([[0, 0], [1, 0], [0, 1]])
    run(net, draw(3, 2, 3), cont, draw(2, 2), session=to_session(net, opset))


def test_a_unit_is_one_step():
    net = build('type: "LSTMUnit" top: "h"', (1, 2, 3), (1, 2, 12), (1, 2))
    c, gates, cont = draw(1, 2, 3), draw(1, 2, 12, seed=1), np.float32([[0, 1]])
    got = run(net, c, gates, cont)
    i, f, o, g = np.split(gates.astype(float), 4, -1)
    cell = cont[..., None] * sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    assert_close(got["top"], cell, "c")
    assert_close(got["h"], sigmoid(o) * np.tanh(cell), "h")
    assert np.isfinite(run(net, c, gates * 1e4, cont)["h"]).all()


def refused(layer: str, *bottoms, says: str) -> None:
    with pytest.raises(LayerError, match=re.escape(says)):
        build(layer, *bottoms)


def test_what_does_not_fit_is_told():
    lstm = 'type: "LSTM" recurrent_param { num_output: 4 }'
    exposed = 'type: "LSTM" top: "h" top: "c" recurrent_param { num_output: 4 expose_hidden: true }'
    refused(lstm, (3, 2), (3, 2), says="'a' is (3, 2): needs (T, N, ...)")
    refused(lstm, (0, 2, 3), (0, 2), says="T above 0")
    refused(lstm, (3, 2, 5), (3, 1), says="'b' is (3, 1): needs (T, N), (3, 2)")
    refused(lstm, (3, 2, 5), (3, 2), (3, 5), says="'c' is (3, 5): needs (N, ...), N = 2")
    refused(
        lstm,
        (3, 2, 5),
        (3, 2),
        (2, 5),
        (2, 5),
        says="without expose_hidden takes 2 bottoms or one more, got 4",
    )
    refused(exposed, (3, 2, 5), (3, 2), says="with expose_hidden takes 4 bottoms or one more, got 2")
    refused(
        exposed,
        (3, 2, 5),
        (3, 2),
        (1, 2, 4),
        (2, 2, 4),
        says="'d' is (2, 2, 4): the state it starts from needs (1, 2, 4)",
    )
    refused(
        exposed.replace('top: "h"', ""),
        *[(3, 2, 5), (3, 2), (1, 2, 4), (1, 2, 4)],
        says="makes 3 tops, got 2",
    )
    refused('type: "RNN"', (3, 2, 5), (3, 2), says="num_output 0 must be positive")
    unit = 'type: "LSTMUnit" top: "h"'
    refused(unit, (2, 2, 3), (2, 2, 12), (2, 2), says="'a' is (2, 2, 3): needs (1, N, D)")
    refused(unit, (1, 2, 3), (1, 2, 9), (1, 2), says="so 'b' needs (1, 2, 12), it is (1, 2, 9)")
    refused(unit, (1, 2, 3), (1, 2, 12), (1, 3), says="so 'c' needs (1, 2), it is (1, 3)")


@pytest.mark.parametrize("kind", ["LSTM", "RNN", "Lstm"])
def test_an_image_read_column_by_column_keeps_its_height(kind):
    """The weights take so many numbers a step, as a net that reads text has them from C and H."""
    settings_ = "lstm_param" if kind == "Lstm" else "recurrent_param"
    cont = "" if kind == "Lstm" else 'bottom: "cont"'
    net = Net(
        read_net(
            "net",
            text=f"""
            layer {{ name: "a" type: "Input" top: "a" input_param {{ shape {{ dim: [1, 2, 4, 6] }} }} }}
            layer {{ name: "p" type: "Permute" bottom: "a" top: "p" permute_param {{ order: [3, 0, 1, 2] }} }}
            layer {{ name: "cont" type: "ContinuationIndicator" top: "cont"
                    continuation_indicator_param {{ time_step: 6 batch_size: 1 }} }}
            layer {{ name: "top" type: "{kind}" bottom: "p" {cont} top: "top" {settings_} {{ num_output: 3
                    weight_filler {{ type: "xavier" }} }} }}""",
        )
    )
    exported = export(net, ["top"])
    assert "H" in exported.fixed
    x = draw(1, 2, 4, 6)
    assert_close(to_session(net).run({"a": x})["top"], net.forward(a=x)["top"], "top")
    with pytest.raises(LayerError, match=r"weights (take|of) 8"):
        net.infer({"a": (1, 2, 5, 6)})
