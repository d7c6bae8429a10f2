"""Layers that move, pick and sum elements: what no case of real Caffe states."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from caffe_fcn.errors import CaffeWarning, LayerError, UnsupportedError
from caffe_fcn.export.exporter import export
from caffe_fcn.net import Net
from tests.layer_nets import IMAGE, build, dims, draw, nodes, run, to_session
from tests.reference_cases import assert_close

shapes = st.lists(st.integers(1, 4), min_size=1, max_size=5).map(tuple)
few = settings(max_examples=25, deadline=None)


def refused(layer: str, *bottoms, says: str, top: str = "top") -> None:
    with pytest.raises(LayerError, match=re.escape(says)):
        build(layer, *bottoms, top=top)


# --- Input, Parameter


def test_an_input_has_one_shape_for_all_tops_or_one_for_each():
    def shapes_of(settings: str) -> list[tuple[int, ...]]:
        net = Net(f'layer {{ name: "i" type: "Input" top: "a" top: "b" {settings} }}')
        return [net.blobs[name].shape for name in "ab"]

    assert shapes_of("input_param { shape { dim: 2 dim: 3 } }") == [(2, 3), (2, 3)]
    assert shapes_of("input_param { shape { dim: 2 } shape { dim: 3 dim: 0 } }") == [(2,), (3, 0)]
    assert shapes_of("") == [(), ()]
    with pytest.raises(LayerError, match="3 shapes for 2 tops"):
        shapes_of("input_param { shape { } shape { } shape { } }")


def test_a_parameter_is_not_changed_by_what_works_in_place_on_it():
    net = Net(
        'layer { name: "p" type: "Parameter" top: "p" parameter_param { shape { dim: 3 } } }'
        'layer { name: "r" type: "ReLU" bottom: "p" top: "p" }'
    )
    net.params["p"][0].data[...] = [-1, 0, 2]
    for _ in range(2):
        assert net.forward()["p"].tolist() == [0, 0, 2]
        assert net.params["p"][0].data.tolist() == [-1, 0, 2]
    assert to_session(net).run({})["p"].tolist() == [0, 0, 2]


# --- Concat, Slice


@given(shape=shapes, sizes=st.lists(st.integers(1, 3), min_size=1, max_size=4), data=st.data())
@few
def test_slice_undoes_concat(shape, sizes, data):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    positive = axis % len(shape)
    parts = [draw(*shape[:positive], n, *shape[positive + 1 :], seed=i) for i, n in enumerate(sizes)]
    whole = run(build(f'type: "Concat" concat_param {{ axis: {axis} }}', *(p.shape for p in parts)), *parts)
    assert np.array_equal(whole, np.concatenate(parts, axis))
    points = " ".join(f"slice_point: {n}" for n in np.cumsum(sizes)[:-1])
    tops = " ".join(f'top: "{i}"' for i in range(1, len(sizes)))
    assume(sum(sizes) >= len(sizes))
    cut = run(
        build(f'type: "Slice" {tops} slice_param {{ axis: {axis} {points} }}', whole.shape, top="0"), whole
    )
    cut = cut if isinstance(cut, dict) else {"0": cut}
    for i, part in enumerate(parts):
        assert np.array_equal(cut[str(i)], part)


def test_one_file_concatenates_and_slices_at_any_size():
    net = build('type: "Concat" concat_param { axis: 2 }', IMAGE, IMAGE)
    session = to_session(net)
    for n, h, w in ((2, 5, 4), (1, 1, 1), (3, 7, 2)):
        run(net, draw(n, 6, h, w), draw(n, 6, h + 1, w), session=session)
    net = build('type: "Slice" top: "end" slice_param { axis: 3 slice_point: 1 }', IMAGE)
    session = to_session(net)
    for n, h, w in ((2, 5, 4), (1, 1, 2), (3, 7, 9)):
        run(net, draw(n, 6, h, w), session=session)


def test_a_concat_of_one_and_a_slice_into_one_are_nothing():
    for layer in ('type: "Concat"', 'type: "Slice"'):
        net = build(layer, IMAGE)
        assert np.array_equal(run(net, draw(*IMAGE)), draw(*IMAGE))
        assert nodes(net) == ["Identity"]


def test_concat_and_slice_say_what_does_not_fit():
    refused(
        'type: "Concat"',
        (1, 2, 5),
        (1, 3, 4),
        says="'a' is (1, 2, 5), 'b' (1, 3, 4): not alike but for axis 1",
    )
    refused('type: "Concat"', (1, 2), (1, 2, 1), says="'a' is (1, 2), 'b' (1, 2, 1)")
    refused(
        'type: "Concat" concat_param { axis: 2 }', (1, 2), says="axis 2 does not exist in a blob of 2 axes"
    )
    refused('type: "Concat" concat_param { concat_dim: 2 }', (1, 2), says="concat_dim 2 does not exist")
    refused(
        'type: "Concat" concat_param { axis: 1 concat_dim: 1 }',
        (1, 2),
        says="give axis or concat_dim, not both",
    )
    refused('type: "Slice" top: "x"', (1, 3), says="axis 1 of (1, 3) does not divide into 2 tops")
    refused(
        'type: "Slice" top: "x" slice_param { slice_point: 1 slice_point: 2 }',
        (1, 3),
        says="2 slice_points for 2",
    )
    for point in (0, 4):
        refused(
            f'type: "Slice" top: "x" slice_param {{ slice_point: {point} }}',
            (1, 3),
            says=f"slice_points [{point}]",
        )
    refused(
        'type: "Slice" top: "x" slice_param { slice_dim: 1 axis: 1 }', (1, 4), says="give axis or slice_dim"
    )


# --- Split, Silence


def test_the_tops_of_a_split_are_the_bottom_itself():
    net = build('type: "Split" top: "other"', IMAGE)
    net.forward(a=draw(*IMAGE))
    for name in ("top", "other"):
        assert np.shares_memory(net.blobs["a"].data, net.blobs[name].data)
    refused('type: "Split"', IMAGE, top="a", says="does not work in place")


def test_silence_takes_outputs_away():
    net = Net(
        'layer { name: "i" type: "Input" top: "a" top: "b" input_param { shape { dim: 2 } } }'
        'layer { name: "s" type: "Silence" bottom: "a" }'
    )
    assert net.outputs == ["b"]
    assert list(net.forward(a=np.ones(2), b=np.ones(2))) == ["b"]


# --- Flatten, Reshape, Tile


@given(shape=shapes, data=st.data())
@few
def test_flatten_is_a_reshape(shape, data):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    end = data.draw(st.integers(axis % len(shape), len(shape) - 1))
    layer = f'type: "Flatten" flatten_param {{ axis: {axis} end_axis: {end - len(shape)} }}'
    start = axis % len(shape)
    wanted = (*shape[:start], int(np.prod(shape[start : end + 1])), *shape[end + 1 :])
    assert np.array_equal(run(build(layer, shape), draw(*shape)), draw(*shape).reshape(wanted))


def test_flatten_is_one_node_where_onnx_has_it():
    assert nodes(build('type: "Flatten"', IMAGE)) == ["Flatten"]
    refused(
        'type: "Flatten" flatten_param { axis: 2 end_axis: 0 }', IMAGE, says="axis 2 lies behind end_axis 0"
    )
    refused('type: "Flatten"', (3,), says="axis 1 does not exist")
    refused('type: "Flatten"', IMAGE, top="a", says="does not work in place")


RESHAPES = {
    "shape { dim: 0 dim: -1 }": (2, 120),
    "shape { dim: -1 dim: 0 dim: 2 }": (20, 6, 2),
    "shape { dim: 3 dim: 2 } axis: 1 num_axes: 1": (2, 3, 2, 5, 4),
    "shape { dim: -1 } axis: -1 num_axes: 0": (2, 6, 5, 4, 1),
    "shape { dim: 1 } num_axes: 0": (1, 2, 6, 5, 4),
    "shape { dim: 0 dim: 0 dim: 10 dim: 2 }": (2, 6, 10, 2),
    "shape { dim: 2 dim: 2 } axis: -2": (2, 6, 5, 2, 2),
    "shape { dim: -1 } axis: 2": (2, 6, 20),
    "shape { dim: -1 dim: 5 } axis: -3 num_axes: 1": (2, 6, 1, 5, 4),
    "shape { } axis: 1 num_axes: 0": IMAGE,
}


@pytest.mark.parametrize("setting", RESHAPES)
def test_reshape_replaces_axes(setting):
    net = build(f'type: "Reshape" reshape_param {{ {setting} }}', IMAGE)
    for opset in (17, 20):
        got = run(net, draw(*IMAGE), opset=opset)
        assert np.array_equal(got, draw(*IMAGE).reshape(RESHAPES[setting]))


@pytest.mark.parametrize("shape", ["dim: 0 dim: -1", "dim: 0 dim: 0 dim: -1", "dim: -1 dim: 3 dim: 0 dim: 0"])
def test_one_file_reshapes_any_size(shape):
    net = build(f'type: "Reshape" reshape_param {{ shape {{ {shape} }} }}', IMAGE)
    session = to_session(net)
    for n, h, w in ((2, 5, 4), (1, 1, 1), (3, 7, 2)):
        run(net, draw(n, 6, h, w), session=session)


def test_a_reshape_that_mixes_sizes_fixes_them():
    net = build('type: "Reshape" reshape_param { shape { dim: -1 dim: 10 } num_axes: 3 }', IMAGE)
    assert set(export(net).fixed) == {"N", "H", "W"}
    assert np.array_equal(run(net, draw(*IMAGE)), draw(*IMAGE).reshape(6, 10, 4))


def test_a_reshape_says_what_does_not_fit():
    def setting(text: str) -> str:
        return f'type: "Reshape" reshape_param {{ {text} }}'

    refused(setting("shape { dim: -1 dim: -1 }"), IMAGE, says="2 dims of its shape are -1")
    refused(
        setting("shape { dim: -1 dim: 7 }"), IMAGE, says="the 240 elements of (2, 6, 5, 4) do not divide by 7"
    )
    refused(setting("shape { dim: 9 }"), IMAGE, says="(2, 6, 5, 4) has 240 elements, (9,) would have 9")
    refused(setting("shape { dim: 1 dim: 0 } axis: 3"), IMAGE, says="(2, 6, 5, 4) has no axis 4")
    refused(setting("shape { dim: 1 } axis: 5"), IMAGE, says="axis 5 does not exist")
    refused(setting("shape { dim: 1 } axis: 3 num_axes: 2"), IMAGE, says="axis 3 + num_axes 2 > 4 axes")
    refused(setting("shape { dim: 1 } num_axes: -2"), IMAGE, says="num_axes -2")
    refused(setting("shape { dim: -1 dim: 0 }"), (2, 0), says="-1 is not defined")
    refused(setting("shape { dim: 6 }"), (2, 3), top="a", says="does not work in place")


@given(shape=shapes, tiles=st.integers(1, 3), data=st.data())
@few
def test_tile_repeats_along_its_axis(shape, tiles, data):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    got = run(build(f'type: "Tile" tile_param {{ axis: {axis} tiles: {tiles} }}', shape), draw(*shape))
    assert np.array_equal(got, np.concatenate([draw(*shape)] * tiles, axis))


def test_tile_needs_a_number():
    refused('type: "Tile"', IMAGE, says="tiles is missing")
    refused('type: "Tile" tile_param { tiles: 0 }', IMAGE, says="tiles 0 must be positive")


# --- Filter, BatchReindex

FILTER = 'type: "Filter" top: "second"'


def test_filter_keeps_what_is_selected_at_every_size():
    net = build(FILTER, (4, 3, 2), (4,), (4, 1, 1), top="first")
    session = to_session(net)
    for selector in ([1, 0, 0, -2], [0, 0, 0, 0], [1, 1, 1, 1, 0, 3], [0.5]):
        n = len(selector)
        fed = {"a": draw(n, 3, 2), "b": draw(n), "c": np.float32(selector).reshape(n, 1, 1)}
        for name, array in fed.items():
            net.blobs[name].reshape(*array.shape)
        kept = np.asarray(selector) != 0
        wanted = {"first": fed["a"][kept], "second": fed["b"][kept]}
        for got in (net.forward(**fed), session.run(fed)):
            for name, array in wanted.items():
                assert np.array_equal(got[name], array)


@pytest.mark.parametrize("static", [(), ("a", "b")])
def test_what_comes_behind_a_filter_has_the_size_it_leaves(static):
    net = Net(
        'layer { name: "a" type: "Input" top: "a" top: "b"'
        f"input_param {{ shape {{ {dims(IMAGE)} }} shape {{ dim: 2 }} }} }}"
        'layer { name: "keep some" type: "Filter" bottom: "a" bottom: "b" top: "c" }'
        'layer { name: "flat" type: "Flatten" bottom: "c" top: "d" flatten_param { axis: 0 end_axis: 1 } }'
    )
    graph = export(net, static=static).graph
    assert str(graph.outputs[0].shape[0]) == "6*keep some_selected"
    session = to_session(net)
    got = session.run({"a": draw(*IMAGE), "b": np.float32([0, 1])})["d"]
    assert np.array_equal(got, draw(*IMAGE)[1:].reshape(6, 5, 4))


def test_a_number_that_only_values_tell_is_refused():
    inputs = " ".join(f"shape {{ {dims(shape)} }}" for shape in ((6, 2, 3), (6, 2), (6,)))
    net = Net(
        f'layer {{ name: "i" type: "Input" top: "x" top: "cont" top: "s" input_param {{ {inputs} }} }}'
        'layer { name: "f" type: "Filter" bottom: "x" bottom: "cont" bottom: "s" top: "y" top: "z" }'
        'layer { name: "rnn" type: "RNN" bottom: "y" bottom: "z" top: "h" recurrent_param { num_output: 4 } }'
    )
    with pytest.raises(UnsupportedError, match=r"layer 'rnn' .*f_selected has to be fixed"):
        export(net)


def test_filter_says_what_does_not_fit():
    refused(FILTER, (4, 2), (4,), says="2 tops for 1 blobs in front of the selector")
    refused('type: "Filter"', (4, 2), (5,), says="'a' is (4, 2), the selector (5,)")
    refused('type: "Filter"', (4, 2), (4, 2), says="the selector is (4, 2), not (N)")


def test_batch_reindex_takes_items_in_any_order():
    net = build('type: "BatchReindex"', (4, 3, 2), (6,))
    session = to_session(net)
    for n, index in ((4, [3, 3, 0, 1, 2, 0]), (2, [1]), (1, [])):
        got = run(net, draw(n, 3, 2), np.float32(index), session=session)
        assert np.array_equal(got, draw(n, 3, 2)[np.asarray(index, int)])


@pytest.mark.parametrize("index", [-1, 4, np.nan])
def test_an_index_outside_the_batch_is_refused(index):
    net = build('type: "BatchReindex"', (4, 3), (2,))
    with pytest.raises(LayerError, match="not inside a batch of 4"):
        net.forward(a=draw(4, 3), b=[0, index])
    refused('type: "BatchReindex"', (4, 3), (2, 1), says="'b' is (2, 1): indices have one axis")


# --- Reduction

REDUCTIONS = {
    "SUM": np.sum,
    "ASUM": lambda x, axes: np.abs(x).sum(axes),
    "SUMSQ": lambda x, axes: (x * x).sum(axes),
    "MEAN": np.mean,
}


@given(
    operation=st.sampled_from(sorted(REDUCTIONS)),
    shape=shapes,
    coeff=st.sampled_from([1, -0.5, 3]),
    opset=st.sampled_from([17, 18]),
    data=st.data(),
)
@settings(max_examples=40, deadline=None)
def test_reduction_is_its_formula(operation, shape, coeff, opset, data):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    setting = f"operation: {operation} axis: {axis} coeff: {coeff}"
    got = run(build(f'type: "Reduction" reduction_param {{ {setting} }}', shape), draw(*shape), opset=opset)
    axes = tuple(range(axis % len(shape), len(shape)))
    assert_close(
        got, np.asarray(coeff * REDUCTIONS[operation](draw(*shape).astype(np.float64), axes)), setting
    )


@pytest.mark.parametrize("operation", REDUCTIONS)
def test_one_file_reduces_any_size(operation):
    net = build(f'type: "Reduction" reduction_param {{ operation: {operation} axis: 2 }}', IMAGE)
    session = to_session(net)
    for n, h, w in ((2, 5, 4), (1, 1, 1), (3, 7, 2)):
        run(net, draw(n, 6, h, w), session=session)


def test_a_sum_of_nothing():
    assert run(build('type: "Reduction"', (0, 3)), draw(0, 3)) == 0
    assert np.isnan(
        build('type: "Reduction" reduction_param { operation: MEAN }', (0, 3)).forward(a=draw(0, 3))["top"]
    )
    refused('type: "Reduction" reduction_param { axis: 2 }', (2, 3), says="axis 2 does not exist")


# --- SPP


@given(
    h=st.integers(1, 20), w=st.integers(1, 20), levels=st.integers(1, 3), pool=st.sampled_from(["MAX", "AVE"])
)
@settings(max_examples=30, deadline=None)
def test_a_pyramid_has_its_bins_at_every_size(h, w, levels, pool):
    layer = f'type: "SPP" spp_param {{ pyramid_height: {levels} pool: {pool} }}'
    kernels = [(-(-n // 2**k), n, 2**k) for k in range(levels) for n in (h, w)]
    if any((kernel * bins - n + 1) // 2 >= kernel for kernel, n, bins in kernels):
        refused(layer, (2, 3, h, w), says="reaches the kernel")
        return
    got = run(build(layer, (2, 3, h, w)), draw(2, 3, h, w))
    assert got.shape == ((2, 3, 1, 1) if levels == 1 else (2, 3 * sum(4**k for k in range(levels))))
    whole = (
        draw(2, 3, h, w).max((2, 3)) if pool == "MAX" else draw(2, 3, h, w).astype(np.float64).mean((2, 3))
    )
    assert_close(got.reshape(2, -1)[:, :3], whole, "the level of one bin")


def test_a_pyramid_needs_an_image():
    refused('type: "SPP" spp_param { pyramid_height: 2 }', (2, 3, 4), says="needs 4 axes (N, C, H, W)")
    refused('type: "SPP" spp_param { pyramid_height: 2 }', (2, 3, 0, 4), says="got (2, 3, 0, 4)")
    refused('type: "SPP"', IMAGE, says="pyramid_height")
    refused('type: "SPP" spp_param { pyramid_height: 30 }', IMAGE, says="from 1 to 16")


def test_what_only_a_fork_knows_is_named_where_sizes_do_not_fit():
    with pytest.warns(CaffeWarning), pytest.raises(LayerError) as caught:
        build('type: "Reshape" reshape_param { pixelshuffler: 2 }', (1, 4, 2, 2))
    assert "not read: reshape_param.pixelshuffler" in str(caught.value)
