"""Every case of real Caffe, three ways: shapes, NumPy, ONNX."""

from __future__ import annotations

import numpy as np
import pytest

from caffe_fcn.conversion import convert
from caffe_fcn.errors import UnsupportedError
from caffe_fcn.runtime import Session
from tests.reference_cases import Case, assert_close, cases

CASES = [case for folder in ("layers", "nets", "random") for case in cases(folder)]
#: Caffe gives -FLT_MAX or 0/0 where a window lies wholly outside the input; refused for ONNX.
REFUSED = {"pool_max_empty_window", "pool_ave_empty_window"}

each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@each_case
def test_forward(case: Case) -> None:
    """Names and order of all blobs, every shape, every stored value."""
    net = case.net()
    assert list(net.blobs) == list(dict.fromkeys(case.order))
    assert net.outputs == case.outputs
    for name, shape in case.group("shape:").items():
        assert net.blobs[name].shape == tuple(shape), name
    net.forward(**case.group("in:"))
    for name, value in case.group("out:").items():
        assert_close(net.blobs[name].data, value, name)


@each_case
def test_onnx(case: Case, tmp_path) -> None:
    """Every output, from one file that leaves open what the net leaves open, and verified itself."""
    path = tmp_path / "net.onnx"
    if case.name in REFUSED:
        with pytest.raises(UnsupportedError, match="outside the input"):
            convert(case.prototxt, case.caffemodel, path, verify=False)
        assert not path.exists()
        return
    convert(case.prototxt, case.caffemodel, path)
    session = Session(path, "cpu")
    fed = case.group("in:")
    got = session.run({name: fed[name] for name in session.inputs})
    assert set(got) == set(case.outputs)
    for name, value in got.items():
        expected = case.stored.get(f"out:{name}", fed.get(name))
        assert_close(np.asarray(value, np.float32), expected, name)
