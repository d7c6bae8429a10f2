"""Protobuf's text format: every spelling that Caffe reads, and what it refuses, with the place."""

from __future__ import annotations

import struct
import warnings
from typing import Any

import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st

from caffe_fcn.errors import CaffeWarning, PrototxtError
from caffe_fcn.formats import caffe_pb2, prototxt
from caffe_fcn.formats.prototxt import parse, read_net

PIECES = [
    *("{", "}", "<", ">", "[", "]", ":", ",", ";", "-", "# c\n", "\n", '"a"', "'b'", r'"\x41\n"'),
    *(
        "1",
        "-1",
        "0",
        ".5",
        "1.",
        "1e-3",
        "1f",
        "0x1F",
        "017",
        "08",
        "inf",
        "-inf",
        "4294967296",
        "true",
        "t",
    ),
    *("layer { ", "layer < ", "layers { type: RELU ", "name: 'a' ", 'type: "X"', "bottom: 'b' ", "} ", "> "),
    *("param [ { lr_mult: 1 }, < > ] ", "loss_weight: [1, 2.5] ", "convolution_param { pad: 1 ", "pad: 2; "),
    *(
        "num_output: 3; ",
        "pooling_param: { pool: AVE }, ",
        "propagate_down: ",
        "input_dim: 3 ",
        "input_dim: ",
    ),
    *("include { phase: TEST min_level: -3 } ", "include: { phase: 1 } ", "state { stage: 'a' \"b\" } "),
]


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join), st.booleans())
def test_pieces_mean_what_they_mean_to_protobuf(text: str, close: bool) -> None:
    text += " }" * (text.count("{") - text.count("}")) if close else ""
    try:
        expected = text_format.Parse(text, caffe_pb2.NetParameter())
    except text_format.ParseError:
        expected = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", CaffeWarning)
            assert parse(text, caffe_pb2.NetParameter) == expected
    except (PrototxtError, CaffeWarning):
        assert expected is None


def layer(body: str) -> Any:
    """The only layer of a net whose layer has this body."""
    (only,) = parse(f"layer {{ {body} }}", caffe_pb2.NetParameter).layer
    return only


# Spellings


def test_separators_brackets_comments_and_line_ends() -> None:
    net = read_net(
        "net",
        text="\ufeff# first\r\nname:'n';layer<name:\t\"a\", bottom : 'x' ; # why } not\r\n"
        "param { lr_mult:0 },param:<lr_mult :1>; top:['t','u'] > layer: { top : [ ] } #last",
    ).net
    expected = """name: 'n' layer { name: 'a' bottom: 'x' top: 't' top: 'u'
    param { lr_mult: 0 } param { lr_mult: 1 } } layer { }"""
    assert net == text_format.Parse(expected, caffe_pb2.NetParameter())


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[
            ("1", 1.0),
            (".5", 0.5),
            ("1.", 1.0),
            ("1e-3", 1e-3),
            ("1.5E+2", 150.0),
            ("2f", 2.0),
            ("1.5F", 1.5),
        ],
        *[
            ("-1", -1.0),
            ("- 1", -1.0),
            ("0x10", 16.0),
            ("010", 8.0),
            ("00", 0.0),
            ("1" * 50, float("1" * 50)),
        ],
        *[("inf", float("inf")), ("-Infinity", float("-inf")), ("1e999", float("inf"))],
    ],
)
def test_floats(text: str, value: float) -> None:
    bits = parse(f"double_data: {text}", caffe_pb2.BlobProto).double_data[0]
    assert bits == value
    assert (
        layer(f"loss_weight: {text}").loss_weight[0] == struct.unpack("f", struct.pack("f", value))[0]
        or value > 1e38
    )


def test_not_a_number_and_negative_zero() -> None:
    values = parse("data: [nan, -0, -0.0]", caffe_pb2.BlobProto).data
    assert [repr(value) for value in values] == ["nan", "-0.0", "-0.0"]


@pytest.mark.parametrize(
    ("text", "value"), [("0x1F", 31), ("-0X1f", -31), ("017", 15), ("-2147483648", -(2**31))]
)
def test_integers(text: str, value: int) -> None:
    assert parse(f"num: {text}", caffe_pb2.BlobProto).num == value


@pytest.mark.parametrize(
    ("text", "value"),
    [("true", True), ("True", True), ("t", True), ("1", True), ("0x1", True), ("false", False), ("f", False)],
)
def test_bools(text: str, value: bool) -> None:
    assert layer(f"propagate_down: {text}").propagate_down == [value]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (r'"a\n\t\\\"\'\?"', "a\n\t\\\"'?"),
        (r"'\101\x41\X4a\u00e9\U0001F600\0'", "AAJé😀\0"),
        ('"a"  \'b\' # "c"\n "d"', "abd"),
        ('"it\'s"', "it's"),
        ('"a" "b"', "ab"),
        (r"'\303\251'", "é"),
        ("''", ""),
    ],
)
def test_strings(text: str, value: str) -> None:
    assert layer(f"name: {text}").name == value


def test_enums_by_name_and_by_number() -> None:
    assert layer("pooling_param { pool: AVE }") == layer("pooling_param { pool: 1 }")


def test_bytes_need_not_be_text() -> None:
    datum = parse(r'data: "\377\000a" label: 3', caffe_pb2.Datum)
    assert datum.data == b"\xff\0a"
    assert parse(prototxt.format(datum), caffe_pb2.Datum) == datum


def test_parse_clears_what_was_there() -> None:
    solver = caffe_pb2.SolverParameter(base_lr=1)
    assert parse("net: 'a'", solver) is solver
    assert solver == caffe_pb2.SolverParameter(net="a")


# What is refused


@pytest.mark.parametrize(
    ("text", "where", "problem"),
    [
        ("layer {\n  name foo\n}", "2:8", "expected ':' or '{' after 'name', got 'foo'"),
        ("layer {\n  name: 'x'\n", "1:7", "'{' is not closed: the file ends first"),
        ("layer { } }", "1:11", "'}' closes nothing"),
        ("layer { name: 'a' >", "1:19", "expected '}' to close '{' of line 1, got '>'"),
        ("layer <\n }", "2:2", "expected '>' to close '<' of line 1, got '}'"),
        ("name: 'abc\nlayer {}", "1:7", "this quote is not closed on its line"),
        ("name: }", "1:7", "expected a value after 'name:', got '}'"),
        ("name:", "1:6", "expected a value after 'name:', got the end of the file"),
        ("name: “a”", "1:7", "expected a value after 'name:', got '“'"),
        ("input_dim: 1.2.3", "1:12", "'1.2.3' is not a number"),
        ("input_dim: 5x", "1:12", "'5x' is not a number"),
        ("input_dim: 1.5", "1:12", "takes an integer from -2147483648 to 2147483647, got '1.5'"),
        ("input_dim: 2147483648", "1:12", "takes an integer from -2147483648 to 2147483647"),
        ("input_dim: 089", "1:12", "takes an integer"),
        ("input_dim: x", "1:12", "takes an integer"),
        ("input_dim: '1'", "1:12", "takes an integer"),
        ("layer { crop_param { offset: -1 } }", "1:30", "takes an integer from 0 to 4294967295, got '-1'"),
        ("layer { loss_weight: 0x10000000000000000 }", "1:22", "'loss_weight' takes a number, got '0x1"),
        ("layer { loss_weight: x }", "1:22", "'loss_weight' takes a number, got 'x'"),
        ("layer { propagate_down: yes }", "1:25", "'propagate_down' takes true or false, got 'yes'"),
        ("layer { propagate_down: 2 }", "1:25", "'propagate_down' takes true or false, got '2'"),
        (
            "layer { pooling_param { pool: 'MAX' } }",
            "1:31",
            "'pool' takes MAX, AVE or STOCHASTIC, without quotes",
        ),
        ("layer { pooling_param: 3 }", "1:24", "'pooling_param' takes a message in braces, got '3'"),
        ("layer { name { } }", "1:14", "'name' takes a string in quotes, got '{'"),
        ("layer { name: ['a'] }", "1:15", "'name' takes one value, not a list"),
        ("input: ['a' 'b' c]", "1:17", "expected ']' to close '[' of line 1, got 'c'"),
        ("input: ['a', ]", "1:14", "expected a value in the list 'input', got ']'"),
        ("input: ['a',", "1:8", "'[' is not closed: the file ends first"),
        ("name: 'a' name: 'b'", "1:11", "'name' is given twice, and takes one value"),
        ("state { } state { }", "1:11", "'state' is given twice, and takes one value"),
        ("layers { type: FOO type: BAR }", "1:20", "'type' is given twice, and takes one value"),
        ("layer { clip_param { min: 0 } }", "1:20", "the required field 'max' is missing here"),
        (r"name: 'C:\data\x'", "1:7", r"unknown escape \d: a backslash itself is written \\"),
        (r"foo: '\ud800'", "1:6", "this is not UTF-8"),
        (r"name: '\xff'", "1:7", "this is not UTF-8"),
        ("\x01", "1:1", r"expected the name of a field, got '\x01'"),
        ("[ext]: 1", "1:1", "expected the name of a field, got '['"),
    ],
)
def test_errors_name_the_place_and_show_it(text: str, where: str, problem: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing is told of a file that cannot be read
        with pytest.raises(PrototxtError) as caught:
            read_net("a.prototxt", text=text)
    first, line, caret = str(caught.value).split("\n")[:3]
    assert first.startswith(f"a.prototxt:{where}: ")
    assert problem in first
    row, column = map(int, where.split(":"))
    assert line.strip() == "".join(c if c.isprintable() else " " for c in text.split("\n")[row - 1]).strip()
    assert caret.index("^") - 2 == column - 1


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("layer {\n name: 'a'\nlayer {\n}\n", "is a bracket missing before line 3?"),
        ("layers { type: 'Convolution' }", "a type in quotes belongs in `layer`"),
        ("layer { type: CONVOLUTION }", "a name belongs in `layers`"),
        ("<!DOCTYPE html>", "is this an HTML page?"),
    ],
)
def test_errors_give_a_way_out(text: str, hint: str) -> None:
    with pytest.raises(PrototxtError) as caught:
        read_net("net", text=text)
    assert hint in str(caught.value).split("\n")[-1]


def test_a_very_long_line_is_cut_around_the_place() -> None:
    with pytest.raises(PrototxtError) as caught:
        read_net("net", text="layer { } " * 1000 + "%" + "layer { } " * 1000)
    first, line, caret = str(caught.value).split("\n")
    assert first.startswith("net:1:10001:")
    assert len(line) < 120
    assert line[caret.index("^")] == "%"


@pytest.mark.parametrize("text", ["a {" * 10_000, "layer {" * 10_000, "a: [{" * 10_000, "a <" * 10_000])
def test_deep_nesting_is_refused(text: str) -> None:
    with pytest.raises(PrototxtError, match="more than 100 messages stand in each other here"):
        read_net("net", text=text)
