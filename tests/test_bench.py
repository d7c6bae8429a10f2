"""Times, and what they are compared with."""

from __future__ import annotations

import json

import numpy as np
import pytest

from caffe_fcn import benchmark
from caffe_fcn.benchmark import WARMUP, Figures, bench, input_shapes, product
from caffe_fcn.cli import call
from caffe_fcn.conversion import convert
from caffe_fcn.errors import CaffeError
from caffe_fcn.export.graph import Graph, Node, Value
from caffe_fcn.export.write import to_model
from caffe_fcn.runtime import Session
from caffe_fcn.runtime.cost import Cost, count
from caffe_fcn.symbols import Extent
from tests.conftest import REFERENCE

NET = REFERENCE / "nets" / "fcn8s-thin-1px.prototxt"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "net.onnx"
    convert(NET, NET.with_suffix(".caffemodel"), path, verify=False)
    return path


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(benchmark, "LIMITS", {"cpu": (64, 2)})


def test_figures():
    times = [0.1] * 18 + [0.2, 0.3]
    figures = Figures(
        "x", {"data": (4, 3, 5, 5)}, "cpu", Cost(1000, "float"), [40_000, 50_000, 20_000], times
    )
    assert figures.median == 0.1
    assert 0.2 <= figures.p95 <= 0.3
    assert figures.images == pytest.approx(40)
    assert figures.rate == pytest.approx(10_000)
    assert figures.limit == 40_000
    assert json.loads(json.dumps(figures.to_dict()))["share_of_limit"] == pytest.approx(0.25)


def test_command(model, small, tmp_path, capsys):
    argmax = tmp_path / "argmax.onnx"
    convert(NET, NET.with_suffix(".caffemodel"), argmax, verify=False, argmax=True, preprocess=True)
    words = [str(model), str(argmax), "--batch", "2", "--rounds", "3", "--device", "cpu"]
    words += ["--input-shape", "data:2,3,20,30"]
    assert call("bench", words, prog="caffe-fcn bench") == 1
    assert "no input 'data'; the inputs are image" in capsys.readouterr().err
    assert call("bench", [str(model), *words[2:], "--json"], prog="caffe-fcn bench") == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["shapes"] == {"data": [2, 3, 20, 30]}
    assert len(found["times_s"]) == 3
    assert found["macs"] == count(model, {"data": (2, 3, 20, 30)}).macs
    assert found["images_per_s"] == pytest.approx(2 / found["median_s"])
    assert call("bench", [str(model), str(model), *words[2:]], prog="caffe-fcn bench") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:2] == lines[2].split()[:2] == ["net.onnx", "2x3x20x30"]
    assert lines[3].startswith("limit: ")
    assert "on cpu" in lines[3]


def test_models_take_turns(model, small, monkeypatch):
    ran = []
    monkeypatch.setattr(benchmark, "product", lambda *kind, **options: (lambda: ran.append("product"), 1))
    monkeypatch.setattr(benchmark, "_filled", lambda session, shapes: lambda: ran.append(session.path[-9:]))
    told = []
    bench([model, model], "cpu", shapes={"data": (1, 3, 8, 8)}, rounds=2, progress=told.append)
    assert ran == ["product", "/net.onnx", "/net.onnx"] * (WARMUP + 2)
    assert sum(told) == 2 * (WARMUP + 2)


def test_shapes(model, tmp_path):
    session = Session(model, "cpu")
    assert input_shapes(session, {}) == {"data": (1, 3, 500, 500)}
    assert input_shapes(session, {}, batch=4) == {"data": (4, 3, 500, 500)}
    assert input_shapes(session, {"data": (2, 3, 8, 8)}) == {"data": (2, 3, 8, 8)}
    with pytest.raises(CaffeError, match=r"is \(2, 3, 8, 8\), --batch asks for 4"):
        input_shapes(session, {"data": (2, 3, 8, 8)}, batch=4)
    with pytest.raises(CaffeError, match="axis 1 is 4 instead of 3"):
        input_shapes(session, {"data": (2, 4, 8, 8)})
    with pytest.raises(CaffeError, match="at least 1 of each"):
        bench([model], rounds=0)
    path = tmp_path / "bytes.onnx"
    convert(NET, NET.with_suffix(".caffemodel"), path, verify=False, preprocess=True)
    assert input_shapes(Session(path, "cpu"), {}) == {"image": (1, 500, 500, 3)}
    shape = (Extent.symbol("N", 1), Extent.symbol("L", 1))
    graph = Graph("g", [Value("x", shape)], [Value("y", shape)], [Node("Relu", ["x"], ["y"], {}, "y", "y")])
    session = Session(to_model(graph, 17).SerializeToString(), "cpu")
    with pytest.raises(
        CaffeError, match=r"'x' is \['N', 'L'\], which leaves its size open\n.*--input-shape x"
    ):
        input_shapes(session, {})
    assert input_shapes(session, {"x": (2, 7)}) == {"x": (2, 7)}


@pytest.mark.parametrize("dtype", ["float", "double"])
def test_product(small, dtype):
    """It is really computed, every time, and is what it says."""
    run, macs = product("cpu", dtype)
    assert macs == 2 * 64**3
    matrix = (np.random.default_rng(0).standard_normal((64, 64)) / 8).astype(np.float64)
    (largest,) = run().values()
    assert largest == pytest.approx((matrix @ matrix @ matrix).max(), rel=1e-4)
