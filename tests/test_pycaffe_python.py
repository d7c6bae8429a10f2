"""Layers written in Python: what the user's class gets to see, and what is said when it fails."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from caffe_fcn import pycaffe as caffe
from caffe_fcn.conversion import convert
from caffe_fcn.errors import CaffeWarning, LayerError, UnsupportedError
from caffe_fcn.pycaffe import engine

MODULE = "layers_of_a_test"
CODE = '''
import caffe
import numpy as np

class Scale(caffe.Layer):
    def setup(self, bottom, top):
        self.factor = float(self.param_str or 10)
        self.log = ["setup"]
    def reshape(self, bottom, top):
        self.log.append(("reshape", bottom[0].data.sum()))
        top[0].reshape(*bottom[0].data.shape)
    def forward(self, bottom, top):
        top[0].data[...] = self.factor * bottom[0].data

class InPlace(caffe.Layer):
    def setup(self, bottom, top): pass
    def reshape(self, bottom, top): pass
    def forward(self, bottom, top):
        assert top[0] is bottom[0]
        top[0].data[...] += 1

class Counter(caffe.Layer):
    """Makes data of growing size."""
    def setup(self, bottom, top):
        self.count = eval(self.param_str)["start"]
        assert len(bottom) == 0 and len(top) == 2
    def reshape(self, bottom, top):
        top[0].reshape(1, 2, self.count, 4)
        top[1].reshape(1)
    def forward(self, bottom, top):
        top[0].data[...] = self.count
        top[1].data[...] = self.phase
        self.count += 1
    def set_count(self, count):
        self.count = count

class Learned(caffe.Layer):
    def setup(self, bottom, top):
        self.blobs.add_blob(2, 3)
        self.blobs.add_blob(1)
        self.blobs[0].data[...] = 4
    def reshape(self, bottom, top):
        top[0].reshape(*self.blobs[0].shape)
    def forward(self, bottom, top):
        top[0].data[...] = self.blobs[0].data + self.blobs[1].data

class Distance(caffe.Layer):
    def setup(self, bottom, top):
        if len(bottom) != 2:
            raise Exception("Need two inputs to compute distance.")
    def reshape(self, bottom, top):
        if bottom[0].count != bottom[1].count:
            raise Exception("Inputs must have the same dimension.")
        self.diff = np.zeros_like(bottom[0].data, dtype=np.float32)
        top[0].reshape(1)
    def forward(self, bottom, top):
        self.diff[...] = bottom[0].data - bottom[1].data
        top[0].data[...] = np.sum(self.diff**2) / bottom[0].num / 2.

class Failing(Scale):
    def forward(self, bottom, top):
        raise KeyError("nothing")

class Bare(caffe.Layer):
    pass

class NotALayer:
    pass
'''
DATA = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 } } }\n'


@pytest.fixture(autouse=True)
def _modules():
    yield
    for name in (MODULE, *(n for n in sys.modules if n == "caffe" or n.startswith("caffe."))):
        sys.modules.pop(name, None)


@pytest.fixture
def make(tmp_path):
    """A net whose prototxt lies beside the module with its layers."""
    caffe.install()
    (tmp_path / f"{MODULE}.py").write_text(CODE)

    def net(text: str, phase: int = caffe.TEST) -> caffe.Net:
        path = tmp_path / "net.prototxt"
        path.write_text(text)
        return caffe.Net(str(path), phase)

    return net


def layer(kind: str, bottoms: str = "data", tops: str = "top", param_str: str = "", more: str = "") -> str:
    names = " ".join([*(f'bottom: "{b}"' for b in bottoms.split()), *(f'top: "{t}"' for t in tops.split())])
    said = f"module: '{MODULE}' layer: '{kind}'" + (f' param_str: "{param_str}"' if param_str else "")
    return f'layer {{ name: "mine" type: "Python" {names} python_param {{ {said} }} {more} }}\n'


def ramp(*shape: int) -> np.ndarray:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def test_it_computes(make):
    net = make(DATA + layer("Scale", param_str="3"))
    assert np.array_equal(net.forward(data=ramp(2, 3))["top"], 3 * ramp(2, 3))
    net.blobs["data"].reshape(4, 1)
    assert np.array_equal(net.forward(data=ramp(4, 1))["top"], 3 * ramp(4, 1))


def test_setup_comes_once_and_reshape_before_every_pass_with_its_values(make):
    net = make(DATA + layer("Scale"))
    net.forward(data=ramp(2, 3))
    net.forward(data=2 * ramp(2, 3))
    assert net.layers[1].log == ["setup", ("reshape", 0), ("reshape", 15), ("reshape", 30)]


def test_bottom_and_top_are_one_blob_in_place(make):
    net = make(DATA + layer("InPlace", tops="data"))
    view = net.blobs["data"].data
    view[...] = 1
    net.forward()
    net.forward()
    assert view.tolist() == [[3] * 3] * 2


@pytest.mark.parametrize("phase", [caffe.TRAIN, caffe.TEST])
def test_it_makes_data_of_the_size_that_it_likes(make, phase):
    net = make(
        layer("Counter", "", "data number", "{'start': 3}")
        + 'layer { name: "relu" type: "ReLU" bottom: "data" top: "data" }',
        phase,
    )
    assert net.inputs == []
    for count in (3, 4):
        net.forward()
        assert net.blobs["data"].data.shape == (1, 2, count, 4)
        assert (net.blobs["data"].data == count).all()
    assert net.blobs["number"].data.tolist() == [phase]
    net.layers[0].set_count(2)
    assert net.forward()["data"].shape == (1, 2, 2, 4)
    net.layers[0].count = 9
    assert net.forward()["data"].shape == (1, 2, 9, 4)


def test_it_has_parameters_that_are_saved(make, tmp_path):
    net = make(DATA + layer("Learned"))
    assert [blob.shape for blob in net.params["mine"]] == [(2, 3), (1,)]
    net.params["mine"][1].data[...] = 1
    assert (net.forward(data=ramp(2, 3))["top"] == 5).all()
    net.save(str(tmp_path / "w.caffemodel"))
    other = make(DATA + layer("Learned"))
    other.copy_from(str(tmp_path / "w.caffemodel"))
    assert (other.forward(data=ramp(2, 3))["top"] == 5).all()
    third = make(DATA + layer("Learned"))
    third.share_with(net)
    net.params["mine"][0].data[...] = 0
    assert (third.forward(data=ramp(2, 3))["top"] == 1).all()


def test_layers_share_a_parameter_by_name(make):
    named = 'param { name: "w" }'
    net = make(
        DATA
        + layer("Learned", more=named)
        + layer("Learned", "top", "two", more=named).replace("mine", "its")
    )
    net.params["mine"][0].data[...] = 7
    assert (net.forward(data=ramp(2, 3))["two"] == 7).all()


def test_it_may_be_a_loss(make):
    text = DATA.replace('top: "data"', 'top: "data" top: "label"') + layer(
        "Distance", "data label", more="loss_weight: 2"
    )
    net = make(text)
    net.blobs["data"].data[...] = 3
    assert net._forward(0, 1) == 2 * (9 * 6) / 2 / 2


def test_it_reads_what_the_layer_before_computed_and_keeps_it_from_harm(make):
    net = make(DATA + 'layer { name: "r" type: "Power" bottom: "data" top: "p" }\n' + layer("Scale", "p"))
    net.forward(data=ramp(2, 3))
    assert np.array_equal(net.blobs["p"].data, ramp(2, 3))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (layer("Missing"), rf"there is no class 'Missing' in .*{MODULE}\.py"),
        (layer("NotALayer"), "is not derived from caffe.Layer"),
        (layer("Scale", param_str="ten"), rf"Scale\.setup raised ValueError: .*'ten' \(.*{MODULE}\.py:7\)"),
        (layer("Distance"), r"Distance\.setup raised Exception: Need two inputs.*py:\d+\)"),
        (layer("Bare"), r"Bare\.reshape raised NotImplementedError: .*needs reshape"),
        (
            layer("Scale").replace(MODULE, "no_such_module"),
            r"import no_such_module raised ModuleNotFoundError.*\n.*PYTHONPATH.*--output data",
        ),
    ],
)
def test_what_is_wrong_names_the_layer_and_the_users_line(make, text, told):
    with pytest.raises(LayerError, match=rf"net\.prototxt:2: layer 'mine' \(Python\): .*{told}"):
        make(DATA + text)


def test_an_error_in_forward_is_a_runtime_error_too(make):
    net = make(DATA + layer("Failing"))
    with pytest.raises(
        RuntimeError, match=rf"Failing\.forward raised KeyError: 'nothing' \(.*{MODULE}\.py:\d+\)"
    ) as e:
        net.forward(data=ramp(2, 3))
    assert isinstance(e.value, LayerError)
    assert isinstance(e.value.__cause__, KeyError)


def test_a_module_that_misses_caffe_is_told_how_to_get_it(make):
    del sys.modules["caffe"]
    with pytest.raises(
        LayerError, match=rf"named 'caffe' \(.*{MODULE}\.py:2\)\n.*python -m caffe_fcn\.pycaffe"
    ):
        make(DATA + layer("Scale"))


def test_the_search_path_is_left_as_it_was(make):
    before = list(sys.path)
    make(DATA + layer("Scale"))
    assert sys.path == before


def test_onnx_refuses_it_and_says_where_to_cut(make, tmp_path):
    make(DATA + 'layer { name: "r" type: "ReLU" bottom: "data" top: "r" }\n' + layer("Scale", "r"))
    path = tmp_path / "net.prototxt"
    with pytest.raises(UnsupportedError, match=r"runs code of its own; cut the net before it: --output r"):
        convert(path, None, tmp_path / "net.onnx", verify=False)
    convert(path, None, tmp_path / "net.onnx", outputs=["r"], verify=False)
    assert (tmp_path / "net.onnx").exists()


def test_the_other_engine_leaves_such_nets_to_numpy(make, monkeypatch):
    monkeypatch.setattr(engine.chosen, "engine", "onnxruntime")
    net = make(DATA + layer("Scale"))
    with pytest.warns(CaffeWarning, match=r"runs in NumPy.*layer 'mine' \(Python\) runs code of its own"):
        assert np.array_equal(net.forward(data=ramp(2, 3))["top"], 10 * ramp(2, 3))


def test_a_layer_may_be_made_and_used_by_itself():
    class Twice(caffe.Layer):
        def reshape(self, bottom, top):
            top[0].reshape(*bottom[0].shape)

        def forward(self, bottom, top):
            top[0].data[...] = 2 * bottom[0].data

    one, two, made = caffe.Blob((2,)), caffe.Blob(), Twice()
    one.data[...] = 3
    made.setup([one], [two])
    made.reshape([one], [two])
    made.forward([one], [two])
    made.backward([two], [True], [one])
    assert two.data.tolist() == [6, 6]
    assert made.type == "Python"
