"""Sessions: the device asked for or an error, buffers, and messages that can be acted on."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from caffe_fcn.cli import call
from caffe_fcn.conversion import convert
from caffe_fcn.errors import CaffeError, CaffeWarning, DeviceError
from caffe_fcn.export.graph import Graph, Node, Value
from caffe_fcn.export.write import to_model
from caffe_fcn.runtime import Session, cuda_driver, start
from caffe_fcn.runtime.cost import Cost, count, total
from caffe_fcn.runtime.devices import CPU, CUDA, NAMES, TENSORRT, Wish, default_cache, providers
from caffe_fcn.runtime.model_file import input_shapes
from caffe_fcn.symbols import Extent, hint
from tests.conftest import REFERENCE

NET = REFERENCE / "nets" / "fcn8s-thin-1px.prototxt"
ALL = [TENSORRT, CUDA, CPU]
without_gpu = pytest.mark.skipif(cuda_driver(), reason="an NVIDIA driver is here")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "net.onnx"
    convert(NET, NET.with_suffix(".caffemodel"), path, verify=False)
    return path


@pytest.fixture(scope="module")
def fixed(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "fixed.onnx"
    convert(NET, NET.with_suffix(".caffemodel"), path, verify=False, input_shapes={"data": (1, 3, 20, 30)})
    return path


def picture(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 60, shape).astype(np.float32)


# --- devices


@without_gpu
def test_cuda_is_never_the_cpu_in_silence(model):
    with pytest.raises(DeviceError, match="CUDA was asked for"):
        Session(model, "cuda")
    with pytest.raises(DeviceError, match="TensorRT was asked for"):
        Session(model, "tensorrt")


def test_devices_have_names(model):
    with pytest.raises(DeviceError, match=r"no device 'cdua'; .*\n.*cuda"):
        Session(model, "cdua")


@without_gpu
def test_auto_says_what_it_took(model):
    assert Session(model, "auto").device == "cpu"


def test_what_cuda_is_asked_for():
    open_ = dict(providers(Wish("cuda", tf32=True, device_id=1), ALL, driver=True))
    assert list(open_) == [CUDA, CPU]
    assert open_[CUDA]["cudnn_conv_algo_search"] == "HEURISTIC"
    assert open_[CUDA]["arena_extend_strategy"] == "kNextPowerOfTwo"
    assert open_[CUDA]["enable_cuda_graph"] == "0"
    assert open_[CUDA]["use_tf32"] == "1"
    assert open_[CUDA]["device_id"] == "1"
    fixed = dict(providers(Wish("auto", fixed=True, capture=True), ALL, driver=True))
    assert list(fixed) == [CUDA, CPU]
    assert fixed[CUDA]["cudnn_conv_algo_search"] == "EXHAUSTIVE"
    assert fixed[CUDA]["enable_cuda_graph"] == "1"
    assert (fixed[CUDA]["use_tf32"], fixed[CUDA]["prefer_nhwc"]) == ("0", "0")
    told = dict(providers(Wish("cuda", cuda={"prefer_nhwc": "1", "gpu_mem_limit": "9"}), ALL, driver=True))
    assert (told[CUDA]["prefer_nhwc"], told[CUDA]["gpu_mem_limit"]) == ("1", "9")


@pytest.mark.parametrize("provider", [CUDA, TENSORRT])
def test_options_are_known(provider):
    """onnxruntime refuses an option that it does not know; where it has the provider, it has these."""
    if provider not in onnxruntime.get_available_providers():
        pytest.skip(f"onnxruntime without {provider}")
    library = f"libonnxruntime_providers_{NAMES[provider]}.so"
    code = Path(onnxruntime.capi.__path__[0], library).read_bytes()
    for option in dict(providers(Wish("tensorrt"), ALL, driver=True))[provider]:
        assert option.encode() in code


@pytest.mark.parametrize("device", ["auto", "cuda", "tensorrt", "cpu"])
def test_without_a_gpu_only_the_cpu_is_asked(device):
    assert providers(Wish(device), ALL, driver=False) == [(CPU, {})]
    assert providers(Wish("cpu"), ALL, driver=True) == [(CPU, {})]


def test_what_tensorrt_is_asked_for(monkeypatch, tmp_path):
    profile = {"data": ((1, 3, 32, 32), (1, 3, 500, 500), (8, 3, 1024, 2048))}
    options = dict(providers(Wish("tensorrt", cache=tmp_path, profile=profile), ALL, driver=True))
    assert list(options) == ALL
    assert options[TENSORRT]["trt_profile_min_shapes"] == "data:1x3x32x32"
    assert options[TENSORRT]["trt_profile_opt_shapes"] == "data:1x3x500x500"
    assert options[TENSORRT]["trt_profile_max_shapes"] == "data:8x3x1024x2048"
    assert options[TENSORRT]["trt_engine_cache_path"] == str(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    options = dict(providers(Wish("tensorrt"), ALL, driver=True))
    assert options[TENSORRT]["trt_engine_cache_path"] == str(default_cache())
    assert not [key for key in options[TENSORRT] if "profile" in key]
    assert list(dict(providers(Wish("tensorrt"), [CUDA, CPU], driver=True))) == [CUDA, CPU]


class FakeRuntime:
    """A machine with a GPU: sessions start on the providers in `works`, unless `fails` says otherwise."""

    def __init__(self, works=(CUDA, CPU), fails=lambda options: False):
        self.works, self.fails = works, fails
        self.asked: list[dict] = []
        self.__version__ = "0"
        self.loaded = 0

    def get_available_providers(self):
        return ALL

    def preload_dlls(self, directory):
        assert directory == ""
        self.loaded += 1
        sys.stdout.write("Failed to load something")

    def SessionOptions(self):  # noqa: N802
        return onnxruntime.SessionOptions()

    def InferenceSession(self, source, options, providers, enable_fallback):  # noqa: N802
        assert enable_fallback == 0
        self.asked.append(dict(providers))
        if self.fails(dict(providers)):
            raise RuntimeError("This session cannot use the graph capture feature")
        real = onnxruntime.InferenceSession(source, options, providers=[CPU])
        started = [name for name, _ in providers if name in self.works]
        real.get_providers = lambda: started
        return real


@pytest.fixture
def gpu(monkeypatch):
    def install(**how):
        fake = FakeRuntime(**how)
        monkeypatch.setitem(sys.modules, "onnxruntime", fake)
        monkeypatch.setattr(start, "cuda_driver", lambda: True)
        monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "x")
        return fake

    return install


def test_libraries_are_loaded_quietly(gpu, model, capsys):
    fake = gpu()
    assert Session(model, "cuda").device == "cuda"
    assert fake.loaded == 1
    assert capsys.readouterr().out == ""
    Session(model, "cpu")
    assert fake.loaded == 1


def test_graphs_are_captured_where_sizes_are_fixed(gpu, model, fixed):
    fake = gpu()
    assert Session(fixed, "cuda").captures
    assert not Session(model, "cuda").captures
    assert not Session(fixed, "cuda", cuda_graphs=False).captures
    assert not Session(fixed, "cpu").captures
    assert [a.get(CUDA, {}).get("enable_cuda_graph") for a in fake.asked] == ["1", "0", "0", None]


def test_a_graph_that_cannot_be_captured_runs_without(gpu, fixed):
    fake = gpu(fails=lambda asked: asked.get(CUDA, {}).get("enable_cuda_graph") == "1")
    session = Session(fixed, "cuda")
    assert (session.device, session.captures) == ("cuda", False)
    assert len(fake.asked) == 2


def test_auto_warns_when_the_gpu_does_not_start(gpu, model):
    gpu(works=(CPU,))
    with pytest.warns(CaffeWarning, match="CUDA does not start"):
        assert Session(model, "auto").device == "cpu"
    gpu(fails=lambda asked: CUDA in asked)
    with pytest.warns(CaffeWarning, match="CUDA does not start"):
        assert Session(model, "auto").device == "cpu"
    with pytest.raises(CaffeError, match="graph capture"):
        Session(model, "cuda")


def test_tensorrt_is_never_cuda_in_silence(gpu, model, tmp_path):
    gpu()
    with pytest.raises(DeviceError, match=r"TensorRT was asked for.* took CUDA\n.*libnvinfer"):
        Session(model, "tensorrt", cache=tmp_path / "engines")
    fake = gpu(works=(TENSORRT, CUDA, CPU))
    session = Session(model, "tensorrt", cache=tmp_path / "engines")
    assert (session.device, session.captures) == ("tensorrt", False)
    assert fake.asked[0][TENSORRT]["trt_fp16_enable"] == "0"
    half = tmp_path / "half.onnx"
    convert(NET, NET.with_suffix(".caffemodel"), half, verify=False, fp16=True)
    Session(half, "tensorrt", cache=tmp_path / "engines")
    assert fake.asked[1][TENSORRT]["trt_fp16_enable"] == "1"
    assert (tmp_path / "engines").is_dir()


# --- buffers


def test_bound_buffers_are_used_again(model):
    session = Session(model, "cpu")
    bound = session.bound({"data": (2, 3, 9, 7)})
    places = set()
    for seed in range(3):
        data = np.random.default_rng(seed).normal(0, 60, (2, 3, 9, 7)).astype(np.float32)
        bound.inputs["data"][...] = data
        score = bound()["score"]
        np.testing.assert_array_equal(score, session.run({"data": data})["score"])
        places.add(score.ctypes.data)
    assert len(places) == 1


def test_buffers_of_a_graph_lie_on_its_device(model):
    """The way of a captured graph: inputs are copied there, outputs back. Here the device is the CPU."""
    session = Session(model, "cpu")
    session.captures = True
    first, second = session.bound({"data": (1, 3, 5, 4)}), session.bound({"data": (1, 3, 4, 5)})
    assert (first._graph, second._graph) == (1, 2)
    for seed in range(3):
        for bound in (first, second):
            data = np.random.default_rng(seed).normal(0, 60, bound.inputs["data"].shape).astype(np.float32)
            bound.inputs["data"][...] = data
            np.testing.assert_array_equal(bound()["score"], session.run({"data": data})["score"])
    assert session.run_options(7).get_run_config_entry("gpu_graph_id") == "7"
    assert session.run_options().get_run_config_entry("gpu_graph_id") == "-1"


def test_warmup_takes_the_largest_first(model, monkeypatch):
    session = Session(model, "cpu")
    seen = []
    monkeypatch.setattr(session, "run", lambda inputs: seen.append(inputs["data"].shape))
    session.warmup([{"data": (1, 3, 4, 4)}, {"data": (2, 3, 9, 9)}, {"data": (1, 3, 5, 5)}])
    assert seen == [(2, 3, 9, 9), (1, 3, 5, 5), (1, 3, 4, 4)]
    with pytest.raises(CaffeError, match="3 axes instead of 4"):
        session.warmup([{"data": (1, 3, 4)}])


# --- what goes in


def test_garbage_is_no_model(tmp_path):
    for name, content in (("x.onnx", b"no model at all"), ("y.onnx", b""), ("z.onnx", NET.read_bytes())):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CaffeError, match=name):
            Session(tmp_path / name, "cpu")
    with pytest.raises(CaffeError, match=r"is not an ONNX model\n.*convert-fcn"):
        Session(NET.with_suffix(".caffemodel"), "cpu")
    with pytest.raises(CaffeError, match="No such file"):
        Session(tmp_path / "none.onnx", "cpu")


def test_wrong_inputs(model, fixed):
    session = Session(model, "cpu")
    with pytest.raises(CaffeError, match=r"takes \['data'\], got \['image'\]"):
        session.run({"image": np.zeros((1, 3, 8, 8), np.float32)})
    with pytest.raises(CaffeError, match=r"axis 1 is 4 instead of 3$"):
        session.run({"data": np.zeros((1, 4, 8, 8), np.float32)})
    with pytest.raises(CaffeError, match=r"takes float32, got float64\n.*astype"):
        session.run({"data": np.zeros((1, 3, 8, 8))})
    with pytest.raises(CaffeError, match=r"\(N, 3, H, W\), got \(3, 8, 8\): 3 axes instead of 4"):
        session.run({"data": np.zeros((3, 8, 8), np.float32)})
    with pytest.raises(CaffeError, match=r"axis 3 is 31 instead of 30\n.*--input-shape"):
        Session(fixed, "cpu").bound({"data": (1, 3, 20, 31)})


def test_one_symbol_is_one_size():
    shape = (Extent.symbol("N", 1), 2)
    graph = Graph("sum", [Value("a", shape), Value("b", shape)], [Value("c", shape)],
                  [Node("Add", ["a", "b"], ["c"], {}, "c", "c")])  # fmt: skip
    session = Session(to_model(graph, 17).SerializeToString(), "cpu")
    with pytest.raises(CaffeError, match=r"<bytes>: input 'b' .*: N is 3 by input 'a'"):
        session.run({"a": np.zeros((3, 2), np.float32), "b": np.zeros((1, 2), np.float32)})


def test_shapes_without_a_session(model, fixed):
    assert input_shapes(model) == {"data": [None, 3, None, None]}
    assert input_shapes(fixed) == {"data": [1, 3, 20, 30]}
    assert input_shapes("x", fixed.read_bytes()) == {"data": [1, 3, 20, 30]}
    assert (Session(model, "cpu").fixed, Session(fixed, "cpu").fixed) == (False, True)


def test_options_reach_onnxruntime(model):
    session = Session(model, "cpu", threads=1, options={"enable_cpu_mem_arena": False, "session.x": "y"})
    found = session.session.get_session_options()
    assert found.get_session_config_entry("session.x") == "y"
    assert (found.intra_op_num_threads, found.enable_cpu_mem_arena, found.enable_mem_pattern) == (
        1,
        False,
        False,
    )


# --- cost


def test_cost_is_the_traces(model, tmp_path):
    """The plain graph costs what the trace counts, whatever the size."""
    from caffe_fcn import Net, trace

    path = tmp_path / "plain.onnx"
    convert(NET, NET.with_suffix(".caffemodel"), path, verify=False, skip_passes=["all"])
    net = Net(NET)
    net.blobs["data"].reshape(1, 3, 37, 45)
    net.reshape()
    macs = sum(hint(row.macs) for row in trace(net).rows)
    assert count(path, {"data": (1, 3, 37, 45)}) == Cost(macs, "float")
    assert count(path, {"data": (2, 3, 37, 45)}).macs == 2 * macs


@pytest.mark.parametrize(
    ("op", "inputs", "output", "macs"),
    [
        ("MatMul", [[2, 3, 4], [4, 5]], [2, 3, 5], 2 * 3 * 4 * 5),
        ("Gemm", [[3, 4], [4, 5], [5]], [3, 5], 3 * 4 * 5),
        ("Gemm", [[4, 3], [5, 4]], [3, 5], 3 * 4 * 5),  # both transposed
        ("Conv", [[1, 4, 9, 9], [6, 2, 3, 3]], [1, 6, 7, 7], 49 * 6 * 2 * 9),
        ("ConvTranspose", [[1, 4, 5, 5], [4, 1, 4, 4]], [1, 4, 12, 12], 25 * 4 * 16),
        ("LSTM", [[7, 2, 3], [1, 20, 3], [1, 20, 5]], [7, 1, 2, 5], 7 * 2 * (20 * 3 + 20 * 5)),
        ("Relu", [[9]], [9], 0),
    ],
)
def test_cost_of_a_node(op, inputs, output, macs):
    node = {
        "op_name": op,
        "input_type_shape": [{"float": s} for s in inputs],
        "output_type_shape": [{"float": output}],
    }
    assert total([node, {"op_name": "Constant"}]) == (macs, "float")


# --- doctor


def test_doctor(capsys):
    assert call("doctor", ["--json"], prog="caffe-fcn doctor") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["devices"]["cpu"] is None
    assert found["packages"]["numpy"]
    assert call("doctor", [], prog="caffe-fcn doctor") == 0
    assert "cpu: starts" in capsys.readouterr().out


def test_doctor_on_both_packages():
    from caffe_fcn.cli.doctor import _advice

    both = {"onnxruntime": "1", "onnxruntime-gpu": "1"}
    assert any("both installed" in line for line in _advice(both, {"cpu": None, "cuda": None}))
    assert any("no onnxruntime" in line for line in _advice(dict.fromkeys(both), {"cpu": None, "cuda": None}))
