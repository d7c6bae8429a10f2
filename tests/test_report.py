"""A trace as text, Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import re

import pytest

from caffe_fcn.errors import CaffeError
from caffe_fcn.report import FORMATS, render
from caffe_fcn.tracing import trace
from tests.reference_cases import Case, cases
from tests.small_nets import VOC8S


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("case", cases("nets"), ids=lambda case: case.name)
def test_every_net_in_every_form(case: Case, format_: str) -> None:
    assert render(trace(case.prototxt, weights=case.caffemodel), format_).endswith("\n")


def test_text_has_a_line_for_each_layer_and_is_not_wide() -> None:
    found = trace(VOC8S)
    text = render(found)
    assert max(len(line) for line in text.splitlines()) <= 160
    layers = text.split("\nLayers\n")[1].split("\n\n")[0].splitlines()
    assert len(layers) == 2 + len(found.rows) + 1
    assert layers[2 + 45].split() == [
        "45", "upscore8", "Deconvolution", "fuse_pool3", "→", "upscore8", "16x16", "s8", "1x21x568x568",
        "32*ceil((H+38)/32)+24",
    ]  # fmt: skip
    assert "parameters   134,489,759 (513.0 MiB as float32), 127,008 of them frozen" in text
    assert "arithmetic   181.5 GMAC for one pass" in text


def test_markdown_tables_are_whole() -> None:
    for table in re.findall(r"(?:^\|.*\n)+", render(trace(VOC8S), "markdown"), re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1, table


def test_csv_reads_back() -> None:
    found = trace(VOC8S, {"data": (1, 3, 334, 500)})
    rows = list(csv.DictReader(io.StringIO(render(found, "csv"))))
    assert [r["name"] for r in rows] == [r.name for r in found.rows]
    assert rows[1] == {
        "index": "1", "name": "conv1_1", "type": "Convolution", "bottoms": "data", "tops": "conv1_1",
        "in_place": "0",
        "kernel": "3", "stride": "1", "pad": "100", "dilation": "1", "group": "1", "output": "1x64x532x698",
        "output_formula": "1 x 64 x H+198 x W+198", "parameters": "1792", "parameter_bytes": "7168",
        "macs": str(64 * 27 * 532 * 698), "activation_bytes": str(4 * 64 * 532 * 698), "receptive_field": "3",
        "image_stride": "1", "image_offset": "-99", "lr_mult": "1 2", "learning": "learned",
        "weights_from": "not given",
    }  # fmt: skip
    assert sum(int(r["parameters"]) for r in rows) == found.totals.parameters


def test_json_reads_back() -> None:
    found = trace(VOC8S)
    back = json.loads(render(found, "json"))
    assert back == found.to_dict()
    assert back["totals"]["parameters"] == 134489759
    assert back["crops"][2]["cuts"][0]["after_formula"] == "32*ceil((H+6)/32)+25-H"
    assert back["rows"][45]["shapes_formula"][0][2] == "32*ceil((H+38)/32)+24"
    assert back["inputs_js"] == {"data": [1, 3, "H", "W"]}


def test_unknown_form() -> None:
    with pytest.raises(CaffeError, match="unknown format 'txt'; there are text, markdown, csv, json"):
        render(trace(VOC8S), "txt")
