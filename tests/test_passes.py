"""All passes together: on every reference net, and which can be left out."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from caffe_fcn import surgery
from caffe_fcn.errors import CaffeError
from caffe_fcn.export import passes
from caffe_fcn.export.exporter import export
from caffe_fcn.export.passes import border_plan
from caffe_fcn.export.write import to_model
from caffe_fcn.runtime import Session
from tests.conftest import REFERENCE
from tests.reference_cases import Case, assert_close, cases
from tests.test_passes_border import agree, compute, narrow, session

THIN = Case(REFERENCE / "nets", "fcn8s-thin-1px")


@pytest.mark.parametrize("case", cases("nets") + cases("random"), ids=lambda case: case.name)
def test_what_real_caffe_computed(case, monkeypatch):
    """With joins for free, so that thin nets get them too."""
    monkeypatch.setattr(border_plan, "JOIN", 0)
    graph = export(case.net()).graph
    passes.run(graph)
    session = Session(to_model(graph, 17).SerializeToString(), "cpu")
    fed = case.group("in:")
    for name, value in session.run({n: fed[n] for n in session.inputs}).items():
        assert_close(np.asarray(value, np.float32), case.stored.get(f"out:{name}", fed.get(name)), name)


DEEP = ["voc-fcn32s", "voc-fcn16s", "voc-fcn8s", "voc-fcn8s-atonce", "siftflow-fcn8s", "voc-fcn-alexnet"]
SIZES = [(1, 1, 1), (2, 2, 7), (1, 31, 33)]


@cache
def frozen(name: str):
    """A narrow net of the family with bilinear Deconvolutions, as FCN's are."""
    net = narrow(name, 33)
    ups = [n for n in net.params if net.layer_dict[n].param.type == "Deconvolution"]
    for n in ups:
        net.params[n][0].data[...] = 0
    surgery.interp(net, ups)
    return net


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("name", DEEP)
def test_each_alone_and_all_together(name, fixed, monkeypatch):
    """Bit for bit the plain graph, but for the LRN of AlexNet's, and a scale that is merged with another."""
    monkeypatch.setattr(border_plan, "JOIN", 0)
    net = frozen(name)
    static = net.inputs if fixed else ()
    plain, names = session(export(net, static=static).graph), [p.NAME for p in passes.PASSES]
    for skip in (*([n for n in names if n != only] for only in names), []):
        graph = export(net, static=static).graph
        changed = passes.run(graph, skip, compute)
        assert all(changed.values()) or "merge-affine" in changed, changed
        exact = "alexnet" not in name and not changed.get("merge-affine")
        for size in [(1, 33, 33)] if fixed else SIZES:
            agree(plain, session(graph), size, exact)


def test_all_of_them_find_work(monkeypatch):
    monkeypatch.setattr(border_plan, "JOIN", 0)
    changed = passes.run(export(THIN.net()).graph)
    assert changed == {"merge-affine": 0, "group-deconvolution": 3, "crop-in-deconvolution": 1, "border": 1}


def test_left_out_by_name():
    changed = passes.run(export(THIN.net()).graph, ["border", "group-deconvolution"])
    assert changed == {"merge-affine": 0, "crop-in-deconvolution": 1}


def test_all_left_out():
    graph, plain = export(THIN.net()).graph, export(THIN.net()).graph
    assert passes.run(graph, ["all"]) == {}
    assert to_model(graph, 17) == to_model(plain, 17)


def test_no_such_pass():
    with pytest.raises(CaffeError, match="no pass 'boarder'") as error:
        passes.run(export(THIN.net()).graph, ["boarder"])
    assert "did you mean border" in str(error.value)


@pytest.mark.parametrize("module", passes.PASSES, ids=lambda module: module.NAME)
def test_each_says_what_it_does(module):
    """The first line is what --list-passes prints; what it requires and keeps follows."""
    text = module.__doc__
    assert text.splitlines()[0].endswith(".")
    assert "Requires:" in text
    assert "Keeps:" in text
