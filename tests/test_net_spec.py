"""NetSpec: what pycaffe's net_spec gives, and the messages that it does not give."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from google.protobuf.descriptor import FieldDescriptor

from caffe_fcn.errors import CaffeError, LayerError
from caffe_fcn.formats import caffe_pb2
from caffe_fcn.formats.prototxt import format as to_text
from caffe_fcn.formats.prototxt import parse
from caffe_fcn.net_spec import Function, NetSpec, NotATopError, UnknownTopError, to_proto
from caffe_fcn.net_spec import layers as L  # noqa: N812
from caffe_fcn.net_spec import params as P  # noqa: N812


def layer(top, **kwargs):
    """The LayerParameter of a single layer."""
    n = NetSpec()
    n.x = top
    return n.to_proto().layer[-1]


def data(ntop=1):
    return L.DummyData(shape={"dim": [1, 3, 8, 8]}, ntop=ntop)


def written(text):
    return parse(text, caffe_pb2.LayerParameter)


def test_a_net_is_its_layers_under_the_names_given():
    n = NetSpec()
    n.data, n.label = L.Data(batch_size=2, source="lmdb", ntop=2, transform_param={"scale": 0.5})
    n.conv = L.Convolution(n.data, num_output=4, kernel_size=3)
    n.relu = L.ReLU(n.conv, in_place=True)
    n.fc = L.InnerProduct(n.relu, num_output=2, weight_filler={"type": "xavier"})
    n.loss = L.SoftmaxWithLoss(n.fc, n.label, loss_weight=2)
    assert [(p.name, p.type, list(p.bottom), list(p.top)) for p in n.to_proto().layer] == [
        ("data", "Data", [], ["data", "label"]),
        ("conv", "Convolution", ["data"], ["conv"]),
        ("relu", "ReLU", ["conv"], ["conv"]),
        ("fc", "InnerProduct", ["conv"], ["fc"]),
        ("loss", "SoftmaxWithLoss", ["fc", "label"], ["loss"]),
    ]
    assert list(n.to_proto().layer[-1].loss_weight) == [2]
    assert n.to_proto().layer[0].data_param.batch_size == 2
    assert n.to_proto().layer[0].transform_param.scale == 0.5


def test_its_text_parses_back():
    n = NetSpec()
    n.data = data()
    n.conv = L.Convolution(n.data, num_output=4, kernel_size=[3, 5], param=[{"lr_mult": 1}, {"lr_mult": 2}])
    net = n.to_proto()
    for text in (str(net), to_text(net)):
        assert parse(text, caffe_pb2.NetParameter) == net


def test_layers_without_names_get_numbered_ones():
    top, label = data(ntop=2)
    top = L.ReLU(L.ReLU(L.Convolution(top, num_output=1, kernel_size=1)), in_place=True)
    net = L.EuclideanLoss(top, label).to_proto()
    assert [(p.name, list(p.top)) for p in net.layer] == [
        ("DummyData1", ["DummyData1", "DummyData2"]),
        ("Convolution1", ["Convolution1"]),
        ("ReLU1", ["ReLU1"]),
        ("ReLU2", ["ReLU1"]),
        ("EuclideanLoss1", ["EuclideanLoss1"]),
    ]


def test_to_proto_of_several_tops_shares_what_they_need():
    top = data()
    a, b = L.ReLU(top), L.TanH(top)
    assert [p.type for p in to_proto(a, b).layer] == ["DummyData", "ReLU", "TanH"]


def test_layers_without_tops_are_named_by_what_they_are_assigned_to():
    n = NetSpec()
    n.a, n.b = data(ntop=2)
    n.silence = L.Silence(n.a, n.b, ntop=0)
    silence = n.to_proto().layer[-1]
    assert (silence.name, list(silence.bottom), list(silence.top)) == ("silence", ["a", "b"], [])


def test_only_what_is_needed_or_assigned_is_written():
    n = NetSpec()
    n.data = data()
    L.ReLU(n.data)
    assert [p.name for p in n.to_proto().layer] == ["data"]


@pytest.mark.parametrize(
    ("kind", "parameters", "text"),
    [
        ("Pooling", {"pool": P.Pooling.AVE, "stride": 2}, "pooling_param { pool: AVE stride: 2 }"),
        ("Pooling", {"pool": "MAX", "stride_h": 3}, "pooling_param { pool: MAX stride_h: 3 }"),
        ("Convolution", {"kernel_size": 3}, "convolution_param { kernel_size: 3 }"),
        ("Convolution", {"pad": np.array([3, 5])}, "convolution_param { pad: [3, 5] }"),
        ("Convolution", {"num_output": np.int64(4)}, "convolution_param { num_output: 4 }"),
        ("Convolution", {"bias_term": np.bool_(False)}, "convolution_param { bias_term: false }"),
        ("Convolution", {"convolution_param": {"pad": [1, 2]}}, "convolution_param { pad: [1, 2] }"),
        ("Deconvolution", {"num_output": 2, "stride": 4}, "convolution_param { num_output: 2 stride: 4 }"),
        ("Im2col", {"kernel_size": 3}, "convolution_param { kernel_size: 3 }"),
        ("Dropout", {"include": {"phase": 0}, "dropout_ratio": 1},
         "include { phase: TRAIN } dropout_param { dropout_ratio: 1 }"),
        ("Dropout", {"include": [{"phase": "TEST"}, {"stage": ["a", "b"]}]},
         'include { phase: TEST } include { stage: "a" stage: "b" }'),
        ("Scale", {"filler": {"type": "constant", "value": 0.5}, "param": [{"lr_mult": 0}, {"name": "b"}]},
         'scale_param { filler { type: "constant" value: 0.5 } } param { lr_mult: 0 } param { name: "b" }'),
        ("PReLU", {"channel_shared": True, "loss_weight": [1]},
         "prelu_param { channel_shared: true } loss_weight: 1"),
        ("Python", {"module": "m", "layer": "C", "param_str": "{'a': 1}"},
         """python_param { module: "m" layer: "C" param_str: "{'a': 1}" }"""),
        ("SoftmaxWithLoss", {"loss_param": {"ignore_label": 255}, "propagate_down": [True, False]},
         "loss_param { ignore_label: 255 } propagate_down: [true, false]"),
        ("OfSomeFork", {"phase": 1}, "phase: TEST"),
    ],
)  # fmt: skip
def test_parameters_go_where_the_schema_has_them(kind, parameters, text):
    made = layer(getattr(L, kind)(data(), **parameters))
    assert made == written(f'name: "x" type: "{kind}" bottom: "DummyData1" top: "x" {text}')


def test_name_is_the_layers_and_not_the_blobs():
    made = layer(L.Input(name="input", shape={"dim": [1]}))
    assert (made.name, list(made.top)) == ("input", ["x"])


PLAIN = (FieldDescriptor.CPPTYPE_UINT32, FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_FLOAT)
SETTINGS = [f for f in caffe_pb2.LayerParameter.DESCRIPTOR.fields if f.name.endswith("_param")]


@pytest.mark.parametrize("field", SETTINGS, ids=lambda field: field.name)
def test_the_type_of_a_message_is_in_its_name(field):
    kind = field.message_type.name.removesuffix("Parameter")
    for inner in field.message_type.fields:
        if inner.cpp_type in PLAIN and not inner.name.endswith("param"):
            assert Function(kind, (), {inner.name: 1}).to_layer().HasField(field.name)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"kernal_size": 3}, "there is no parameter 'kernal_size'\n  did you mean kernel_size"),
        ({"kernel_size": "three"}, "'kernel_size': "),
        ({"num_output": -1}, "'num_output': "),
        (
            {"weight_filler": {"typ": "msra"}},
            "'weight_filler': FillerParameter has no field 'typ'\n  did you mean type",
        ),
        ({"bias_filler": "msra"}, "'bias_filler': is a FillerParameter: expected a dict, got 'msra'"),
        ({"engine": "CUDNN2"}, "'engine': 'CUDNN2' is none of DEFAULT, CAFFE, CUDNN"),
    ],
)
def test_a_wrong_parameter_is_named(parameters, message):
    with pytest.raises(LayerError) as error:
        layer(L.Convolution(data(), **parameters))
    assert str(error.value).startswith(f"<NetSpec>: layer 'x' (Convolution): {message}")


def test_only_tops_are_inputs():
    with pytest.raises(TypeError, match=r"^Silence input 0 is not a Top \(type is <class 'tuple'>\)$"):
        L.Silence(data(ntop=2), ntop=0)


def test_only_tops_are_assigned():
    n = NetSpec()
    with pytest.raises(NotATopError, match=r"n\.data: is not a Top"):
        n.data = data(ntop=2)


def test_more_tops_in_place_than_bottoms():
    with pytest.raises(CaffeError, match="ntop is 2, but in place the tops are the 1 bottoms"):
        L.ReLU(data(), in_place=True, ntop=2)


def test_a_top_that_is_not_there():
    n = NetSpec()
    n.conv1 = data()
    for kind in (UnknownTopError, AttributeError, CaffeError):
        with pytest.raises(kind, match=r"^no 'conv' in this NetSpec\n  did you mean conv1"):
            n.conv  # noqa: B018
    with pytest.raises(KeyError):
        n["conv"]
    assert not hasattr(n, "conv")
    assert n["conv1"] is n.conv1


def test_an_unknown_group_of_constants():
    with pytest.raises(
        AttributeError, match="no PolingParameter in the schema did you mean PoolingParameter"
    ):
        P.Poling  # noqa: B018


def test_a_deep_net_needs_no_deep_stack():
    top = data()
    for _ in range(3000):
        top = L.ReLU(top)
    assert len(top.to_proto().layer) == 3001


def test_an_empty_net():
    assert NetSpec().to_proto() == caffe_pb2.NetParameter() == to_proto()


@pytest.mark.parametrize("first", ["pass", "caffe_fcn.Net", "import caffe_fcn.net_spec"])
def test_the_package_has_it_whatever_was_imported_first(first):
    """`caffe_fcn.layers` is also the package of the layer classes."""
    program = (
        f"import caffe_fcn; {first}; from caffe_fcn import layers as L, params as P, NetSpec; "
        "from caffe_fcn.layers import LAYERS; n = NetSpec(); n.data = L.Input(shape={'dim': [1]}); "
        "n.pool = L.Pooling(n.data, pool=P.Pooling.MAX); print('Pooling' in LAYERS, len(n.to_proto().layer))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("True 2\n", "")
