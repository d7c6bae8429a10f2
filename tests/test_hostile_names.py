"""Names that mean something elsewhere: in a path, a page, a table, a terminal, an ONNX file."""

from __future__ import annotations

import csv
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from caffe_fcn.cli import call
from caffe_fcn.conversion import convert
from caffe_fcn.errors import CaffeError
from caffe_fcn.formats import caffemodel
from caffe_fcn.formats.prototxt import format as format_
from caffe_fcn.formats.prototxt import parse, read_net
from caffe_fcn.net import Net
from caffe_fcn.report import render
from caffe_fcn.runtime import Session
from caffe_fcn.tracing import trace
from tests.hostile_nets import NAMES

ODD = [
    *NAMES, "</script><script>alert(1)</script>", "=1+1", "@SUM(A1)", "\x1b[31m", "con/../../etc",
    "a,b;c\"'d", "/etc/passwd", "..\\..", "`id`", "$(id)", "\u202egnp.exe", "\ufeff", "\U0010ffff", "a\r\nb",
    "|", "*x*", "index", "image",
]  # fmt: skip
IDS = ["".join(c if c.isalnum() else f"-{ord(c):x}" for c in name)[:20] or "empty" for name in ODD]
each_name = pytest.mark.parametrize("name", ODD, ids=IDS)


def text_of(name: str) -> str:
    """A net in which everything is called so."""
    from caffe_fcn.formats.caffe_pb2 import LayerParameter, NetParameter

    net = NetParameter(name=name)
    data = LayerParameter(name="input", type="Input", top=["input"])
    data.input_param.shape.add(dim=[1, 3, 8, 8])
    convolution = LayerParameter(name=name, type="Convolution", bottom=["input"], top=[name])
    convolution.convolution_param.num_output = 2
    convolution.convolution_param.kernel_size.append(3)
    relu = LayerParameter(name=f"{name}2", type="ReLU", bottom=[name], top=[f"{name}2"])
    net.layer.extend(
        [data, convolution, relu, LayerParameter(name="x", type="Dropout", bottom=[name], top=["x"])]
    )
    return format_(net)


@each_name
def test_text_holds_any_name(name):
    net = read_net("net", text=text_of(name)).net
    assert net.name == name
    assert net.layer[1].top == [name]
    assert format_(parse(format_(net), type(net))) == format_(net)


@each_name
def test_weights_files_hold_any_name(name, tmp_path):
    arrays = [np.ones((2, 3, 3, 3), np.float32), np.zeros(2, np.float32)]
    caffemodel.write(tmp_path / "net.caffemodel", name, [(name, "Convolution", arrays)])
    read = caffemodel.read(tmp_path / "net.caffemodel")
    assert (read.name, read[0].name) == (name, name)
    net = Net(text_of(name), weights=tmp_path / "net.caffemodel")
    assert np.array_equal(net.params[name][0].data, arrays[0])


class _Page(HTMLParser):
    """The elements of a page, and what its scripts hold."""

    def __init__(self) -> None:
        super().__init__()
        self.scripts: list[str] = []
        self.tags: list[tuple[str, str]] = []
        self.inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, ",".join(sorted(key for key, _ in attrs))))
        self.inside = tag == "script"

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.scripts.append(data)

    def handle_endtag(self, tag: str) -> None:
        self.inside = False


def page(name: str) -> _Page:
    net = Net(text_of(name))
    parsed = _Page()
    parsed.feed(render(trace(net), "html", net))
    return parsed


@each_name
def test_a_page_has_the_same_elements_whatever_the_names(name):
    """No name becomes an element, an attribute or a script."""
    plain, found = page("plain"), page(name)
    benign = {("footer", ""), ("title", ""), ("p", "class")}  # of long names, and where there is none
    assert set(found.tags) <= {*plain.tags, *benign}
    assert len(found.scripts) == len(plain.scripts)


@each_name
def test_tables_hold_any_name(name):
    found = trace(Net(text_of(name)))
    told = json.loads(render(found, "json"))
    assert name in [row["name"] for row in told["rows"]]
    rows = list(csv.reader(io.StringIO(render(found, "csv"), newline="")))
    assert len({len(row) for row in rows if row}) == 1
    for form in ("text", "markdown"):
        lines = render(found, form).splitlines()
        few = render(trace(Net(text_of("plain"))), form).splitlines()
        assert len(name) > 99 or len(lines) == len(few), lines  # long ones are wrapped


@each_name
def test_terminals_are_told_no_control_characters(name, tmp_path, capsys):
    (tmp_path / "net.prototxt").write_text(text_of(name))
    assert call("trace", [str(tmp_path / "net.prototxt")], prog="caffe-fcn trace") == 0
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202e]", capsys.readouterr().out)


@each_name
def test_onnx_files_hold_any_name_or_refuse_it(name, tmp_path):
    (tmp_path / "net.prototxt").write_text(text_of(name))
    try:
        convert(tmp_path / "net.prototxt", None, tmp_path / "net.onnx")
    except CaffeError:
        assert "\0" in name
        assert not (tmp_path / "net.onnx").exists()
        return
    session = Session(tmp_path / "net.onnx", "cpu")
    assert len(session.outputs) == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.onnx", "net.prototxt"]


@each_name
def test_pictures_stay_in_their_folder(name, tmp_path):
    """Whatever a blob is called, its picture is a file of the folder that was asked for."""
    from PIL import Image

    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "net.prototxt").write_text(text_of(name))
    Image.new("RGB", (8, 8)).save(tmp_path / "in" / "image.png")
    arrays = [np.ones((2, 3, 3, 3), np.float32), np.zeros(2, np.float32)]
    caffemodel.write(tmp_path / "in" / "net.caffemodel", "net", [(name, "Convolution", arrays)])
    argv = [str(tmp_path / "in" / n) for n in ("net.prototxt", "net.caffemodel", "image.png")]
    before = sorted((tmp_path / "in").iterdir())
    assert call("features", [*argv, f"--blob={name}", "-o", str(tmp_path / "out")], prog="features") == 0
    assert sorted((tmp_path / "in").iterdir()) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "out"]
    made = [p.name for p in (tmp_path / "out").rglob("*")]
    assert "index.html" in made
    assert len(made) == len(list((tmp_path / "out").iterdir()))
