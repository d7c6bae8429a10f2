"""docs/why-pad-100, in both languages, against what a trace computes."""

from __future__ import annotations

import re

import pytest

from caffe_fcn.tracing import Trace, trace
from caffe_fcn.tracing.sizes import pixels
from tests.small_nets import PROTOTXTS, row

DOCS = PROTOTXTS.parent / "docs"
PAGES = ("why-pad-100.md", "why-pad-100.zh.md")
NETS = {"score_pool4c": "voc-fcn8s", "score_pool3c": "voc-fcn8s", "16s": "voc-fcn16s", "8s": "voc-fcn8s",
        "AlexNet": "voc-fcn-alexnet"}  # fmt: skip


def traced(name: str) -> Trace:
    return trace(PROTOTXTS / name / "deploy.prototxt")


@pytest.fixture(scope="module", params=PAGES)
def page(request) -> str:
    return (DOCS / request.param).read_text(encoding="utf-8")


def table(page: str, columns: int) -> list[list[str]]:
    """The rows of the tables with so many columns, without their heads."""
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| ")]
    return [cells for cells in rows if len(cells) == columns and re.search(r"\d", cells[-1])]


def test_both_languages_say_the_same():
    """Every number of one is in the other."""
    english, chinese = (
        set(re.findall(r"(?<![\w./-])-?\d+(?:\.\d+)?", (DOCS / name).read_text(encoding="utf-8")))
        for name in PAGES
    )
    assert english == chinese


def test_the_way_down(page):
    found = traced("voc-fcn32s")
    steps = next(why.steps for why in found.whys if why.about.startswith("score: offset 19"))
    told = {re.split(r" to | 到 ", cells[0])[0]: cells[3] for cells in table(page, 4)[: len(steps)]}
    assert [step.layers[0] for step in steps] == list(told)
    for step in steps:
        assert str(step.size).replace("*", "").replace(" ", "") == told[step.layers[0]].replace(" ", "")


def test_the_way_back(page):
    found = traced("voc-fcn32s")
    places = [pixels(row(found, name).axes[0].offset) for name in ("conv1_1", "pool5", "fc6", "upscore")]
    at = [re.search(rf"(?<![\d.]){re.escape(place)}(?![\d])", page).start() for place in map(str, places)]
    assert list(map(str, places)) == ["-99", "-83.5", "12.5", "-19"]
    assert min(at) > page.index("conv1_1")
    told = " ".join(sentence for why in found.whys for sentence in why.sentences)
    for number in ("97", "193", "698 x 698", "1.9"):
        assert number in told
        assert number.replace(" ", "") in page


def test_the_skips(page):
    rows = [cells for cells in table(page, 4) if cells[2].isdecimal()]
    assert len(rows) == 5
    for name, cuts, offset, because in rows:
        net = next(net for key, net in NETS.items() if key in name)
        layer = name if name.startswith("score_pool") else "score"
        found = traced(net)
        crop = next(c for c in found.crops if c.layer == layer)
        assert crop.data == re.match(r"\w+", cuts, re.ASCII)[0]
        assert {c.given for c in crop.cuts} == {c.derived for c in crop.cuts} == {int(offset)}
        makers = {top: each for each in found.rows for top in each.tops}
        data, reference = makers[crop.data].axes[0], makers[crop.reference].axes[0]
        wanted = f"{pixels(reference.offset)} - {pixels(data.offset)}"
        assert because == (wanted if data.stride == 1 else f"({wanted}) / {pixels(data.stride)}")
