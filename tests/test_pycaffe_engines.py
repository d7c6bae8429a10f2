"""Two engines behind one Net: the same values, and a script that cannot tell which one runs it."""

from __future__ import annotations

import gc
import warnings

import numpy as np
import pytest

from caffe_fcn import pycaffe as caffe
from caffe_fcn.errors import CaffeWarning, DeviceError
from caffe_fcn.pycaffe import engine, onnx_engine
from caffe_fcn.runtime import Session, cuda_driver
from tests.reference_cases import Case, assert_close, cases
from tests.test_pycaffe_net import CHAIN, LOSS, image

CASES = [case for folder in ("layers", "nets", "random") for case in cases(folder)]


@pytest.fixture(autouse=True)
def _choice(monkeypatch):
    """Each test chooses for itself."""
    monkeypatch.setattr(engine.chosen, "engine", "onnxruntime")
    for name in ("gpu", "pinned"):
        monkeypatch.setattr(engine.chosen, name, False)
    monkeypatch.setattr(engine.chosen, "device", 0)


class Passes(list):
    """What was fetched, pass by pass; and how many sessions were started."""

    sessions = 0


@pytest.fixture
def passes(monkeypatch) -> Passes:
    found = Passes()
    run, init = Session.run, Session.__init__

    def watched_run(self, inputs, outputs=None):
        found.append(set(outputs))
        return run(self, inputs, outputs)

    def watched_init(self, *args, **named):
        found.sessions += 1
        init(self, *args, **named)

    monkeypatch.setattr(Session, "run", watched_run)
    monkeypatch.setattr(Session, "__init__", watched_init)
    return found


@pytest.fixture
def net() -> caffe.Net:
    caffe.set_random_seed(1)
    return caffe.Net(CHAIN, caffe.TEST)


def in_numpy(net: caffe.Net, **inputs: np.ndarray) -> dict[str, np.ndarray]:
    """Every blob as NumPy has it, of a net with the same parameters."""
    caffe.set_engine("numpy")
    other = caffe.Net(CHAIN, caffe.TEST)
    for name, blobs in net.params.items():
        for own, blob in zip(other.params[name], blobs, strict=True):
            own.data[...] = blob.peek()
    for name, value in inputs.items():
        other.blobs[name].reshape(*value.shape)
    other.forward(**inputs)
    caffe.set_engine("onnxruntime")
    return {name: blob.data.copy() for name, blob in other.blobs.items()}


def same(net: caffe.Net, expected: dict[str, np.ndarray]) -> None:
    for name, value in expected.items():
        assert_close(net.blobs[name].data, value, name)


# --- the same values


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_both_engines_give_every_blob(case: Case, passes):
    net, fed = case.net(), case.group("in:")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        outputs = net.forward(**fed)
        got = {name: blob.data.copy() for name, blob in net.blobs.items()}
    caffe.set_engine("numpy")
    net.forward(**fed)
    for name, blob in net.blobs.items():
        assert_close(got[name], blob.data, name)
    assert set(outputs) == set(case.outputs)
    assert bool(passes) != any("runs in NumPy" in str(w.message) for w in told)


# --- what is fetched when


def test_only_what_is_read_is_fetched(net, passes):
    net.forward(data=image())
    assert passes == [{"score"}]
    net.blobs["pool"].data.sum()
    net.blobs["pool"].data.sum()
    assert passes[1:] == [{"pool"}]
    net.forward(data=image(seed=1))
    assert passes[2:] == [{"score", "pool"}], "what was read is fetched with the next pass"
    net.forward(data=image(seed=2))
    assert passes[3:] == [{"score"}], "and no more when it was not read again"
    assert passes.sessions == 2


def test_shapes_are_read_without_a_pass(net, passes):
    assert [blob.data.shape for blob in net.blobs.values()][-1] == (2, 2, 1, 1)
    net.blobs["data"].reshape(1, 3, 8, 9)
    net.forward(data=image(1, 3, 8, 9))
    assert net.blobs["pool"].shape == (1, 4, 4, 5)
    assert passes == [{"score"}]


def test_who_reads_all_gets_all_at_once(net, passes):
    text = CHAIN + "".join(
        f'layer {{ name: "t{i}" type: "TanH" bottom: "{b}" top: "t{i}" }}'
        for i, b in enumerate(("score", "t0", "t1", "t2"))
    )
    net = caffe.Net(text, caffe.TEST)
    net.forward(data=image())
    for blob in net.blobs.values():
        blob.data.sum()
    assert len(passes) == 2 + onnx_engine.FEW
    assert passes.sessions == 2 + onnx_engine.FEW
    net.forward(data=image(seed=1))
    assert passes[-1] >= {"t0", "t1", "t2", "t3", "pool"}
    assert passes.sessions == 2 + onnx_engine.FEW


def test_what_is_asked_for_comes_with_the_pass(net, passes):
    found = net.forward(["pool"], data=image())
    assert passes == [{"score", "pool"}]
    assert_close(found["pool"], in_numpy(net, data=image())["pool"], "pool")
    many = net.forward_all(["pool"], data=image(5, 3, 5, 5))
    assert passes[1:] == [{"score", "pool"}] * 3
    assert many["pool"].shape == (5, 4, 1, 1)
    assert passes.sessions == 1


def test_a_view_shows_the_next_pass(net):
    view = net.blobs["pool"].data
    for seed in (0, 1):
        net.forward(data=image(seed=seed))
        assert_close(view, in_numpy(net, data=image(seed=seed))["pool"], "pool")


def test_a_blob_read_late_is_of_its_own_pass(net):
    expected = in_numpy(net, data=image())
    net.forward(data=image())
    net.blobs["data"].data[...] = 0
    same(net, {name: expected[name] for name in ("conv", "pool", "score")})


def test_layers_run_by_themselves_go_on_from_a_pass(net):
    expected = in_numpy(net, data=image())
    net.forward(data=image())
    net.blobs["score"].data[...] = 0
    assert_close(net.forward(start="score")["score"], expected["score"], "score")
    net.blobs["pool"].data[...] = 1
    changed = net.forward(start="score")["score"].copy()
    net.forward(data=image())
    same(net, expected)
    assert not np.allclose(changed, expected["score"])


# --- what makes a new session


@pytest.mark.parametrize("shape", [(2, 3, 5, 5), (1, 3, 11, 7), (3, 3, 6, 6)])
def test_inputs_of_other_shapes(net, passes, shape):
    net.forward(data=image())
    net.blobs["data"].reshape(*shape)
    net.forward(data=image(*shape))
    assert passes.sessions == 1, "the graph leaves sizes open"
    same(net, in_numpy(net, data=image(*shape)))


def test_inputs_whose_size_the_graph_fixes():
    text = (
        CHAIN
        + 'layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"'
        + (" inner_product_param { num_output: 2 axis: 3 } }")
    )
    net = caffe.Net(text, caffe.TEST)
    for height in (5, 7):
        net.blobs["data"].reshape(1, 3, height, 5)
        assert net.forward(data=image(1, 3, height, 5))["ip"].shape == (1, 3, height, 2)


def write_through_a_new_view(net):
    net.params["conv"][0].data[...] *= 2


def write_through_bias(net):
    net.layers[1].blobs[1].data[2] = 5


def load(net):
    other = caffe.Net(CHAIN, caffe.TEST)
    net.share_with(other)


@pytest.mark.parametrize("change", [write_through_a_new_view, write_through_bias, load])
def test_parameters_that_a_script_writes_take_effect(net, change):
    before = net.forward(data=image())["score"].copy()
    change(net)
    after = net.forward(data=image())["score"]
    assert not np.allclose(before, after)
    assert_close(after, in_numpy(net, data=image())["score"], "score")


def test_parameters_written_through_a_view_that_was_there_before(net):
    view = net.params["conv"][0].data
    other = caffe.Net(CHAIN, caffe.TEST)
    other.share_with(net)
    shared = other.params["score"][1].data
    for scale in (1, 2, 3):
        view *= scale
        shared += 1
        net.forward(data=image())
        same(net, in_numpy(net, data=image()))


def test_parameters_that_are_only_read_cost_no_new_session(net, passes):
    for _ in range(3):
        net.forward(data=image())
        assert [blob.data.shape for blobs in net.params.values() for blob in blobs]
    assert passes.sessions == 1


def test_weights_loaded_later_take_effect(net, tmp_path):
    other = caffe.Net(CHAIN, caffe.TEST)
    other.save(tmp_path / "other.caffemodel")
    net.forward(data=image())
    net.copy_from(str(tmp_path / "other.caffemodel"))
    net.forward(data=image())
    same(net, in_numpy(other, data=image()))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (write_through_a_new_view, "parameters were written"),
        (lambda net: net.blobs["data"].reshape(1, 3, 5, 5), "inputs were reshaped"),
    ],
)
def test_a_blob_that_is_lost_is_refused(net, change, told):
    net.forward(data=image())
    change(net)
    with pytest.raises(caffe.CaffeError, match=f"blob 'pool' was not fetched.*{told}"):
        net.blobs["pool"].data  # noqa: B018
    assert net.blobs["score"].data.any()


def test_a_large_net_goes_through_a_file_that_is_removed(monkeypatch, tmp_path):
    net = caffe.Net(CHAIN, caffe.TEST)
    monkeypatch.setattr(onnx_engine, "SMALL", 0)
    monkeypatch.setattr(onnx_engine.tempfile, "tempdir", str(tmp_path))
    net.forward(data=image())
    same(net, in_numpy(net, data=image()))
    assert len(list(tmp_path.iterdir())) == 1
    del net
    gc.collect()
    assert not list(tmp_path.iterdir())


# --- who runs it


def test_losses_count(net):
    text = """layer { name: "data" type: "Input" top: "a" top: "b" input_param { shape { dim: 2 dim: 3 } } }
      layer { name: "loss" type: "EuclideanLoss" bottom: "a" bottom: "b" top: "loss" loss_weight: 3 }"""
    net = caffe.Net(text, caffe.TEST)
    net.blobs["a"].data[...], net.blobs["b"].data[...] = 1, 3
    assert net._forward(0, 1) == pytest.approx(3 * 3 * 2**2 / 2)


IN_PLACE = """layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 } } }
layer { name: "relu" type: "ReLU" bottom: "data" top: "data" }"""


@pytest.mark.parametrize(
    ("text", "phase", "why"),
    [
        (CHAIN, caffe.TRAIN, "its phase is TRAIN"),
        (LOSS, caffe.TEST, r"layer 'data' \(DummyData\) makes its data"),
        (IN_PLACE, caffe.TEST, r"layer 'relu' \(ReLU\) works in place on the input data"),
    ],
)
def test_nets_that_onnxruntime_cannot_run_go_to_numpy(text, phase, why, passes):
    net = caffe.Net(text, phase)
    with pytest.warns(CaffeWarning, match=f"runs in NumPy.*{why}"):
        net.forward()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net.forward()
    assert not passes


def test_the_environment_may_choose(monkeypatch, passes):
    monkeypatch.setattr(engine.chosen, "engine", "")
    monkeypatch.setenv("CAFFE_FCN_ENGINE", "onnxruntime")
    net = caffe.Net(CHAIN, caffe.TEST)
    net.forward(data=image())
    assert passes
    monkeypatch.delenv("CAFFE_FCN_ENGINE")
    net.forward(data=image())
    assert len(passes) == 1


def test_unknown_engines(monkeypatch, net):
    with pytest.raises(caffe.CaffeError, match=r"set_engine: no engine .onnx.\n.*onnxruntime"):
        caffe.set_engine("onnx")
    monkeypatch.setattr(engine.chosen, "engine", "")
    monkeypatch.setenv("CAFFE_FCN_ENGINE", "cudnn")
    with pytest.raises(caffe.CaffeError, match="CAFFE_FCN_ENGINE: no engine 'cudnn'"):
        net.forward(data=image())


@pytest.mark.skipif(cuda_driver(), reason="a GPU is here")
def test_a_gpu_that_is_not_there_is_missed_when_it_is_needed(net):
    caffe.set_device(0)
    caffe.set_mode_gpu()
    with pytest.raises(DeviceError, match=r"set_mode_gpu.*\n.*set_mode_cpu"):
        net.forward(data=image())
    caffe.set_mode_cpu()
    assert net.forward(data=image())["score"].any()


def test_numpy_says_that_it_leaves_the_gpu_alone(net):
    caffe.set_engine("numpy")
    caffe.set_mode_gpu()
    with pytest.warns(CaffeWarning, match="set_engine"):
        net.forward(data=image())


@pytest.mark.gpu
def test_on_a_gpu(net):
    caffe.set_mode_gpu()
    net.forward(data=image())
    same(net, in_numpy(net, data=image()))
    assert net._onnx._session.device == "cuda"


def test_a_pinned_device_stays(net):
    engine.pin("cpu")
    caffe.set_mode_gpu()
    assert net.forward(data=image())["score"].any()
