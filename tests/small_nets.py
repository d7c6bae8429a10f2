"""Small nets in a line a layer, and what the tests of their traces share."""

from __future__ import annotations

from caffe_fcn.net import Net
from caffe_fcn.tracing import Row, Trace
from tests.conftest import HERE, REFERENCE

PROTOTXTS = HERE.parent / "prototxts"
VOC8S = PROTOTXTS / "voc-fcn8s" / "deploy.prototxt"
NETS = REFERENCE / "nets"


def net_of(*layers: str, h: int = 8, w: int = 8, channels: int = 1) -> Net:
    """A net of layers written as `TYPE NAME BOTTOM[,BOTTOM] [fields]`; its input is `data`."""
    dims = f"dim: 1 dim: {channels} dim: {h} dim: {w}"
    text = [f'layer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ {dims} }} }} }}']
    for layer in layers:
        kind, name, bottoms, *fields = layer.split(maxsplit=3)
        reads = " ".join(f'bottom: "{bottom}"' for bottom in bottoms.split(","))
        text.append(f'layer {{ name: "{name}" type: "{kind}" {reads} top: "{name}" {" ".join(fields)} }}')
    return Net("\n".join(text))


def conv(fields: str) -> str:
    return f"convolution_param {{ num_output: 1 {fields} }}"


def pool(fields: str) -> str:
    return f"pooling_param {{ {fields} }}"


def row(found: Trace, name: str) -> Row:
    return next(row for row in found.rows if row.name == name)
