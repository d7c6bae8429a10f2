"""LRN, MVN, Softmax, ArgMax, Accuracy against their formulas and against loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caffe_fcn.errors import LayerError
from tests.layer_nets import IMAGE, build, draw, run, to_session
from tests.reference_cases import assert_close

# --- LRN, MVN, Softmax


@given(
    size=st.sampled_from([1, 3, 5, 9]),
    shape=st.tuples(st.just(2), st.integers(1, 6), st.integers(1, 5), st.integers(1, 5)),
    within=st.booleans(),
)
@settings(max_examples=30, deadline=None)
def test_lrn_is_its_formula(size, shape, within):
    x = draw(*shape)
    region = "WITHIN_CHANNEL" if within else "ACROSS_CHANNELS"
    setting = f"local_size: {size} alpha: 0.5 beta: 0.6 k: 2 norm_region: {region}"
    half, wanted = size // 2, np.zeros(shape)
    for n, c, h, w in np.ndindex(*shape):
        if within:
            near = x[n, c, max(0, h - half) : h + half + 1, max(0, w - half) : w + half + 1]
            total = 1 + 0.5 / size**2 * np.sum(near.astype(np.float64) ** 2)
        else:
            total = 2 + 0.5 / size * np.sum(
                x[n, max(0, c - half) : c + half + 1, h, w].astype(np.float64) ** 2
            )
        wanted[n, c, h, w] = x[n, c, h, w] * total**-0.6
    assert_close(run(build(f'type: "LRN" lrn_param {{ {setting} }}', shape), x), wanted, setting)


def test_lrn_within_a_channel_sees_its_window():
    layer = build('type: "LRN" lrn_param { local_size: 7 norm_region: WITHIN_CHANNEL }', IMAGE).layer_dict[
        "layer"
    ]
    assert [(w.kernel, w.stride, w.pad) for w in layer.windows([IMAGE])] == [(7, 1, 3)] * 2
    assert build('type: "LRN"', IMAGE).layer_dict["layer"].windows([IMAGE]) == []


@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("divide", [False, True])
@pytest.mark.parametrize("shape", [IMAGE, (2, 6, 5), (3, 4), (3,)])
def test_mvn_is_its_formula_and_has_four_axes(across, divide, shape):
    x = draw(*shape)
    four = x.reshape(*shape, *(1,) * (4 - x.ndim)).astype(np.float64)
    axes = (1, 2, 3) if across else (2, 3)
    wanted = four - four.mean(axes, keepdims=True)
    if divide:
        wanted = wanted / (four.std(axes, keepdims=True) + 0.25)
    setting = f"across_channels: {across} normalize_variance: {divide} eps: 0.25".lower()
    for opset in (17, 18):
        got = run(build(f'type: "MVN" mvn_param {{ {setting} }}', shape), x, opset=opset)
    assert_close(got, wanted, setting)


@pytest.mark.parametrize("axis", [0, 1, 2, 3, -1, -4])
def test_softmax_sums_to_one_along_its_axis(axis):
    x = draw(*IMAGE) * 100
    got = run(build(f'type: "Softmax" softmax_param {{ axis: {axis} }}', IMAGE), x)
    assert_close(got.sum(axis), np.ones(got.sum(axis).shape), "sum")
    assert np.array_equal(got.argmax(axis), x.argmax(axis))


def test_softmax_of_an_empty_batch():
    assert run(build('type: "Softmax"', (0, 3, 2, 2)), np.zeros((0, 3, 2, 2), np.float32)).shape == (
        0,
        3,
        2,
        2,
    )


# --- ArgMax


def largest(row, k):
    """Caffe's order: the pairs (value, position), greatest first."""
    return sorted(((float(v), i) for i, v in enumerate(row)), reverse=True)[:k]


@given(
    data=st.data(), shape=st.lists(st.integers(1, 4), min_size=1, max_size=5).map(tuple), values=st.booleans()
)
@settings(max_examples=40, deadline=None)
def test_argmax_without_axis_searches_each_item(data, shape, values):
    x = np.asarray(
        data.draw(st.lists(st.integers(-1, 1), min_size=int(np.prod(shape)), max_size=int(np.prod(shape))))
    )
    x = x.reshape(shape).astype(np.float32)
    k = data.draw(st.integers(1, int(np.prod(shape[1:]))))
    got = run(
        build(f'type: "ArgMax" argmax_param {{ top_k: {k} out_max_val: {str(values).lower()} }}', shape), x
    )
    assert got.shape == (shape[0], 1 + values, k, *(1,) * (len(shape) - 3))
    for item, tops in zip(x.reshape(shape[0], -1), got.reshape(shape[0], 1 + values, k), strict=True):
        value, at = zip(*largest(item, k), strict=True)
        assert tops.tolist() == [list(at), list(value)][: 1 + values]


@given(
    data=st.data(), shape=st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple), values=st.booleans()
)
@settings(max_examples=40, deadline=None)
def test_argmax_along_an_axis(data, shape, values):
    x = np.random.default_rng(data.draw(st.integers(0, 99))).integers(0, 3, shape).astype(np.float32)
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    k = data.draw(st.integers(1, shape[axis]))
    setting = f"axis: {axis} top_k: {k} out_max_val: {str(values).lower()}"
    got = run(build(f'type: "ArgMax" argmax_param {{ {setting} }}', shape), x)
    rows, tops = (np.moveaxis(a, axis, -1).reshape(-1, a.shape[axis]) for a in (x, got))
    for row, top in zip(rows, tops, strict=True):
        assert top.tolist() == [pair[0 if values else 1] for pair in largest(row, k)]


def test_argmax_of_one_file_at_other_sizes():
    for setting, shape in (("axis: 1", (3, 1, 7, 2)), ("top_k: 3 out_max_val: true", (3, 2, 3))):
        net = build(f'type: "ArgMax" argmax_param {{ {setting} }}', IMAGE)
        session = to_session(net)
        x = np.random.default_rng(0).integers(0, 3, (3, 6, 7, 2)).astype(np.float32)
        assert run(net, x, session=session).shape[: len(shape)] == shape


# --- Accuracy


@given(
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple),
    seed=st.integers(0, 99),
    ignore=st.sampled_from([None, 0, 255]),
    data=st.data(),
)
@settings(max_examples=40, deadline=None)
def test_accuracy_counts_as_caffe_counts(shape, seed, ignore, data):
    rng = np.random.default_rng(seed)
    axis = data.draw(st.integers(0, len(shape) - 1))
    k = data.draw(st.integers(1, shape[axis]))
    scores = rng.integers(0, 3, shape).astype(np.float32)
    places = (*shape[:axis], *shape[axis + 1 :]) or (1,)
    labels = rng.integers(0, shape[axis], places).astype(np.float32)
    if ignore == 255:
        labels[rng.random(places) < 0.4] = 255
    rows = np.moveaxis(scores, axis, -1).reshape(-1, shape[axis])
    judged, right = np.zeros(shape[axis]), np.zeros(shape[axis])
    for row, label in zip(rows, labels.astype(int).ravel(), strict=True):
        if label != ignore:
            judged[label] += 1
            right[label] += np.sum(row >= row[label]) - 1 < k
    setting = f"axis: {axis} top_k: {k}" + (f" ignore_label: {ignore}" if ignore is not None else "")
    net = build(f'type: "Accuracy" top: "each" accuracy_param {{ {setting} }}', shape, places)
    got = run(net, scores, labels, opset=data.draw(st.sampled_from([17, 18])))
    assert_close(got["top"], np.asarray(right.sum() / max(judged.sum(), 1)), "accuracy")
    assert_close(got["each"], right / np.maximum(judged, 1), "of each class")


def test_accuracy_of_nothing_is_zero():
    net = build('type: "Accuracy" accuracy_param { ignore_label: 1 }', (2, 3), (2,))
    assert run(net, draw(2, 3), np.ones(2, np.float32)) == 0


def test_accuracy_of_one_file_at_other_sizes():
    net = build('type: "Accuracy" top: "each" accuracy_param { ignore_label: 255 }', IMAGE, (2, 1, 5, 4))
    labels = np.random.default_rng(0).integers(0, 6, (3, 1, 7, 2)).astype(np.float32)
    run(net, draw(3, 6, 7, 2), labels, session=to_session(net))


@pytest.mark.parametrize("label", [-1, 3, 255])
def test_a_label_that_is_no_class_is_named(label):
    net = build('type: "Accuracy"', (2, 3), (2,))
    with pytest.raises(LayerError, match=rf"label \[{label}\] is not one of 3 classes\n  .*ignore_label"):
        net.forward(a=draw(2, 3), b=np.asarray([0, label], np.float32))
