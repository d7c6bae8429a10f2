"""Nets in prototxt: where their layers stand, what the schema lacks; damaged files; and writing them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from caffe_fcn.errors import CaffeWarning, PrototxtError
from caffe_fcn.formats import caffe_pb2, prototxt
from caffe_fcn.formats.prototxt import Identifier, parse, read_net
from tests.conftest import HERE, REFERENCE
from tests.test_text_reader import PIECES

REAL = sorted([*REFERENCE.rglob("*.prototxt"), *(HERE.parent / "prototxts").rglob("*.prototxt")])
SMALL = [path.read_text() for path in REAL if path.stat().st_size < 3000][::7]


def message_class(path: Path) -> type[Message]:
    return caffe_pb2.SolverParameter if "solver" in path.name else caffe_pb2.NetParameter


# Real files


@pytest.mark.parametrize("path", REAL, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_real_files_parse_as_in_protobuf_and_survive_writing(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", CaffeWarning)
        message = parse(path.read_text(), message_class(path), str(path))
    assert message == text_format.Parse(path.read_text(), message_class(path)())
    written = prototxt.format(message)
    assert parse(written, message_class(path)) == message
    assert text_format.Parse(written, message_class(path)()) == message


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "net.prototxt"
    path.write_bytes('name: "é"\r\nlayer { name: "a" }\r\n'.encode(encoding))
    read = read_net(path)
    assert read.net.name == "é"
    assert [str(origin) for origin in read.origins] == [f"{path}:2"]


def test_a_comment_may_hold_any_bytes(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_bytes(b"# \xd7\xd6\nname: 'a'")
    assert read_net(path).net.name == "a"


# Where things stand


def test_a_net_knows_the_line_of_each_layer() -> None:
    text = "name: 'n'\nlayer { name: 'a' }\n\nlayer\n{ name: 'b' }\nlayer: [{\n}, {}]"
    read = read_net(text)
    assert [origin.line for origin in read.origins] == [2, 4, 6, 7]
    assert (read.path, str(read.origins[0])) == ("<net>", "<net>:2")
    assert str(read_net("deploy.prototxt", text=text).origins[1]) == "deploy.prototxt:4"


def test_a_message_is_copied_and_has_no_lines() -> None:
    net = caffe_pb2.NetParameter(input=["a"], input_dim=[1, 2, 3, 4])
    read = read_net(net)
    assert (read.path, [str(origin) for origin in read.origins]) == ("<net>", ["<net>"])
    assert read.net.layer[0].input_param.shape[0].dim == [1, 2, 3, 4]
    assert net.input == ["a"]


# What the schema lacks


def warned(text: str) -> tuple[prototxt.Prototxt, list[str]]:
    with pytest.warns(CaffeWarning) as caught:
        read = read_net("net", text=text)
    assert {warning.filename for warning in caught} == {__file__}
    return read, [str(warning.message) for warning in caught]


def test_unknown_fields_are_kept_and_named_once() -> None:
    read, messages = warned(
        """layer { name: "a" pooling_param { pool: MAX celi_mode: false foo [1, 2] }
        bottm: "x" box { size: 0x10 mode: CENTER w: -inf pair { a: 1.5 } pair { b: "s" 't' } e [] one: [7] } }
        layer { bottm: "y" bottm: "z" param { } param { lr_mult: 2 size: 3 } }
        debug: [ ]"""
    )
    assert messages == [
        "net:1: unknown field 'celi_mode' in 'pooling_param': did you mean ceil_mode?",
        "net:1: unknown field 'foo' in 'pooling_param'",
        "net:2: unknown field 'bottm' in 'layer': did you mean bottom?",
        "net:2: unknown field 'box' in 'layer'",
        "net:3: unknown field 'size' in 'param'",
        "net:4: unknown field 'debug': did you mean debug_info?",
    ]
    box = {
        "size": 16,
        "mode": "CENTER",
        "w": float("-inf"),
        "pair": [{"a": 1.5}, {"b": "st"}],
        "e": [],
        "one": [7],
    }
    assert read.origins[0].fields == {
        "pooling_param": {"celi_mode": False, "foo": [1, 2]},
        "bottm": "x",
        "box": box,
    }
    assert read.origins[1].fields == {"bottm": ["y", "z"], "param": [{}, {"size": 3}]}
    assert isinstance(read.origins[0].fields["box"]["mode"], Identifier)
    assert not isinstance(read.origins[0].fields["bottm"], Identifier)
    assert read.net.layer[0].pooling_param.HasField("pool")
    assert read.net.layer[1].param[1].lr_mult == 2


def test_values_that_an_enum_lacks_are_kept_too() -> None:
    read, messages = warned("layer {} layer { pooling_param { pool: MAXX engine: 7 } }")
    assert messages == [
        "net:1: 'pool' has no value 'MAXX' in 'pooling_param': did you mean MAX?",
        "net:1: 'engine' has no value '7' in 'pooling_param': it takes DEFAULT, CAFFE or CUDNN",
    ]
    assert [origin.fields for origin in read.origins] == [
        {},
        {"pooling_param": {"pool": "MAXX", "engine": 7}},
    ]
    assert not read.net.layer[1].pooling_param.ListFields()


def test_writing_a_net_keeps_what_the_schema_lacks() -> None:
    text = """layer { name: "a" pooling_param { pool: MAXX } box { s: "1" n: X b: true v: 1.5 v: 2 e { } } }
    layer { param { } param { size: 3 } }"""
    read, _ = warned(text)
    again, _ = warned(prototxt.format(read))
    assert again.net == read.net
    assert [origin.fields for origin in again.origins] == [origin.fields for origin in read.origins]
    assert "n: X\n" in prototxt.format(read)


def test_an_unknown_field_before_the_open_bracket_is_no_hint() -> None:
    with pytest.raises(PrototxtError) as caught:
        read_net("net", text="layer { layer { } }\nlayer {\n")
    assert "missing" not in str(caught.value)


def test_many_unknown_fields_end_in_a_count() -> None:
    _, messages = warned("".join(f"x{i}: 1\n" for i in range(50)))
    assert len(messages) == 21
    assert messages[-1] == "net: 30 more unknown fields or values"


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "a.caffemodel").write_bytes(b"\x0a\x05a\0b")
    for path, problem in [
        (tmp_path / "none.prototxt", "cannot be read: No such file"),
        (tmp_path, "is not a file"),
        (tmp_path / "a.caffemodel", "is a binary file, not a prototxt\n  is it the caffemodel?"),
        ("a\0b", "is not a file's name"),
    ]:
        with pytest.raises(PrototxtError, match=problem):
            read_net(path)


def test_a_hundred_thousand_layers() -> None:
    text = "".join(f'layer {{ name: "r{i}" type: "ReLU" bottom: "x" top: "x" }}\n' for i in range(100_000))
    read = read_net(text)
    assert (len(read.net.layer), read.origins[-1].line) == (100_000, 100_000)


@pytest.mark.parametrize(
    "text",
    [
        "name" + " " * 200_000 + "%",
        "name:" + " " * 200_000 + "%",
        "name # #\n" + "# #\n" * 50_000 + "%",
        "name: " + "'a' " * 50_000 + "%",
        "name: '" + "\\" * 200_000,
        "a: " + "1" * 200_000 + ".1.1",
        "a: 0x" + "1" * 200_000,
        "a" * 200_000,
        "layer { pooling_param { pool: " + "A" * 200_000 + " } }",
        "".join(f"x{i}: 1\n" for i in range(50_000)),
    ],
    ids=range(10),
)
def test_no_text_takes_more_than_linear_time(text: str) -> None:
    """Quadratic time would be minutes for these."""
    assert_read_or_refused(text)


# Laws


def assert_read_or_refused(text: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CaffeWarning)
        try:
            read = read_net("net", text=text)
        except PrototxtError as error:
            assert str(error).startswith("net:")  # noqa: PT017
            return
        assert len(read.origins) == len(read.net.layer)
        assert not read.net.layers
        again = read_net("net", text=prototxt.format(read))
    assert prototxt.format(again.net) == prototxt.format(read.net)  # not ==, for NaN


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    assert_read_or_refused(text)


@given(st.binary())
def test_any_file_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.prototxt"
    path.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CaffeWarning)
        try:
            read_net(path)
        except PrototxtError as error:
            assert str(error).startswith(str(path))  # noqa: PT017


@given(st.data())
def test_damaged_files_are_read_or_refused(data: st.DataObject) -> None:
    text = data.draw(st.sampled_from(SMALL))
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(len(text), start + 20)))
        middle = data.draw(st.sampled_from(PIECES) | st.text(max_size=3) | st.just(text[start:end] * 2))
        text = text[:start] + middle + text[end:]
    assert_read_or_refused(text)


def values(field: Any) -> st.SearchStrategy[Any]:
    """What a field may hold."""
    if field.message_type:
        return messages(field.message_type)
    if field.enum_type:
        return st.sampled_from([value.number for value in field.enum_type.values])
    return {
        field.TYPE_INT32: st.integers(-(2**31), 2**31 - 1),
        field.TYPE_INT64: st.integers(-(2**63), 2**63 - 1),
        field.TYPE_UINT32: st.integers(0, 2**32 - 1),
        field.TYPE_FLOAT: st.floats(width=32, allow_nan=False),
        field.TYPE_DOUBLE: st.floats(allow_nan=False),
        field.TYPE_BOOL: st.booleans(),
        field.TYPE_STRING: st.text(max_size=6),
        field.TYPE_BYTES: st.binary(max_size=6),
    }[field.type]


@st.composite
def messages(draw: st.DrawFn, descriptor: Any) -> Message:
    """A message with a few of its fields set."""
    message = getattr(caffe_pb2, descriptor.name)()
    chosen = draw(st.lists(st.sampled_from([*descriptor.fields]), max_size=4, unique_by=lambda f: f.name))
    for field in descriptor.fields if descriptor.name == "ClipParameter" else chosen:
        held = getattr(message, field.name)
        if hasattr(held, "extend"):
            held.extend(draw(st.lists(values(field), max_size=3)))
        elif field.message_type:
            held.SetInParent()
            held.CopyFrom(draw(values(field)))
        else:
            setattr(message, field.name, draw(values(field)))
    return message


@given(
    st.sampled_from(["NetParameter", "SolverParameter", "LayerParameter", "Datum"]).flatmap(
        lambda name: messages(getattr(caffe_pb2, name).DESCRIPTOR)
    )
)
def test_what_is_written_is_read_back(message: Message) -> None:
    written = prototxt.format(message)
    assert parse(written, type(message)) == message
    assert text_format.Parse(written, type(message)()) == message


# Writing


def test_written_text_is_indented_and_plain() -> None:
    net = caffe_pb2.NetParameter(name='a"b')
    net.layer.add(name="conv", type="Convolution", param=[{"lr_mult": 0}, {"lr_mult": 2, "decay_mult": 0.1}])
    net.layer.add(
        input_param={"shape": [{"dim": [1, 3, 500, 500]}]}, pooling_param={"pool": 1, "global_pooling": True}
    )
    net.layer.add(flatten_param={})
    net.layer.add(slice_param={"slice_point": range(10_000_000, 10_000_004)})
    assert prototxt.format(net) == (
        'name: "a\\"b"\n'
        "layer {\n"
        '  name: "conv"\n'
        '  type: "Convolution"\n'
        "  param { lr_mult: 0 }\n"
        "  param {\n"
        "    lr_mult: 2\n"
        "    decay_mult: 0.1\n"
        "  }\n"
        "}\n"
        "layer {\n"
        "  pooling_param {\n"
        "    pool: AVE\n"
        "    global_pooling: true\n"
        "  }\n"
        "  input_param { shape { dim: 1 dim: 3 dim: 500 dim: 500 } }\n"
        "}\n"
        "layer { flatten_param {} }\n"
        "layer {\n"
        "  slice_param {\n"
        "    slice_point: 10000000\n"
        "    slice_point: 10000001\n"
        "    slice_point: 10000002\n"
        "    slice_point: 10000003\n"
        "  }\n"
        "}\n"
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1e-10, "1e-10"),
        (0.9, "0.9"),
        (16777216, "16777216"),
        (1 / 3, "0.33333334"),
        (1.03483834e09, "1.03483834e+09"),
        (1e6, "1e+06"),
        (-0.0, "-0"),
    ],
)
def test_floats_are_written_shortest(value: float, text: str) -> None:
    assert prototxt.format(caffe_pb2.PowerParameter(power=value)) == f"power: {text}\n"
