"""Layers of nets that read text: Lstm, ContinuationIndicator, CTCGreedyDecoder."""

from __future__ import annotations

import numpy as np
import pytest

from caffe_fcn.errors import LayerError
from caffe_fcn.formats.prototxt import read_net
from caffe_fcn.net import Net
from tests.layer_nets import build, draw, run, to_session
from tests.reference_cases import assert_close


@pytest.mark.parametrize("inner", [(3,), (2, 2)])
def test_lstm_of_ctpn(inner) -> None:
    """The loops of its lstm_layer.cu: every item with a state of its own, from zeros."""
    units, net = 4, build('type: "Lstm" lstm_param { num_output: 4 }', (5, 3, *inner))
    inputs = int(np.prod(inner))
    w_x, w_h, bias = (
        draw(*shape, seed=i) * np.float32(0.4) for i, shape in enumerate([(16, inputs), (16, units), (16,)])
    )
    for blob, array in zip(net.layer_dict["layer"].blobs, (w_x, w_h, bias), strict=True):
        assert blob.shape == array.shape
        blob.data[...] = array
    session = to_session(net)
    for time, items in ((5, 3), (1, 3), (7, 3)):
        x = draw(time, items, *inner, seed=time)
        expected = np.zeros((time, items, units))
        for n in range(items):
            h, c = np.zeros(units), np.zeros(units)
            for t in range(time):
                gates = w_x @ x[t, n].ravel() + w_h @ h + bias
                i, f, o = (1 / (1 + np.exp(-gates[k * units : (k + 1) * units])) for k in range(3))
                c = f * c + i * np.tanh(gates[3 * units :])
                expected[t, n] = h = o * np.tanh(c)
        assert_close(run(net, x, session=session), expected.astype(np.float32), "lstm")


def test_lstm_that_does_not_fit() -> None:
    with pytest.raises(LayerError, match="num_output 0 must be positive"):
        build('type: "Lstm"', (5, 3, 2))
    with pytest.raises(LayerError, match=r"needs at least 3 axes \(T, N, ...\), got \(5, 3\)"):
        build('type: "Lstm" lstm_param { num_output: 4 }', (5, 3))
    net = build('type: "Lstm" lstm_param { num_output: 4 }', (5, 3, 2))
    with pytest.raises(LayerError, match=r"has weights of 2 inputs, its bottom is \(5, 3, 4\)"):
        net.infer({"a": (5, 3, 4)})


def test_continuation_indicator() -> None:
    text = 'layer { name: "c" type: "ContinuationIndicator" top: "cont" continuation_indicator_param { %s } }'
    net = Net(read_net("net", text=text % "time_step: 3 batch_size: 2"))
    np.testing.assert_array_equal(net.forward()["cont"], [[0, 0], [1, 1], [1, 1]])
    np.testing.assert_array_equal(to_session(net).run({})["cont"], [[0, 0], [1, 1], [1, 1]])
    with pytest.raises(LayerError, match="batch_size 0 must be positive"):
        Net(read_net("net", text=text % "time_step: 3"))
    with pytest.raises(LayerError, match="time_step 0 must be positive"):
        Net(read_net("net", text=text % "batch_size: 3"))


def test_continuation_indicator_of_another_blobs_batch() -> None:
    told = "continuation_indicator_param { time_step: 4 axis: 0 }"
    net = build(f'type: "ContinuationIndicator" {told}', (2, 3))
    session = to_session(net)
    for batch in (2, 5):
        cont = run(net, draw(batch, 3), session=session)
        np.testing.assert_array_equal(cont, np.repeat([[0], [1], [1], [1]], batch, axis=1))


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("", [[1, 2, 2, 1, -1, -1, -1], [1, 2, 1, 2, 1, 2, 1]]),
        ("blank_index: -1", [[1, 0, 0, 1, -1, -1, -1], [1, 1, 1, 1, -1, -1, -1]]),
        ("ctc_merge_repeated: false", [[1, 1, 2, 2, 1, -1, -1], [1, 2, 1, 2, 1, 2, 1]]),
    ],
)
def test_ctc_greedy_decoder(told, expected) -> None:
    """By hand: the likeliest of 3 classes are 1 1 2 0 2 0 1 and 1 2 1 2 1 2 1."""
    labels = np.array([[1, 1, 2, 0, 2, 0, 1], [1, 2, 1, 2, 1, 2, 1]]).T
    x = np.eye(3, dtype=np.float32)[labels] + np.float32(0.25)
    net = build(f'type: "CTCGreedyDecoder" ctc_decoder_param {{ {told} }}', x.shape)
    np.testing.assert_array_equal(run(net, x)[..., 0, 0], expected)


def test_ctc_greedy_decoder_takes_steps_of_items() -> None:
    with pytest.raises(LayerError, match=r"needs 3 axes \(T, N, C\), C above 0, got \(3, 4\)"):
        build('type: "CTCGreedyDecoder"', (3, 4))
