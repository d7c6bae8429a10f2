"""Scripts that begin with `import caffe`, run as they are: the calls of the FCN repository and of others."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from caffe_fcn import models
from caffe_fcn import pycaffe as caffe
from caffe_fcn.pycaffe import shim
from tests.conftest import HERE, REFERENCE

FCN8S = REFERENCE / "nets" / "fcn8s-thin"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(HERE.parent), "PYTHONWARNINGS": "ignore"}


def run(folder: Path, code: str, *arguments: str, options: tuple[str, ...] = (), code_is: int = 0) -> str:
    """What a script prints; it lies in a folder of its own and runs in `folder`."""
    (folder / "scripts").mkdir(exist_ok=True)
    script = folder / "scripts" / "script.py"
    script.write_text(code)
    command = [sys.executable, "-m", "caffe_fcn.pycaffe", *options, str(script), *arguments]
    done = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == code_is, done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def fcn(tmp_path) -> Path:
    """A folder with a thin FCN-8s, an image, its labels and a data layer, as the FCN repository has them."""
    for ending in (".prototxt", ".caffemodel"):
        (tmp_path / f"net{ending}").write_bytes(FCN8S.with_suffix(ending).read_bytes())
    rng = np.random.default_rng(0)
    for name, size in (("one", (50, 60)), ("two", (64, 40))):
        Image.fromarray(rng.integers(0, 256, (*size, 3)).astype(np.uint8)).save(tmp_path / f"{name}.jpg")
        Image.fromarray(rng.integers(0, 21, size).astype(np.uint8)).save(tmp_path / f"{name}.png")
    return tmp_path


INFER = """
import sys
import numpy as np
from PIL import Image
import caffe

im = Image.open('one.jpg')
in_ = np.array(im, dtype=np.float32)[:, :, ::-1]
in_ = in_ - np.array((104.00698793, 116.66876762, 122.67891434))
in_ = in_.transpose((2, 0, 1))
net = caffe.Net('net.prototxt', 'net.caffemodel', caffe.TEST)
net.blobs['data'].reshape(1, *in_.shape)
net.blobs['data'].data[...] = in_
net.forward()
out = net.blobs['score'].data[0].argmax(axis=0)
Image.fromarray(out.astype(np.uint8)).save(sys.argv[1])
print(__name__, out.shape, sorted(sys.argv[1:]))
"""


def test_inference_in_both_engines(fcn):
    labels = []
    for engine in ("numpy", "onnxruntime"):
        assert "__main__ (50, 60)" in run(fcn, INFER, f"{engine}.png", options=("--engine", engine))
        with Image.open(fcn / f"{engine}.png") as image:
            labels.append(np.array(image))
    assert np.array_equal(*labels)


NET = """
import caffe
from caffe import layers as L, params as P
from caffe.coord_map import crop

def conv_relu(bottom, nout, ks=3, stride=1, pad=1):
    conv = L.Convolution(bottom, kernel_size=ks, stride=stride, num_output=nout, pad=pad,
        param=[dict(lr_mult=1, decay_mult=1), dict(lr_mult=2, decay_mult=0)])
    return conv, L.ReLU(conv, in_place=True)

n = caffe.NetSpec()
n.data, n.label = L.Python(module='voc_layers', layer='Voc', ntop=2, param_str=str(dict(split='val')))
n.conv1, n.relu1 = conv_relu(n.data, 4, pad=20)
n.pool1 = L.Pooling(n.relu1, pool=P.Pooling.MAX, kernel_size=2, stride=2)
n.drop1 = L.Dropout(n.pool1, dropout_ratio=0.5, in_place=True)
n.score_fr = L.Convolution(n.drop1, num_output=3, kernel_size=1)
n.up = L.Deconvolution(n.score_fr,
    convolution_param=dict(num_output=3, kernel_size=4, stride=2, bias_term=False), param=[dict(lr_mult=0)])
n.score = crop(n.up, n.data)
n.loss = L.SoftmaxWithLoss(n.score, n.label, loss_param=dict(normalize=False, ignore_label=255))
with open('made.prototxt', 'w') as f:
    f.write(str(n.to_proto()))
"""


def test_a_net_in_python(fcn):
    run(fcn, NET)
    text = (fcn / "made.prototxt").read_text()
    assert "offset: 20" in text
    assert text.count("layer {") == 9
    assert 'layer: "Voc"' in text


SCORE = """
import caffe
import numpy as np
from PIL import Image

class Pairs(caffe.Layer):
    def setup(self, bottom, top):
        params = eval(self.param_str)
        self.mean = np.array(params['mean'])
        self.indices = open(params['list']).read().splitlines()
        self.idx = 0
    def reshape(self, bottom, top):
        name = self.indices[self.idx]
        image = np.array(Image.open(name + '.jpg'), dtype=np.float32)[:, :, ::-1] - self.mean
        self.data = image.transpose((2, 0, 1))
        self.label = np.array(Image.open(name + '.png'), dtype=np.uint8)[np.newaxis, ...]
        top[0].reshape(1, *self.data.shape)
        top[1].reshape(1, *self.label.shape)
    def forward(self, bottom, top):
        top[0].data[...] = self.data
        top[1].data[...] = self.label
        self.idx = (self.idx + 1) % len(self.indices)
    def backward(self, top, propagate_down, bottom):
        pass

def fast_hist(a, b, n):
    k = (a >= 0) & (a < n)
    return np.bincount(n * a[k].astype(int) + b[k], minlength=n**2).reshape(n, n)

def compute_hist(net, dataset, layer='score', gt='label'):
    n_cl = net.blobs[layer].channels
    hist, loss = np.zeros((n_cl, n_cl)), 0
    for idx in dataset:
        net.forward()
        hist += fast_hist(net.blobs[gt].data[0, 0].flatten(),
                          net.blobs[layer].data[0].argmax(0).flatten(), n_cl)
        loss += net.blobs['loss'].data.flat[0]
    return hist, loss / len(dataset)

def interp(net, layers):
    for l in layers:
        m, k, h, w = net.params[l][0].data.shape
        og = np.ogrid[:h, :h]
        factor = (h + 1) // 2
        center = factor - 1 if h % 2 == 1 else factor - 0.5
        filt = (1 - abs(og[0] - center) / factor) * (1 - abs(og[1] - center) / factor)
        net.params[l][0].data[range(m), range(k), :, :] = filt

if __name__ == '__main__':
    caffe.set_device(0)
    net = caffe.Net('val.prototxt', 'net.caffemodel', caffe.TEST)
    interp(net, [k for k in net.params.keys() if 'up' in k])
    for k in net.params:
        net.params[k][0].data.flat = net.params[k][0].data.flat
    dataset = open('list.txt').read().splitlines()
    hist, loss = compute_hist(net, dataset)
    print(int(hist.sum()), loss, np.nanmean(np.diag(hist) / np.maximum(hist.sum(1), 1)))
    other = caffe.Net('val.prototxt', caffe.TEST)
    other.share_with(net)
    print(compute_hist(other, dataset)[1] == loss)
    solver = caffe.SGDSolver('solver.prototxt')
"""


def test_scoring_with_a_data_layer_in_python(fcn):
    (fcn / "list.txt").write_text("one\ntwo\n")
    net = caffe.proto.caffe_pb2.NetParameter()
    from google.protobuf import text_format

    text_format.Merge((fcn / "net.prototxt").read_text(), net)
    data, *rest = net.layer
    assert data.type == "Input"
    made = caffe.proto.caffe_pb2.NetParameter()
    first = made.layer.add(name="data", type="Python", top=["data", "label"])
    first.python_param.module, first.python_param.layer = "script", "Pairs"
    first.python_param.param_str = str({"mean": (104.0, 117.0, 123.0), "list": "list.txt"})
    made.layer.extend(rest)
    made.layer.add(name="loss", type="SoftmaxWithLoss", bottom=["score", "label"], top=["loss"])
    (fcn / "val.prototxt").write_text(str(made))
    said = run(fcn, SCORE, code_is=1)
    pixels, loss, _ = said.splitlines()[0].split()
    assert int(pixels) == 50 * 60 + 64 * 40
    assert float(loss) > 0
    assert said.splitlines()[1] == "True"
    assert "CaffeError: caffe.SGDSolver: training is out of scope" in said


EVALUATE = """
import argparse
import caffe
import caffe.io
from caffe.proto import caffe_pb2
import caffe.draw
import numpy as np

parser = argparse.ArgumentParser()
parser.add_argument('--caffemodel_dir', required=True)
parser.add_argument('--gpu_id', type=int, default=0)
args = parser.parse_args()
caffe.set_device(args.gpu_id)
caffe.set_mode_gpu()
net = caffe.Net(args.caffemodel_dir + '/net.prototxt', args.caffemodel_dir + 'net.caffemodel', caffe.TEST)

def segrun(net, in_):
    net.blobs['data'].reshape(1, *in_.shape)
    net.blobs['data'].data[...] = in_
    net.forward()
    return net.blobs['score'].data[0].argmax(axis=0).astype(np.uint8)

image = caffe.io.load_image('one.jpg')
transformer = caffe.io.Transformer({'data': (1, 3, 48, 32)})
transformer.set_transpose('data', (2, 0, 1))
transformer.set_raw_scale('data', 255)
out = segrun(net, transformer.preprocess('data', image))
param = caffe_pb2.NetParameter()
param.layer.add(name='a', type='ReLU')
print(out.shape, param.layer[0].name, sorted(k for k in net.blobs if 'upscore' in k)[:1])
"""


@pytest.mark.parametrize("engine", ["numpy", "onnxruntime"])
def test_evaluation_with_options_of_its_own(fcn, engine):
    said = run(fcn, EVALUATE, "--caffemodel_dir", f"{fcn}/", options=("--engine", engine, "--device", "cpu"))
    assert said.startswith("(48, 32) a ['upscore")


def test_a_module_instead_of_a_file(fcn):
    (fcn / "there.py").write_text("import caffe, sys; print(caffe.__name__, __name__, sys.argv[1:])")
    command = [sys.executable, "-m", "caffe_fcn.pycaffe", "-m", "there", "-x", "1"]
    done = subprocess.run(command, cwd=fcn, env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "caffe_fcn.pycaffe __main__ ['-x', '1']"


def test_an_installed_caffe_is_never_shadowed_in_silence(tmp_path):
    (tmp_path / "scripts" / "caffe").mkdir(parents=True)
    (tmp_path / "scripts" / "caffe" / "__init__.py").write_text("")
    code = "import caffe; print(hasattr(caffe, 'Net'))"
    said = run(tmp_path, code, code_is=1)
    assert "another caffe is there: " in said
    assert "caffe/__init__.py" in said.replace(os.sep, "/")
    assert run(tmp_path, code, options=("--force",)).strip() == "True"


def test_a_folder_that_is_only_called_caffe_is_no_caffe(tmp_path):
    (tmp_path / "scripts" / "caffe" / "python").mkdir(parents=True)
    assert run(tmp_path, "import caffe; print(hasattr(caffe, 'Net'))").strip() == "True"


def test_inside_a_program(monkeypatch):
    for name in shim.MODULES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    caffe.install()
    caffe.install()
    import caffe as theirs
    import caffe.proto.caffe_pb2 as messages
    from caffe import layers as L  # noqa: N812
    from caffe.pycaffe import Net

    assert theirs is caffe
    assert Net is caffe.Net
    assert messages is caffe.proto.caffe_pb2
    assert L.ReLU
    for name in shim.MODULES:
        found = sys.modules.pop(name)
        assert functools.reduce(getattr, name.split(".")[1:], caffe) is found
    monkeypatch.setitem(sys.modules, "caffe", os)
    with pytest.raises(caffe.CaffeError, match="another caffe is there"):
        caffe.install()


def test_the_models_of_the_package_are_nets_for_scripts():
    net = caffe.Net(models.fcn8s(classes=4, widths=(2, 3, 4, 5, 6), fc=7, size=(31, 65)), caffe.TEST)
    assert net.outputs == ["score"]
