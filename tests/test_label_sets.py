"""Class names and colours of the FCN family, as an ONNX file's metadata carries them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from caffe_fcn import labels
from caffe_fcn.export.exporter import export
from caffe_fcn.export.finish import Pixels, finish
from caffe_fcn.net import Net
from caffe_fcn.report.lowering import _hollow
from tests.small_nets import PROTOTXTS

SETS = {
    "voc": {"score": labels.VOC},
    "nyud": {"score": labels.NYUD},
    "siftflow": {"score_sem": labels.SIFTFLOW, "score_geo": labels.GEOMETRIC},
    "pascalcontext": {"score": labels.CONTEXT},
    "shapes": {"score": labels.SHAPES},
    "caffenet": {},
    "vgg16": {},
}


@pytest.mark.parametrize("name", [p.parent.name for p in sorted(PROTOTXTS.glob("*/deploy.prototxt"))])
@pytest.mark.parametrize("argmax", [False, True])
def test_metadata(name, argmax):
    net, wanted = Net(PROTOTXTS / name / "deploy.prototxt"), SETS[name.split("-")[0]]
    with _hollow(net):
        graph = export(net).graph
    finish(graph, Pixels(), softmax_=False, argmax_=argmax, preprocess_=False)
    ending = "_label" if argmax else ""
    names = json.loads(graph.metadata.get("classes", "{}"))
    assert names == {f"{output}{ending}": list(found.classes) for output, found in wanted.items()}
    for output, colours in json.loads(graph.metadata.get("palette", "{}")).items():
        assert np.array_equal(colours, labels.palette(len(names[output])))


def test_the_sets():
    many = {s.name: len(s.classes) for s in (labels.VOC, labels.CONTEXT, labels.NYUD, labels.SIFTFLOW)}
    assert list(many.values()) == [21, 60, 40, 33]  # Context: 59 and the background
    for found in (labels.VOC, labels.CONTEXT, labels.NYUD, labels.SIFTFLOW, labels.GEOMETRIC, labels.SHAPES):
        assert len(set(found.classes)) == len(found.classes)
    assert labels.CONTEXT.classes[:21] == labels.VOC.classes
