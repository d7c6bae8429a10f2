"""Hostile text: anything where a prototxt is expected is a net or a PrototxtError, in linear time."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caffe_fcn.errors import CaffeError, PrototxtError
from caffe_fcn.formats.prototxt import read_net
from tests.hostile import refused, text_file

quick = settings(deadline=None, derandomize=True, database=None)


@given(st.one_of(st.text(max_size=80), st.binary(max_size=80)))
@settings(quick, max_examples=80)
def test_any_text(tmp_path_factory, content):
    data = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    refused(text_file, data, tmp_path_factory.getbasetemp())


@pytest.mark.parametrize(
    "text",
    ["layer { " * 10_000, "a [ " * 10_000, "layer { a: [ { " * 10_000, "{" * 10_000,
     "a: { " * 10_000 + "}" * 10_000,
     "input_shape { dim: [ " * 10_000, "<" * 10_000, "layer < " * 10_000 + "> " * 10_000],
    ids=["layers", "lists", "both", "braces", "closed", "shapes", "angles", "closed angles"],
)  # fmt: skip
def test_ten_thousand_deep(text):
    with pytest.raises(PrototxtError, match=r"^net:1:\d+: ") as caught:
        read_net("net", text=text)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "text",
    ['"' * 200_000, "a: " + '"x" ' * 100_000, "# " * 200_000, "1" * 200_000, "a: " + "-" * 200_000,
     "input_dim: [" + "1," * 100_000, 'name: "' + "\\0" * 100_000, "a: 1e" + "9" * 100_000,
     "\n" * 300_000 + "{", "x" * 300_000, "name: '" + "x" * 300_000, "a " * 100_000, "\\" * 200_000,
     "input_dim: " + "9" * 100_000],
    ids=lambda text: text[:12].strip() or "lines",
)  # fmt: skip
def test_long_text_is_read_in_linear_time(text):
    """Each takes milliseconds; what is quadratic in a hundred thousand would take minutes."""
    start = time.process_time()
    with suppress(PrototxtError):
        read_net("net", text=text)
    assert time.process_time() - start < 5


def test_a_device_or_a_folder_as_prototxt(tmp_path: Path):
    for path in ("/dev/zero", "/dev/null", str(tmp_path), "a\0b", str(tmp_path / "none")):
        with pytest.raises(CaffeError):
            read_net(path)
