"""caffe.Net as old scripts use it: its names, what it returns, what it leaves alone (pycaffe.py, net.cpp)."""

from __future__ import annotations

import warnings
from collections import OrderedDict

import numpy as np
import pytest

import caffe_fcn
from caffe_fcn import pycaffe as caffe

CHAIN = """
name: "chain"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 5 dim: 5 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "gaussian" std: 1 }
    bias_filler { type: "constant" value: -1 } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool" pooling_param { kernel_size: 3 } }
layer { name: "score" type: "Convolution" bottom: "pool" top: "score"
  convolution_param { num_output: 2 kernel_size: 1 weight_filler { type: "gaussian" std: 1 } } }
"""
LOSS = """
layer { name: "data" type: "DummyData" top: "data" top: "label" dummy_data_param {
  shape { dim: 3 dim: 4 } shape { dim: 3 }
  data_filler { type: "gaussian" } data_filler { type: "constant" value: 1 } } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 5
  weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" loss_weight: 2 }
layer { name: "guess" type: "ArgMax" bottom: "ip" top: "guess" }
"""


def image(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape or (2, 3, 5, 5)).astype(np.float32)


@pytest.fixture
def net() -> caffe.Net:
    caffe.set_random_seed(1)
    return caffe.Net(CHAIN, caffe.TEST)


# --- making one


@pytest.fixture
def files(tmp_path, net):
    (tmp_path / "net.prototxt").write_text(CHAIN)
    net.save(tmp_path / "net.caffemodel")
    return str(tmp_path / "net.prototxt"), str(tmp_path / "net.caffemodel")


@pytest.mark.parametrize(
    "make",
    [
        lambda p, w: caffe.Net(p, caffe.TEST, weights=w),
        lambda p, w: caffe.Net(p, w, caffe.TEST),
        lambda p, w: caffe.Net(network_file=p, phase=caffe.TEST, weights=w),
        lambda p, w: caffe.Net(p, phase=caffe.TEST, level=0, stages=[], weights=w),
        lambda p, w: caffe.Net(p, caffe.TEST, 0, ["deploy"], w),
        lambda p, w: caffe_fcn.Net(p, w),
    ],
)
def test_every_way_to_make_a_net(make, files, net):
    made = make(*files)
    assert isinstance(made, caffe.Net)
    assert made.phase == caffe.TEST
    for name, blobs in net.params.items():
        assert all(np.array_equal(a.data, b.data) for a, b in zip(blobs, made.params[name], strict=True))


def test_phase_level_and_stages_choose_layers():
    text = CHAIN + "".join(
        f'layer {{ name: "{name}" type: "TanH" bottom: "score" top: "{name}" include {{ {rule} }} }}'
        for name, rule in (("trains", "phase: TRAIN"), ("deep", "min_level: 2"), ("shown", 'stage: "show"'))
    )
    assert caffe.Net(text, caffe.TEST).outputs == ["score"]
    assert caffe.Net(text, caffe.TRAIN).outputs == ["trains"]
    assert caffe.Net(text, caffe.TEST, 2).outputs == ["deep"]
    assert caffe.Net(text, caffe.TEST, level=2, stages=["show"]).outputs == ["deep", "shown"]


def test_the_same_seed_gives_the_same_net_in_whatever_order_it_is_read():
    nets = []
    for order in ("conv score", "score conv"):
        caffe.set_random_seed(3)
        nets.append(caffe.Net(CHAIN, caffe.TEST))
        for name in order.split():
            assert nets[-1].params[name][0].data.any()
    one, two = nets
    assert all(np.array_equal(one.params[n][0].data, two.params[n][0].data) for n in one.params)


# --- names


def test_names_and_numbers(net):
    assert list(net.blobs) == list(net._blob_names) == ["data", "conv", "pool", "score"]
    assert list(net._layer_names) == list(net.layer_dict) == ["data", "conv", "relu", "pool", "score"]
    assert [layer.type for layer in net.layers] == ["Input", "Convolution", "ReLU", "Pooling", "Convolution"]
    assert [len(layer.blobs) for layer in net.layers] == [0, 2, 0, 0, 2]
    assert list(net.params) == ["conv", "score"]
    assert len(net.params["conv"]) == 2
    assert (net.inputs, net.outputs, net._inputs, net._outputs) == (["data"], ["score"], [0], [3])
    assert net._top_ids(2) == net._bottom_ids(2) == [1]
    assert net._blobs[3] is net.blobs["score"]


def test_names_of_tops_and_bottoms_with_a_split():
    net = caffe.Net(LOSS, caffe.TEST)
    assert net.top_names["ip_ip_0_split"] == ["ip_ip_0_split_0", "ip_ip_0_split_1"]
    tops = ["ip_ip_0_split_0", "ip_ip_0_split_1"]
    assert net.bottom_names == OrderedDict(
        data=[], ip=["data"], ip_ip_0_split=["ip"], loss=[tops[0], "label"], guess=[tops[1]]
    )


def test_loss_weights_stand_by_blob():
    net = caffe.Net(LOSS, caffe.TEST)
    assert net.blob_loss_weights["loss"] == 2
    assert net._blob_loss_weights == [2 * (name == "loss") for name in net._blob_names]
    total = net._forward(0, len(net.layers) - 1)
    assert total == pytest.approx(2 * float(net.blobs["loss"].data))


# --- forward


def test_forward_returns_outputs_and_what_is_asked_for(net):
    found = net.forward(data=image(), blobs=["pool", "score"])
    assert set(found) == {"score", "pool"}
    assert np.shares_memory(found["pool"], net.blobs["pool"].data)
    assert set(net.forward(end="pool")) == {"pool"}
    assert set(net.forward(["conv"], end="pool")) == {"conv", "pool"}


def test_forward_writes_into_the_same_memory(net):
    first = net.forward(data=image())["score"]
    kept = first.copy()
    second = net.forward(data=image(seed=1))["score"]
    assert np.array_equal(first, second)
    assert not np.array_equal(first, kept)


def test_what_is_computed_in_place_holds_the_last_value(net):
    net.forward(data=image())
    assert net.blobs["conv"].data.min() == 0
    net.forward(end="conv")
    assert net.blobs["conv"].data.min() < 0
    net.forward(start="relu", end="relu")
    assert net.blobs["conv"].data.min() == 0


def test_start_and_end_leave_the_rest_alone(net):
    net.forward(data=image())
    marked = {name: np.full_like(blob.data, 7) for name, blob in net.blobs.items()}
    for name, value in marked.items():
        net.blobs[name].data[...] = value
    net.forward(start="pool", end="pool")
    for name, value in marked.items():
        assert np.array_equal(net.blobs[name].data, value), name  # the maximum of sevens is seven
    net.blobs["conv"].data[...] = 3
    assert not np.array_equal(net.forward(start="pool")["score"], marked["score"])
    assert np.array_equal(net.blobs["data"].data, marked["data"])


def test_a_blob_written_by_a_script_is_what_the_next_layer_reads(net):
    net.forward(data=image())
    net.blobs["pool"].data.flat = range(net.blobs["pool"].count)
    weight, bias = (blob.data for blob in net.params["score"])
    pool = net.blobs["pool"].data.copy()
    expected = np.einsum("nchw,oc->nohw", pool, weight[:, :, 0, 0]) + bias[:, None, None]
    np.testing.assert_allclose(net.forward(start="score")["score"], expected, rtol=1e-5)


def test_reshaping_the_input_reshapes_all_at_the_next_forward(net):
    net.forward(data=image())
    net.blobs["data"].reshape(1, 3, 9, 8)
    assert net.blobs["score"].shape == (2, 2, 1, 1)
    net.blobs["data"].data[...] = image(1, 3, 9, 8)
    assert net.forward()["score"].shape == (1, 2, 5, 4)
    net.blobs["data"].reshape(2, 3, 5, 5)
    net.reshape()
    assert net.blobs["score"].shape == (2, 2, 1, 1)


def test_inputs_are_cast_and_spread_like_numpy_does(net):
    net.forward(data=image().astype(np.float64))
    assert net.blobs["data"].data.dtype == np.float32
    net.forward(data=np.array([[[[1]]], [[[2]]]]))
    assert net.blobs["data"].data[:, 0, 0, 0].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"image": image()}, "input arguments.*image.*data"),
        ({"data": image(1, 3, 5, 5)}, r"\(1, 3, 5, 5\).*\(2, 3, 5, 5\)"),
        ({"data": image(2, 3, 4, 5)}, r"reshape\(2, 3, 4, 5\)"),
        ({"start": "cov"}, "no layer 'cov'.*\n.*conv"),
        ({"end": "scores"}, "no layer 'scores'"),
        ({"blobs": ["pol"]}, "no blob 'pol'.*\n.*pool"),
    ],
)
def test_what_does_not_fit_is_said(net, arguments, told):
    with pytest.raises(caffe.CaffeError, match=told):
        net.forward(**arguments)


def test_forward_all_takes_any_number(net):
    many = image(5, 3, 5, 5)
    found = net.forward_all(data=many, blobs=["pool"])
    assert found["score"].shape == (5, 2, 1, 1)
    assert found["pool"].shape == (5, 4, 1, 1)
    for i in range(5):
        one = net.forward(data=np.stack([many[i]] * 2))["score"][1]
        np.testing.assert_allclose(found["score"][i], one, rtol=1e-5)


def test_batches_are_filled_up_with_zeros(net):
    batches = list(net._batch({"data": image(3, 3, 5, 5)}))
    assert [len(batch["data"]) for batch in batches] == [2, 2]
    assert not batches[1]["data"][1].any()
    with pytest.raises(caffe.CaffeError, match="no inputs"):
        net.forward_all()


def test_constant_dummy_data_keeps_what_a_script_writes():
    net = caffe.Net(LOSS, caffe.TEST)
    assert net.blobs["label"].data.tolist() == [1, 1, 1]
    net.blobs["label"].data[...] = [0, 4, 2]
    before = net.blobs["data"].data.copy()
    net.forward()
    assert net.blobs["label"].data.tolist() == [0, 4, 2]
    assert not np.array_equal(net.blobs["data"].data, before)


def test_callbacks_get_the_number_of_each_layer(net):
    calls = []
    net.before_forward(lambda i: calls.append(("before", i)))
    net.after_forward(lambda i: calls.append(("after", i)))
    net.forward(data=image(), end="conv")
    assert calls == [("before", 0), ("after", 0), ("before", 1), ("after", 1)]


def test_blobs_outlive_their_net(net):
    net.forward(data=image())
    blobs = [*net.blobs.values(), *(blob for blobs in net.params.values() for blob in blobs)]
    del net
    assert all(np.isfinite(blob.data.sum() + blob.diff.sum()) for blob in blobs)


def test_arrays_for_a_memory_data_layer():
    text = """layer { name: "m" type: "MemoryData" top: "data" top: "label"
      memory_data_param { batch_size: 2 channels: 1 height: 1 width: 2 } }
      layer { name: "p" type: "Power" bottom: "data" top: "p" power_param { scale: 2 } }"""
    net = caffe.Net(text, caffe.TEST)
    data, labels = np.arange(8, dtype=np.float32).reshape(4, 1, 1, 2), np.arange(4, dtype=np.float32)
    net.set_input_arrays(data, labels)
    for rows in (slice(0, 2), slice(2, 4), slice(0, 2)):
        assert np.array_equal(net.forward()["p"], 2 * data[rows])
        assert net.blobs["label"].data.ravel().tolist() == labels[rows].tolist()
    with pytest.raises(caffe.CaffeError, match="must be float32 in C order"):
        net.set_input_arrays(data.astype(np.float64), labels)
    with pytest.raises(caffe.CaffeError, match="multiple of batch_size"):
        net.set_input_arrays(data[:3], labels[:3])


def test_arrays_need_a_memory_data_layer(net):
    with pytest.raises(caffe.CaffeError, match="MemoryData layer"):
        net.set_input_arrays(image(), np.zeros(2, np.float32))


# --- parameters


@pytest.mark.parametrize(("save", "load"), [("save", "copy_from"), ("save_hdf5", "load_hdf5")])
def test_parameters_are_written_and_read(net, tmp_path, save, load):
    path = str(tmp_path / "weights")
    getattr(net, save)(path)
    other = caffe.Net(CHAIN, caffe.TEST)
    view = other.params["conv"][0].data
    assert not np.array_equal(view, net.params["conv"][0].data)
    getattr(other, load)(path)
    assert np.array_equal(view, net.params["conv"][0].data), "a view shows what is loaded"
    assert np.array_equal(other.forward(data=image())["score"], net.forward(data=image())["score"])


def test_nets_share_parameters(net):
    other = caffe.Net(CHAIN.replace('name: "score" type', 'name: "other" type'), caffe.TEST)
    own = other.params["other"][0].data.copy()
    other.share_with(net)
    other.params["conv"][0].data[...] = 2
    assert (net.params["conv"][0].data == 2).all()
    net.params["conv"][1].data[...] = 3
    assert (other.params["conv"][1].data == 3).all()
    assert np.array_equal(other.params["other"][0].data, own)


def test_nets_of_other_shapes_share_nothing(net):
    other = caffe.Net(CHAIN.replace("num_output: 4", "num_output: 5"), caffe.TEST)
    with pytest.raises(caffe.CaffeError, match=r"layer 'conv'.*\(4, 3, 3, 3\).*\(5, 3, 3, 3\)"):
        other.share_with(net)


def test_parameters_that_layers_share_are_saved_once(tmp_path):
    text = """layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 } } }
      layer { name: "a" type: "InnerProduct" bottom: "data" top: "a" param { name: "w" } param { name: "b" }
        inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
      layer { name: "b" type: "InnerProduct" bottom: "a" top: "b" param { name: "w" } param { name: "b" }
        inner_product_param { num_output: 3 } }"""
    net, other = caffe.Net(text, caffe.TEST), caffe.Net(text, caffe.TEST)
    net.save_hdf5(tmp_path / "w.h5")
    other.load_hdf5(tmp_path / "w.h5")
    assert np.array_equal(other.params["b"][0].data, net.params["a"][0].data)


def test_gradients_can_be_cleared(net):
    diff = net.params["conv"][0].diff
    diff[...] = 1
    net.clear_param_diffs()
    assert not diff.any()


# --- what is not there


@pytest.mark.parametrize("call", ["backward", "forward_backward_all", "_backward", "after_backward"])
def test_gradients_are_refused(net, call):
    with pytest.raises(caffe.CaffeError, match="gradients are not computed here"):
        getattr(net, call)()


@pytest.mark.parametrize("name", ["SGDSolver", "NesterovSolver", "AdaGradSolver", "AdamSolver", "get_solver"])
def test_training_is_refused(name):
    with pytest.raises(caffe.CaffeError, match=f"{name}: training is out of scope"):
        getattr(caffe, name)("solver.prototxt")


def test_one_solver_is_all_that_can_be_set(net):
    assert (caffe.solver_count(), caffe.solver_rank(), caffe.has_nccl()) == (1, 0, False)
    caffe.set_solver_count(1)
    caffe.set_solver_rank(0)
    caffe.set_multiprocess(False)
    for call in (
        lambda: caffe.set_solver_count(2),
        lambda: caffe.set_solver_rank(1),
        lambda: caffe.NCCL(1, ""),
    ):
        with pytest.raises(caffe.CaffeError, match="out of scope"):
            call()
    with pytest.raises(caffe.CaffeError, match="out of scope"):
        caffe.set_multiprocess(True)
    with pytest.raises(caffe.CaffeError, match="out of scope"):
        caffe.NCCL.new_uid()


# --- the rest of the module


def test_types_of_layers():
    assert {"Convolution", "Data", "InnerProduct", "Python"} <= set(caffe.layer_type_list())


def test_names_that_are_not_there_say_so():
    with pytest.raises(AttributeError, match="not offered"):
        caffe.set_mode_tpu  # noqa: B018
    assert all(getattr(caffe, name) is not None for name in caffe.__all__)
    assert caffe.__version__ == "1.0.0"


def test_a_stopwatch_and_a_log(caplog):
    timer = caffe.Timer()
    timer.start()
    timer.stop()
    assert timer.ms >= 0
    with caplog.at_level("INFO", "caffe"):
        caffe.init_log(0, False)
        caffe.log("hello")
    assert "hello" in caplog.text


def test_a_net_without_weights_says_nothing_of_them(net):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net.forward(data=image())
