"""Nets of one layer, run both ways: NumPy and ONNX."""

from __future__ import annotations

import numpy as np

from caffe_fcn.export.exporter import export
from caffe_fcn.export.write import to_model
from caffe_fcn.formats.prototxt import read_net
from caffe_fcn.net import TEST, Net
from caffe_fcn.runtime import Session
from tests.reference_cases import assert_close

IMAGE = (2, 6, 5, 4)
NAMES = "abcdef"


def build(layer: str, *shapes, phase=TEST, top="top") -> Net:
    """A net of one layer (named `layer`) on inputs a, b, c ..."""
    inputs = [
        f'layer {{ name: "{n}" type: "Input" top: "{n}" input_param {{ shape {{ {dims(s)} }} }} }}'
        for n, s in zip(NAMES, shapes, strict=False)
    ]
    bottoms = " ".join(f'bottom: "{n}"' for n, _ in zip(NAMES, shapes, strict=False))
    text = "\n".join([*inputs, f'layer {{ name: "layer" {bottoms} top: "{top}" {layer} }}'])
    return Net(read_net("net", text=text), phase)


def dims(shape) -> str:
    return " ".join(f"dim: {n}" for n in shape)


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32) * 2


def misaligned(array):
    """The same values at an odd address, as in a file."""
    memory = np.empty(array.nbytes + 1, np.uint8)
    memory[1:] = np.frombuffer(array.tobytes(), np.uint8)
    moved = memory[1:].view(np.float32).reshape(array.shape)
    assert moved.flags.aligned == (moved.size == 0)
    return moved


def run(net: Net, *arrays, opset=17, session: Session | None = None):
    """The outputs of NumPy, after checking that ONNX gives the same (at these arrays' shapes)."""
    fed = dict(zip(NAMES, arrays, strict=False))
    for name, array in fed.items():
        net.blobs[name].reshape(*array.shape)
    net.reshape()
    told = {name: net.blobs[name].shape for name in net.outputs}
    got = {name: array.copy() for name, array in net.forward(**fed).items()}
    assert {name: array.shape for name, array in got.items()} == told
    session = session or to_session(net, opset)
    for name, array in session.run({n: fed[n] for n in session.inputs}).items():
        assert_close(array, got[name], name)
    return got if len(got) > 1 else next(iter(got.values()))


def to_session(net: Net, opset=17) -> Session:
    graph = export(net, opset=opset).graph
    return Session(to_model(graph, opset).SerializeToString(), "cpu")


def nodes(net: Net) -> list[str]:
    return [node.op for node in export(net).graph.nodes]
