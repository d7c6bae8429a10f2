"""Layers that keep the shape: what no case of real Caffe states."""

from __future__ import annotations

import itertools
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caffe_fcn import fillers
from caffe_fcn.errors import LayerError, UnsupportedError
from caffe_fcn.export.builder import Builder
from caffe_fcn.export.exporter import export
from caffe_fcn.export.graph import Value
from caffe_fcn.export.write import to_model
from caffe_fcn.net import TEST, TRAIN
from caffe_fcn.runtime import Session
from tests.layer_nets import IMAGE, build, draw, nodes, run, to_session
from tests.reference_cases import assert_close

# --- one element at a time

F64 = np.float64
NEURONS = {
    'type: "AbsVal"': np.abs,
    'type: "BNLL"': lambda x: np.log1p(np.exp(x)),
    'type: "Clip" clip_param { min: -0.5 max: 1 }': lambda x: np.clip(x, -0.5, 1),
    'type: "Dropout"': lambda x: x,
    'type: "ELU" elu_param { alpha: 0.3 }': lambda x: np.where(x > 0, x, 0.3 * (np.exp(x) - 1)),
    'type: "Exp"': np.exp,
    'type: "Exp" exp_param { base: 2 scale: 0.5 shift: 3 }': lambda x: 2 ** (0.5 * x + 3),
    'type: "Exp" exp_param { shift: -1 }': lambda x: np.exp(x - 1),
    'type: "Log" log_param { shift: 20 }': lambda x: np.log(x + 20),
    'type: "Log" log_param { base: 10 scale: 0.5 shift: 9 }': lambda x: np.log10(0.5 * x + 9),
    'type: "Power"': lambda x: x,
    'type: "Power" power_param { scale: 2 shift: 1 }': lambda x: 2 * x + 1,
    'type: "Power" power_param { power: 3 scale: 0.5 }': lambda x: (0.5 * x) ** 3,
    'type: "Power" power_param { power: -0.5 shift: 20 }': lambda x: (x + 20) ** -0.5,
    'type: "Power" power_param { power: 0 }': np.ones_like,
    'type: "Power" power_param { power: 2 scale: 0 shift: 3 }': lambda x: np.full_like(x, 9),
    'type: "PReLU" prelu_param { channel_shared: true }': lambda x: np.where(x > 0, x, 0.25 * x),
    'type: "ReLU"': lambda x: np.maximum(x, 0),
    'type: "ReLU" relu_param { negative_slope: 0.1 }': lambda x: np.where(x > 0, x, 0.1 * x),
    'type: "Sigmoid"': lambda x: 1 / (1 + np.exp(-x)),
    'type: "Swish" swish_param { beta: 1.5 }': lambda x: x / (1 + np.exp(-1.5 * x)),
    'type: "TanH"': np.tanh,
    'type: "Threshold" threshold_param { threshold: 0.5 }': lambda x: (x > 0.5).astype(F64),
}
RANKS = [(), (7,), (3, 4), (2, 3, 4), IMAGE, (2, 3, 2, 3, 2), (0, 3, 2, 2), (1, 1, 1, 1)]


@pytest.mark.parametrize("layer", NEURONS)
def test_a_neuron_is_its_formula_at_every_rank(layer):
    for shape in RANKS:
        if "PReLU" in layer and len(shape) < 2:
            continue
        x = draw(*shape, seed=zlib.crc32(layer.encode()))
        for opset in (17, 20) if len(shape) == 4 else (17,):
            got = run(build(layer, shape), x, opset=opset)
        assert_close(got, NEURONS[layer](x.astype(F64)), layer)


@pytest.mark.parametrize(
    ("layer", "ops"),
    [
        ('type: "Dropout"', ["Identity"]),
        ('type: "Power"', ["Identity"]),
        ('type: "Power" power_param { scale: 2 }', ["Mul"]),
        ('type: "Power" power_param { power: 2 }', ["Pow"]),
        ('type: "Exp"', ["Exp"]),
        ('type: "Log"', ["Log"]),
        ('type: "Swish"', ["Sigmoid", "Mul"]),
        ('type: "Softmax"', ["Softmax"]),
        ('type: "LRN"', ["LRN"]),
        ('type: "BatchNorm"', ["BatchNormalization"]),
        ('type: "Scale"', ["Mul"]),
        ('type: "Scale" scale_param { bias_term: true }', ["Mul", "Add"]),
        ('type: "MVN" mvn_param { normalize_variance: false }', ["ReduceMean", "Sub"]),
    ],
)
def test_no_node_too_many(layer, ops):
    assert nodes(build(layer, IMAGE)) == ops


def test_clip_gives_min_where_the_bounds_cross_or_nan_comes_in():
    x = np.asarray([-3, 0, 3, np.nan], np.float32)
    net = build('type: "Clip" clip_param { min: -1 max: 1 }', (4,))
    assert net.forward(a=x)["top"].tolist() == [-1, 0, 1, -1]
    assert run(build('type: "Clip" clip_param { min: 2 max: 1 }', (3,)), x[:3]).tolist() == [2, 2, 2]


def test_a_constant_power_lets_no_nan_through():
    net = build('type: "Power" power_param { power: 0 shift: -1 }', (2,))
    assert run(net, np.asarray([np.nan, np.inf], np.float32)).tolist() == [1, 1]


def test_large_values_do_not_overflow():
    x = np.asarray([-1e4, -200, 90, 1e4], np.float32)
    assert run(build('type: "BNLL"', (4,)), x).tolist() == [0, 0, 90, 1e4]
    assert run(build('type: "Sigmoid"', (4,)), x).tolist() == [0, 0, 1, 1]


def test_log_of_nothing_and_less_is_caffes():
    x = np.asarray([0, -1], np.float32)
    assert_close(run(build('type: "Log"', (2,)), x), np.asarray([-np.inf, np.nan], np.float32), "log")


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4), (2, 3, 4, 2), (2, 3, 2, 2, 2)])
def test_prelu_has_a_slope_for_each_channel(shape):
    net = build('type: "PReLU"', shape)
    slopes = np.asarray([0.5, -1, 0], np.float32)
    net.params["layer"][0].data[...] = slopes
    x = draw(*shape)
    each = slopes.reshape(3, *(1,) * (len(shape) - 2))
    assert_close(run(net, x), np.where(x > 0, x, each * x), "prelu")


def test_prelu_starts_at_a_quarter_or_at_its_filler():
    assert build('type: "PReLU"', IMAGE).params["layer"][0].data.tolist() == [0.25] * 6
    net = build('type: "PReLU" prelu_param { filler { value: 0.5 } channel_shared: true }', IMAGE)
    assert net.params["layer"][0].data.shape == ()
    assert net.params["layer"][0].data == 0.5


# --- Dropout

DROP = 'type: "Dropout" dropout_param { dropout_ratio: 0.25 %s }'


def test_dropout_scales_what_it_keeps_when_training():
    net = build(DROP % "", (400, 500), phase=TRAIN)
    fillers.seed(1)
    top = net.forward(a=np.ones((400, 500), np.float32))["top"].copy()
    assert set(np.unique(top)) == {0, np.float32(1 / 0.75)}
    assert abs(top.mean() - 1) < 0.01
    fillers.seed(1)
    assert np.array_equal(net.forward()["top"], top)


def test_dropout_of_forks_scales_in_test():
    assert run(build(DROP % "scale_train: false", (2,)), np.ones(2, np.float32)).tolist() == [0.75] * 2
    top = build(DROP % "scale_train: false", (100, 100), phase=TRAIN).forward(a=np.ones((100, 100)))["top"]
    assert set(np.unique(top)) == {0, 1}


def test_a_dropout_that_drops_has_no_onnx():
    with pytest.raises(UnsupportedError, match="drops elements at random in phase TRAIN\n  build the net in"):
        export(build(DROP % "", (2,), phase=TRAIN))


# --- Eltwise

ELTWISE = 'type: "Eltwise" eltwise_param { operation: %s }'


@given(st.lists(st.sampled_from([0.0, 1.0, -1.0, 0.5, -2.0]), min_size=2, max_size=5))
@settings(max_examples=25, deadline=None)
def test_a_sum_is_weighted(coefficients):
    arrays = [draw(3, 2, seed=i) for i in range(len(coefficients))]
    text = " ".join(f"coeff: {c}" for c in coefficients)
    got = run(build(ELTWISE % f"SUM {text}", *[(3, 2)] * len(arrays)), *arrays)
    assert_close(got, sum(c * a.astype(F64) for c, a in zip(coefficients, arrays, strict=True)), "sum")


@pytest.mark.parametrize("n", [2, 3, 5])
def test_product_sum_and_maximum_of_many(n):
    arrays = [draw(*IMAGE, seed=i) for i in range(n)]
    for operation, of in (("PROD", np.prod), ("SUM", np.sum), ("MAX", np.max)):
        got = run(build(ELTWISE % operation, *[IMAGE] * n), *arrays)
        assert_close(got, of(np.asarray(arrays, F64), axis=0), operation)


def test_a_coefficient_of_zero_leaves_out_even_nan():
    net = build(ELTWISE % "SUM coeff: 0 coeff: 2", (1,), (1,))
    assert run(net, np.asarray([np.nan], np.float32), np.ones(1, np.float32)).tolist() == [2]
    net = build(ELTWISE % "SUM coeff: 0 coeff: 0", (1,), (1,))
    assert run(net, np.asarray([np.nan], np.float32), np.ones(1, np.float32)).tolist() == [0]


def test_the_maximum_with_nan_is_caffes():
    a, b, c = (np.asarray(v, np.float32) for v in ([np.nan, 1, 1], [2, np.nan, 1], [0, 0, np.nan]))
    got = build(ELTWISE % "MAX", (3,), (3,), (3,)).forward(a=a, b=b, c=c)["top"]
    assert_close(got, np.asarray([2, np.nan, 1], np.float32), "max")


def test_a_difference_is_one_node():
    assert nodes(build(ELTWISE % "SUM coeff: 1 coeff: -1", IMAGE, IMAGE)) == ["Sub"]
    assert nodes(build(ELTWISE % "SUM", IMAGE, IMAGE)) == ["Add"]
    assert nodes(build(ELTWISE % "SUM", IMAGE, IMAGE, IMAGE)) == ["Sum"]


# --- Scale and Bias


def spread(x, operand, axis):
    """Caffe's loops: the operand's index is that of x along axis, axis + 1 ..."""
    full = np.zeros(x.shape)
    for i in np.ndindex(*x.shape):
        full[i] = operand[i[axis : axis + operand.ndim]]
    return full


@pytest.mark.parametrize("axis", [0, 1, 3, -1, -3])
@pytest.mark.parametrize("num_axes", [-1, 0, 1, 2])
def test_learned_operands_along_any_axes(axis, num_axes):
    first = axis % 4
    x = draw(*IMAGE)
    if first + num_axes > 4:
        with pytest.raises(
            LayerError, match=rf"axes {first} to {first + num_axes - 1} are not all in its bottom"
        ):
            build(f'type: "Scale" scale_param {{ axis: {axis} num_axes: {num_axes} }}', IMAGE)
        return
    shape = IMAGE[first:] if num_axes == -1 else IMAGE[first : first + num_axes]
    net = build(f'type: "Scale" scale_param {{ axis: {axis} num_axes: {num_axes} bias_term: true }}', IMAGE)
    scale, bias = net.params["layer"]
    assert scale.shape == bias.shape == shape
    assert np.all(scale.data == 1)
    assert np.all(bias.data == 0)
    scale.data[...], bias.data[...] = draw(*shape, seed=1), draw(*shape, seed=2)
    wanted = x * spread(x, scale.data, first)
    assert_close(run(net, x), wanted + spread(x, bias.data, first), "scale")
    net = build(
        f'type: "Bias" bias_param {{ axis: {axis} num_axes: {num_axes} filler {{ value: 3 }} }}', IMAGE
    )
    assert np.all(net.params["layer"][0].data == 3)
    net.params["layer"][0].data[...] = draw(*shape, seed=2)
    assert_close(run(net, x), x + spread(x, net.params["layer"][0].data, first), "bias")


@pytest.mark.parametrize(
    ("axis", "shape"), [(0, (2,)), (0, (2, 6)), (1, (6, 5)), (2, (5, 4)), (0, IMAGE), (3, ())]
)
def test_the_second_bottom_as_operand(axis, shape):
    x, operand = draw(*IMAGE), draw(*shape, seed=1)
    wanted = spread(x, operand, axis)
    got = run(build(f'type: "Scale" scale_param {{ axis: {axis} }}', IMAGE, shape), x, operand)
    assert_close(got, x * wanted, "scale")
    got = run(build(f'type: "Bias" bias_param {{ axis: {axis} }}', IMAGE, shape), x, operand)
    assert_close(got, x + wanted, "bias")
    net = build(f'type: "Scale" scale_param {{ axis: {axis} bias_term: true }}', IMAGE, shape)
    (bias,) = net.params["layer"]
    bias.data[...] = 5
    assert_close(run(net, x, operand), x * wanted + 5, "scale and bias")


def test_what_was_learned_for_one_size_keeps_that_size():
    net = build('type: "Scale" scale_param { axis: 2 num_axes: -1 }', IMAGE)
    assert export(net).fixed == {"H": "layer", "W": "layer"}
    net.blobs["a"].reshape(2, 6, 5, 3)
    with pytest.raises(
        LayerError, match=r"an operand of \(5, 4\) does not fit axes 2 to 3 of \(2, 6, 5, 3\)"
    ):
        net.reshape()


# --- for all of them

WRONG = {
    'type: "AbsVal" top: "a"': ([(2, 3)], "does not work in place"),
    'type: "Exp" exp_param { base: 0 }': ([(2, 3)], "base 0.0 must be positive, or -1 for e"),
    'type: "Log" log_param { base: -2 }': ([(2, 3)], "base -2.0 must be positive, or -1 for e"),
    'type: "Log" log_param { base: 1 }': ([(2, 3)], r"base 1.0: 1/log\(base\) is infinite"),
    'type: "Exp" exp_param { base: inf }': ([(2, 3)], r"log\(base\) = log\(inf\) = inf"),
    'type: "PReLU"': ([(3,)], r"needs at least 2 axes \(N, C\), got \(3,\)"),
    'type: "Dropout" dropout_param { dropout_ratio: 1 }': ([(3,)], r"dropout_ratio 1.0 is not in \[0, 1\)"),
    'type: "Eltwise" eltwise_param { coeff: 1 }': (
        [(3,), (3,)],
        "1 coeff for 2 bottoms\n  give one for each",
    ),
    'type: "Eltwise" eltwise_param { operation: PROD coeff: 1 coeff: 2 }': (
        [(3,), (3,)],
        "only SUM takes coeff",
    ),
    'type: "Eltwise"': ([(3,), (4,)], r"'a' is \(3,\), 'b' is \(4,\)"),
    'type: "Eltwise" eltwise_param { }': ([(3,)], "takes 2 or more bottoms, got 1"),
    'type: "Scale" scale_param { axis: 4 }': ([IMAGE], "axis 4 does not exist in a blob of 4 axes"),
    'type: "Scale" scale_param { num_axes: -2 }': ([IMAGE], "num_axes -2 is neither -1 nor a number of axes"),
    'type: "Scale"': ([IMAGE, (5,)], r"an operand of \(5,\) does not fit axes 1 to 1 of \(2, 6, 5, 4\)"),
    'type: "Bias" bias_param { axis: 3 }': (
        [IMAGE, (4, 2)],
        r"an operand of \(4, 2\) does not fit axes 3 to 4",
    ),
    'type: "BatchNorm"': ([(3,)], r"needs at least 2 axes \(N, C\), got \(3,\)"),
    'type: "LRN" lrn_param { local_size: 4 }': ([IMAGE], "local_size 4 is even"),
    'type: "LRN"': ([(2, 3)], r"needs 4 axes \(N, C, H, W\), got \(2, 3\)"),
    'type: "MVN"': ([(1, 2, 3, 4, 5)], r"takes at most 4 axes \(N, C, H, W\), got \(1, 2, 3, 4, 5\)"),
    'type: "Softmax"': ([(3,)], "axis 1 does not exist in a blob of 1 axes"),
    'type: "ArgMax" argmax_param { top_k: 0 }': ([IMAGE], "top_k 0 is less than 1"),
    'type: "ArgMax" argmax_param { top_k: 7 axis: 1 }': ([IMAGE], "top_k 7 of 6 elements"),
    'type: "ArgMax" argmax_param { top_k: 121 }': ([IMAGE], "top_k 121 of 120 elements"),
    'type: "ArgMax"': ([()], "its bottom has no axes"),
    'type: "Accuracy"': (
        [(2, 3), (3,)],
        r"3 labels for 2 predictions\n  scores are \(2, 3\) with the classes",
    ),
    'type: "Accuracy" accuracy_param { top_k: 4 }': ([(2, 3), (2,)], "top_k 4 of 3 classes"),
}


@pytest.mark.parametrize("layer", WRONG)
def test_what_cannot_be_is_refused_with_its_place(layer):
    shapes, message = WRONG[layer]
    with pytest.raises(LayerError, match=message) as caught:
        build(layer.replace('top: "a"', ""), *shapes, top="a" if 'top: "a"' in layer else "top")
    assert str(caught.value).startswith("net:")
    assert "layer 'layer' (" in str(caught.value)


@pytest.mark.parametrize(
    ("layer", "other"),
    [
        ('type: "PReLU"', r"has a slope for each of \(6,\) channels"),
        ('type: "BatchNorm"', "has statistics of 6 channels"),
    ],
)
def test_another_number_of_channels_is_noticed_when_the_net_is_reshaped(layer, other):
    net = build(layer, IMAGE)
    net.blobs["a"].reshape(2, 5, 5, 4)
    with pytest.raises(LayerError, match=other):
        net.reshape()


@pytest.mark.parametrize(
    "layer",
    [
        *NEURONS,
        'type: "Softmax"',
        'type: "LRN"',
        'type: "LRN" lrn_param { norm_region: WITHIN_CHANNEL }',
        'type: "MVN"',
        'type: "BatchNorm" batch_norm_param { use_global_stats: false }',
        'type: "Scale" scale_param { bias_term: true }',
        'type: "PReLU"',
    ],
)
def test_one_file_serves_all_sizes(layer):
    net = build(layer, IMAGE)
    assert export(net).fixed == {}
    session = to_session(net)
    for shape in ((1, 6, 1, 1), (3, 6, 2, 9)):
        run(net, draw(*shape) if "Log" not in layer else np.abs(draw(*shape)), session=session)


@pytest.mark.parametrize("phase", [TRAIN, TEST])
def test_in_place_is_the_same(phase):
    for layer, shape in itertools.product(NEURONS, [(2, 3, 4, 4)]):
        if "AbsVal" in layer or "Dropout" in layer:
            continue
        x = draw(*shape)
        apart, in_place = build(layer, shape, phase=phase), build(layer, shape, phase=phase, top="a")
        assert np.array_equal(apart.forward(a=x)["top"], in_place.forward(a=x)["a"], equal_nan=True), layer


@pytest.mark.parametrize("opset", [17, 18, 20])
@pytest.mark.parametrize("op", ["ReduceSum", "ReduceMean", "ReduceMax"])
def test_a_reduction_has_the_form_of_its_opset(opset, op):
    g = Builder("net", opset)
    x = g.input("x", (2, 3, 4))
    for keepdims, shape in ((True, (2, 1, 1)), (False, (2,))):
        g.graph.outputs.append(Value(g.reduce(op, x, (1, 2), keepdims), shape))
    a = draw(2, 3, 4)
    of = {"ReduceSum": np.sum, "ReduceMean": np.mean, "ReduceMax": np.max}[op]
    kept, dropped = Session(to_model(g.graph, opset).SerializeToString(), "cpu").run({"x": a}).values()
    assert_close(kept, of(a, (1, 2), keepdims=True), op)
    assert_close(dropped, of(a, (1, 2)), op)


def test_coordinates_pass_through():
    through = {name for name in build_all() if build_all()[name].coord_map() is not None}
    assert through == set(build_all()) - {"ArgMax of items", "ArgMax of columns"}


def build_all():
    texts = {layer: layer for layer in NEURONS}
    texts |= {t: f'type: "{t}"' for t in ("PReLU", "Scale", "Bias", "BatchNorm", "LRN", "MVN", "Softmax")}
    texts |= {"ArgMax of items": 'type: "ArgMax"', "ArgMax": 'type: "ArgMax" argmax_param { axis: 1 }'}
    texts |= {"ArgMax of columns": 'type: "ArgMax" argmax_param { axis: 3 }'}
    return {name: build(text, IMAGE).layer_dict["layer"] for name, text in texts.items()}
