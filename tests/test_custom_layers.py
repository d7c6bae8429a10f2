"""Layer types of the user's own: the example of docs/adding-a-layer.md, and what goes wrong."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np
import pytest

import caffe_fcn
from caffe_fcn.cli import call
from caffe_fcn.errors import CaffeError, CaffeWarning, LayerError
from caffe_fcn.formats import caffemodel, text_reader
from caffe_fcn.layers import LAYERS, custom, load_layers
from caffe_fcn.runtime import Session

GUIDE = Path(__file__).resolve().parent.parent / "docs" / "adding-a-layer.md"


@pytest.fixture(autouse=True)
def _forget(monkeypatch):
    """Each test starts without layer types of the user's."""
    monkeypatch.setattr(custom, "_loaded", {})
    monkeypatch.setattr(text_reader, "EXPECTED", set())
    monkeypatch.setattr(custom, "EXPECTED", text_reader.EXPECTED)
    before = dict(LAYERS)
    yield
    LAYERS.clear()
    LAYERS.update(before)


def example(folder: Path) -> dict[str, Path]:
    """The files of the guide: gate.prototxt and my_layers.py."""
    blocks = dict(
        re.findall(r"`(gate\.prototxt|my_layers\.py)`:\n\n```\w+\n(.*?)```", GUIDE.read_text(), re.S)
    )
    assert set(blocks) == {"gate.prototxt", "my_layers.py"}
    for name, text in blocks.items():
        (folder / name).write_text(text)
    return {name: folder / name for name in blocks}


def test_the_guides_layer_runs_and_converts(tmp_path) -> None:
    files = example(tmp_path)
    assert load_layers(files["my_layers.py"]) == ["Gate"]
    with warnings.catch_warnings():
        warnings.simplefilter("error", CaffeWarning)  # its gate_param is no unknown field any more
        net = caffe_fcn.Net(files["gate.prototxt"], caffe_fcn.TEST)
    slope = np.linspace(-1, 1, 4).astype(np.float32)
    net.params["gate"][0].data[...] = slope
    image = np.random.default_rng(0).standard_normal((1, 3, 32, 48)).astype(np.float32)
    gate = net.forward(data=image)["gate"]
    x = net.blobs["conv"].data
    np.testing.assert_array_equal(gate, x * np.clip(slope[:, None, None] * x + np.float32(0.25), 0, 1))
    path = tmp_path / "gate.onnx"
    stored = [(n, net.layer_dict[n].type, [b.data for b in blobs]) for n, blobs in net.params.items()]
    caffemodel.write(tmp_path / "gate.caffemodel", "gated", stored)
    result = caffe_fcn.convert(files["gate.prototxt"], tmp_path / "gate.caffemodel", path)
    assert result.inputs == {"data": ["N", 3, "H", "W"]}
    np.testing.assert_allclose(Session(path, "cpu").run({"data": image})["gate"], gate, atol=1e-5)


def test_commands_take_the_file(tmp_path, capsys) -> None:
    files = example(tmp_path)
    arguments = [str(files["gate.prototxt"]), "-", str(tmp_path / "out.onnx")]
    assert call("convert", arguments, "convert-fcn") == 1
    assert "unknown layer type 'Gate'" in capsys.readouterr().err
    assert call("convert", [*arguments, "--layers", str(files["my_layers.py"])], "convert-fcn") == 0
    assert "warning" not in capsys.readouterr().err
    assert call("trace", [arguments[0], "--layers", str(files["my_layers.py"])], "caffe-fcn trace") == 0
    assert "Gate" in capsys.readouterr().out


def test_a_check_of_the_users_names_the_line(tmp_path) -> None:
    files = example(tmp_path)
    load_layers(files["my_layers.py"])
    files["gate.prototxt"].write_text(files["gate.prototxt"].read_text().replace("0.25", "2"))
    with pytest.raises(LayerError, match=r"gate.prototxt:7: layer 'gate' \(Gate\): offset 2 is not between"):
        caffe_fcn.Net(files["gate.prototxt"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import nothing_of_that_name", r"my.py:1: ModuleNotFoundError: No module named"),
        ("x = (", r"my.py: SyntaxError"),
        ("x = 1", r"has no layer type in it\n  derive a class"),
        (
            "from caffe_fcn.layers import Layer\nclass New(Layer): pass\nclass ReLU(Layer): pass",
            r"my.py:3: TypeError: layer type ReLU is registered twice",
        ),
    ],
)
def test_what_is_wrong_with_a_file_is_said_and_nothing_registered(tmp_path, text, message) -> None:
    (tmp_path / "my.py").write_text(text)
    before = dict(LAYERS)
    with pytest.raises(CaffeError, match=message):
        load_layers(tmp_path / "my.py")
    assert before == LAYERS


def test_a_missing_file(tmp_path) -> None:
    with pytest.raises(CaffeError, match=r"none.py: no such file"):
        load_layers(tmp_path / "none.py")
    (tmp_path / "layers.txt").write_text("")
    with pytest.raises(CaffeError, match=r"is not a Python file"):
        load_layers(tmp_path / "layers.txt")


def test_a_file_is_loaded_once_and_may_import_from_beside_it(tmp_path) -> None:
    (tmp_path / "beside_it.py").write_text("SLOPE = 3")
    text = (
        "from beside_it import SLOPE\nfrom caffe_fcn.layers import Layer\n"
        "class _Base(Layer):\n    slope = SLOPE\n"
        "class Own(_Base, bottoms=2): pass\n"
    )
    (tmp_path / "my.py").write_text(text)
    assert load_layers(tmp_path / "my.py") == ["Own"]
    assert load_layers(tmp_path / "my.py") == ["Own"]
    assert LAYERS["Own"].slope == 3
    assert LAYERS["Own"].bottoms == range(2, 3)
