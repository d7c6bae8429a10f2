"""Nets of a hundred thousand layers: time and memory grow with the layers, and no faster."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from caffe_fcn.deploy import pruned, to_deploy
from caffe_fcn.errors import CaffeError, LayerError
from caffe_fcn.export import passes
from caffe_fcn.export.exporter import export
from caffe_fcn.export.write import to_model
from caffe_fcn.formats.prototxt import format as format_
from caffe_fcn.formats.prototxt import read_net
from caffe_fcn.net import Net
from caffe_fcn.report import render
from caffe_fcn.tracing import trace
from tests.hostile import limited

INPUT = 'layer { name: "d" type: "Input" top: "d" input_param { shape { dim: 1 dim: 1 dim: 8 dim: 8 } } }\n'
CONV = "convolution_param { num_output: 1 kernel_size: 3 pad: 1 }"
POOL = "pooling_param { kernel_size: 2 stride: 2 }"


def line(i: int, type_: str, bottoms: str, top: str, fields: str = "") -> str:
    reads = " ".join(f'bottom: "{b}"' for b in bottoms.split())
    return f'layer {{ name: "l{i}" type: "{type_}" {reads} top: "{top}" {fields} }}\n'


def before(i: int, n: int = 1) -> str:
    """The blob n layers above."""
    return f"b{i - n}" if i >= n else "d"


#: One layer of each kind of large net.
SHAPES: dict[str, Callable[[int], str]] = {
    "in place": lambda i: line(i, "ReLU", "d", "d"),
    "chain": lambda i: line(i, "Convolution", before(i), f"b{i}", CONV),
    "shared": lambda i: line(i, "Convolution", before(i), f"b{i}", CONV + ' param { name: "w" }'),
    "shrinking": lambda i: line(i, "Pooling", before(i), f"b{i}", POOL),
    "fan": lambda i: line(i, "ReLU", "d", f"b{i}"),
    "diamonds": lambda i: line(i, "Eltwise", f"{before(i)} {before(i)}", f"b{i}"),
    "ladder": lambda i: line(i, "Eltwise", f"{before(i)} {before(i, 2)}", f"b{i}"),
    "losses": lambda i: line(i, "EuclideanLoss", "d d", f"b{i}"),
    "of one name": lambda i: line(0, "TanH", before(i), f"b{i}"),
    "rules": lambda i: line(i, "ReLU", "d", "d", 'exclude { stage: "x" }'),
    "unread fields": lambda i: line(i, "ReLU", "d", "d", f"field{i}: 1"),
    "reshapes": lambda i: line(i, "Reshape", before(i), f"b{i}", "reshape_param { num_axes: 0 }"),
}
#: For each of these the whole net is gone through: as often as some limit says, and then no more.
SEARCHED: dict[str, Callable[[int], str]] = {
    "crops": lambda i: line(i, "Crop", f"{before(i)} d", f"b{i}", "crop_param { axis: 2 offset: 0 }"),
    "inputs": lambda i: INPUT.replace('"d"', f'"i{i}"') + line(i, "ReLU", f"i{i}", f"b{i}"),
}
FEW = 40


def text_of(shape: str, layers: int) -> str:
    one = {**SHAPES, **SEARCHED}[shape]
    return INPUT + "".join(map(one, range(layers)))


def everything(text: str) -> None:
    read = read_net("net", text=text)
    format_(read)
    pruned(to_deploy(read))
    net = Net(read)
    render(trace(net), "json")
    graph = export(net).graph
    passes.run(graph)
    to_model(graph, 17)


def calls(run: Callable[[], None]) -> int:
    """How many functions are called, Python's own ones included: no busy machine slows that clock."""
    count = 0

    def counted(_: object, event: str, __: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(counted)
    try:
        run()
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("shape", SHAPES)
def test_work_grows_with_the_layers(shape):
    """Twice the layers, twice the calls; four times would be quadratic."""
    everything(text_of(shape, 20))  # what is done once
    once, twice = (calls(lambda n=n: everything(text_of(shape, n))) for n in (FEW, 2 * FEW))
    assert twice < 2.5 * once


BUILT = """
from caffe_fcn.deploy import pruned, to_deploy
from caffe_fcn.formats.prototxt import read_net
from caffe_fcn.net import Net
read = read_net("net", text=sys.stdin.read())
pruned(to_deploy(read))
print(len(Net(read).layers))
"""


def test_a_hundred_thousand_layers_are_read_cut_and_built():
    assert limited(BUILT, given=text_of("in place", 100_000), memory=2 << 30, seconds=60).strip() == "100001"


WHOLE = (
    BUILT
    + """
from caffe_fcn.export.exporter import export
from caffe_fcn.export import passes
from caffe_fcn.tracing import trace
net = Net(read)
print(len(trace(net).rows))
graph = export(net).graph
passes.run(graph)
print(len(graph.nodes))
"""
)


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["in place", "chain", "fan", "ladder", "losses", *SEARCHED])
def test_a_hundred_thousand_layers_are_traced_and_exported(shape):
    """A millisecond or two for each."""
    out = limited(WHOLE, given=text_of(shape, 100_000), memory=6 << 30, seconds=600).split()
    assert all(int(n) >= 100_000 for n in out)


@pytest.mark.parametrize(
    ("type_", "fields"), [("Crop", "crop_param { axis: 2 }"), ("PriorBox", "prior_box_param { min_size: 1 }")]
)
def test_a_search_for_each_of_ten_thousand_layers_ends(type_, fields):
    """Offsets and kinds that follow from the rest of the net are looked for as often as in no real net."""
    text = INPUT + "".join(line(i, type_, "d d", f"b{i}", fields) for i in range(10_000))
    with pytest.raises(LayerError, match="the net is too large to find what this layer leaves open"):
        Net(text)


@pytest.mark.parametrize("fields", ["top", "bottom"])
def test_a_layer_of_a_hundred_thousand_blobs(fields):
    """They are split, sliced and joined in time that grows with their number."""
    names = [f"b{i}" for i in range(3000)]
    many = " ".join(f'{fields}: "{name}"' for name in names)
    if fields == "top":
        text = (
            INPUT.replace("dim: 1 dim: 1", "dim: 1 dim: 3000")
            + f'layer {{ type: "Slice" bottom: "d" {many} }}'
        )
    else:
        text = INPUT + "".join(line(i, "ReLU", "d", name) for i, name in enumerate(names))
        text += f'layer {{ type: "Concat" top: "all" {many} }}'
    net = Net(text)
    assert len(net.blobs) >= 3000
    assert len(export(net).graph.nodes) >= 1


def test_formulas_do_not_grow_without_end():
    """Sizes nested as deeply as the net is deep would fill the memory, or the stack, when they are told."""
    text = text_of("shrinking", 500)
    found = trace(Net(text))
    assert len(render(found, "text")) < 400 * len(text)


def test_a_net_that_would_need_more_memory_than_there_is(tmp_path):
    """It is said before anything is computed, with what to do; and where only the system knows, then."""
    text = INPUT.replace("dim: 8 dim: 8", "dim: 30000 dim: 30000")
    text += "".join(line(i, "Power", before(i), f"b{i}", "power_param { shift: 1 }") for i in range(40))
    with pytest.raises(CaffeError, match=r"forward pass take .* are free"):
        Net(text).forward()
    code = """
from caffe_fcn.errors import CaffeError
from caffe_fcn.net import Net
try:
    Net(sys.stdin.read()).forward()
except CaffeError as error:
    print(error)
"""
    text = "".join(text.replace("30000", "12000").splitlines(keepends=True)[:3])
    assert "not enough memory for layer 'l" in limited(code, given=text, memory=3 << 29, seconds=30)
