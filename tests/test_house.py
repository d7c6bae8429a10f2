"""What must not rot: public names, import weight, generated files, the registry, what commands say."""

from __future__ import annotations

import csv
import re
import subprocess
import sys

import pytest

import caffe_fcn
from caffe_fcn.cli import COMMANDS, call
from caffe_fcn.formats import caffe_pb2
from caffe_fcn.layers import LAYERS, Layer
from tests.conftest import HERE, REFERENCE

ROOT = HERE.parent


def python(code: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize("name", caffe_fcn.__all__)
def test_public_names_load(name):
    assert getattr(caffe_fcn, name) is not None


def test_functions_stay_functions():
    """A submodule of the same name would take a function's place once it is imported."""
    out = python(
        "import caffe_fcn, caffe_fcn.conversion, caffe_fcn.verification, caffe_fcn.tracing;"
        "print(callable(caffe_fcn.convert), callable(caffe_fcn.trace), callable(caffe_fcn.verify))"
    )
    assert out.split() == ["True"] * 3


@pytest.mark.parametrize(
    ("statement", "light_of"),
    [
        ("import caffe_fcn", ("numpy", "google.protobuf", "onnx", "onnxruntime", "h5py", "PIL")),
        ("import caffe_fcn.net", ("onnx", "onnxruntime", "h5py", "PIL", "lmdb")),
        ("import caffe_fcn.tracing, caffe_fcn.cli.trace", ("onnx", "onnxruntime", "h5py", "PIL")),
    ],
)
def test_imports_stay_light(statement, light_of):
    out = python(f"import sys; {statement}; print([m for m in {light_of!r} if m in sys.modules])")
    assert out.strip() == "[]"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_each_command(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        call(command, ["--help"], prog=f"caffe-fcn {command}")
    assert stopped.value.code == 0
    said = capsys.readouterr().out
    assert said.startswith(f"usage: caffe-fcn {command}")
    assert "--debug" in said


def test_the_schema_has_caffes_facts():
    """Every message, field, number and label of the table, and nothing else in its messages."""
    labels = {1: "optional", 2: "required", 3: "repeated"}
    with open(REFERENCE / "caffe_schema.csv", newline="") as file:
        facts = list(csv.DictReader(file))
    for fact in facts:
        owner = caffe_pb2.DESCRIPTOR
        if fact["kind"] == "field":
            field = owner.message_types_by_name[fact["owner"]].fields_by_name[fact["name"]]
            assert field.number == int(fact["number"]), fact
            assert labels[_label(field)] == fact["label"], fact
            if fact["default"]:
                assert _default(field) == fact["default"], fact
        else:
            *outer, name = fact["owner"].split(".")
            enums = (
                owner.message_types_by_name[outer[0]].enum_types_by_name
                if outer
                else owner.enum_types_by_name
            )
            assert enums[name].values_by_name[fact["name"]].number == int(fact["number"]), fact
    ours = {
        (message.name, field.name)
        for message in caffe_pb2.DESCRIPTOR.message_types_by_name.values()
        for field in message.fields
        if field.number < 20000
    }
    theirs = {(f["owner"], f["name"]) for f in facts if f["kind"] == "field"}
    assert theirs <= ours
    stock = {f["owner"] for f in facts}
    assert {pair for pair in ours if pair[0] in stock} == theirs


def _default(field) -> str:
    """The default as the table writes it."""
    if field.enum_type is not None:
        return field.enum_type.values_by_number[field.default_value].name
    if isinstance(field.default_value, float):
        return format(float(f"{field.default_value:.7g}"), "g")
    return (
        str(field.default_value).lower()
        if isinstance(field.default_value, bool)
        else str(field.default_value)
    )


def _label(field) -> int:
    repeated = field.is_repeated if hasattr(field, "is_repeated") else field.label == 3
    required = field.is_required if hasattr(field, "is_required") else field.label == 2
    return 3 if repeated else 2 if required else 1


def test_generated_messages_are_up_to_date():
    pytest.importorskip("grpc_tools")
    sys.path.insert(0, str(ROOT / "tools"))
    import make_pb2

    assert make_pb2.TARGET.read_text() == make_pb2.source()


@pytest.mark.parametrize("name", sorted(LAYERS))
def test_every_layer_says_what_it_is(name):
    """A docstring with its shapes, and a lowering or a reason for having none."""
    kind = LAYERS[name]
    assert kind.__doc__, f"{name} has no docstring"
    lowers = any("to_onnx" in base.__dict__ for base in kind.__mro__ if base not in (Layer, object))
    assert lowers or kind.no_onnx, f"{name} has neither a lowering nor a reason"


def test_stock_caffe_is_all_there():
    stock = """AbsVal Accuracy ArgMax BatchNorm BatchReindex Bias BNLL Clip Concat ContrastiveLoss Convolution
    Crop Data Deconvolution Dropout DummyData Eltwise ELU Embed EuclideanLoss Exp Filter Flatten HDF5Data
    HDF5Output HingeLoss Im2col ImageData InfogainLoss InnerProduct Input Log LRN LSTM LSTMUnit RNN MemoryData
    MultinomialLogisticLoss MVN Parameter Pooling Power PReLU Python Reduction ReLU Reshape Scale Sigmoid
    SigmoidCrossEntropyLoss Silence Slice Softmax SoftmaxWithLoss Split SPP Swish TanH Threshold Tile
    WindowData"""
    assert set(stock.split()) <= set(LAYERS)


def test_files_can_be_read_in_one_sitting():
    long = {
        str(path.relative_to(ROOT)): lines
        for path in (ROOT / "caffe_fcn").rglob("*.py")
        if path.name != "caffe_pb2.py" and (lines := len(path.read_text().splitlines())) > 400
    }
    assert not long


def test_the_readme_names_real_commands():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"caffe-fcn ([a-z]+)", readme))
    assert named <= {*COMMANDS, "reads"}  # "caffe-fcn reads ..."
    assert "make demo" in readme
    assert "make test" in readme
    assert "make test" in (ROOT / ".ci" / "run").read_text()


def test_the_readmes_table_is_the_registrys():
    sys.path.insert(0, str(ROOT / "tools"))
    import make_docs

    assert make_docs.README.read_text(encoding="utf-8") == make_docs.page()
