"""Sizes with symbols behave as the numbers that they stand for."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caffe_fcn.geometry import PoolAxis, Window
from caffe_fcn.symbols import Extent, SizeNeeded, fixed, hint, is_fixed, product, same

Sizes = dict[str, int]
Formula = Callable[[Sizes], "int | Extent"]  # the same arithmetic on numbers and on symbols

small = st.integers(-40, 40)
sizes = st.one_of(
    st.fixed_dictionaries({"H": st.integers(0, 700), "W": st.integers(0, 700)}),
    st.integers(0, 700).map(lambda n: {"H": n, "W": n}),  # a square image: H and W are still two symbols
)


def _leaf(name: str) -> Formula:
    return lambda v: v[name]


def _grown(inner: st.SearchStrategy[Formula]) -> st.SearchStrategy[Formula]:
    """One more operation, of those that layers use on sizes."""
    divisor = st.sampled_from([1, 2, 3, 4, 8, 32])
    return st.one_of(
        st.tuples(inner, small).map(lambda p: lambda v: p[0](v) + p[1]),
        st.tuples(inner, small).map(lambda p: lambda v: p[1] - p[0](v)),
        st.tuples(inner, small).map(lambda p: lambda v: p[0](v) * p[1]),
        st.tuples(inner, divisor).map(lambda p: lambda v: p[0](v) // p[1]),
        st.tuples(inner, divisor).map(lambda p: lambda v: p[0](v) % p[1]),
        st.tuples(inner, inner).map(lambda p: lambda v: p[0](v) + p[1](v)),
        st.tuples(inner, inner).map(lambda p: lambda v: p[0](v) - p[1](v)),
        st.tuples(inner, inner).map(lambda p: lambda v: p[0](v) * p[1](v)),
    )


formulas = st.recursive(st.sampled_from(["H", "W"]).map(_leaf), _grown, max_leaves=6)


def symbols(values: Sizes) -> dict[str, Extent]:
    return {name: Extent.symbol(name, n) for name, n in values.items()}


@given(formulas, sizes)
def test_hint_is_the_number(formula: Formula, values: Sizes) -> None:
    assert hint(formula(symbols(values))) == formula(values)


@given(formulas, sizes, sizes)
def test_at_gives_the_number_of_any_size(formula: Formula, built_at: Sizes, values: Sizes) -> None:
    size = formula(symbols(built_at))
    assert (size.at(values) if isinstance(size, Extent) else size) == formula(values)


@given(formulas, sizes, sizes)
def test_printed_formula_evaluates_to_the_number(formula: Formula, built_at: Sizes, values: Sizes) -> None:
    assert _evaluate(str(formula(symbols(built_at))), values) == formula(values)


def _evaluate(text: str, values: Sizes) -> int:
    """Python's own arithmetic on a printed formula; fractions, so that the division inside ceil is exact."""
    exact = {name: Fraction(n) for name, n in values.items()}
    return int(eval(text, {"ceil": math.ceil, "__builtins__": {}}, exact))


@given(formulas, sizes)
def test_fold_evaluates_with_any_arithmetic(formula: Formula, values: Sizes) -> None:
    size = formula(symbols(values))

    def value(atom):
        return values[atom.name] if hasattr(atom, "name") else fold(atom.of) // atom.by

    def fold(extent):
        return extent.fold(value, lambda a, b: a * b, lambda a, b: a + b)

    assert (fold(size) if isinstance(size, Extent) else size) == formula(values)


@given(formulas, formulas, sizes)
def test_comparisons_are_those_of_the_numbers(one: Formula, two: Formula, values: Sizes) -> None:
    a, b = one(symbols(values)), two(symbols(values))
    m, n = one(values), two(values)
    assert (a < b, a == b, a >= b) == (m < n, m == n, m >= n)


@given(formulas, formulas, sizes, sizes)
@settings(max_examples=200)
def test_same_means_equal_for_every_size(one: Formula, two: Formula, built_at: Sizes, values: Sizes) -> None:
    if same(one(symbols(built_at)), two(symbols(built_at))):
        assert one(values) == two(values)


@given(formulas, st.integers(0, 700), st.integers(0, 700))
def test_at_may_replace_a_symbol_by_a_formula(formula: Formula, h: int, shift: int) -> None:
    size = formula(symbols({"H": h, "W": 5}))
    if isinstance(size, Extent):
        moved = size.at({"H": Extent.symbol("H", h) + shift})
        assert hint(moved) == formula({"H": h + shift, "W": 5})


@given(sizes)
def test_what_cancels_becomes_a_number(values: Sizes) -> None:
    h, w = symbols(values).values()
    for size in (h - h, (h + w) - w - h, (h * 4) // 2 - h - h, (h * 3) % 3, 0 * h):
        assert isinstance(size, int)
        assert size == 0


def test_distributive_forms_are_one() -> None:
    h, w = Extent.symbol("H", 9), Extent.symbol("W", 7)
    assert same(h * (w + 2), w * h + 2 * h)
    assert same((h // 2 + 3) // 4, (h + 6) // 8)
    assert not same(h, w)
    assert not same(h, 9)  # equal here, but not for every H
    assert not same(9, h)
    assert h == 9


def test_floors_of_two_symbols_with_one_value_are_two() -> None:
    h, w = Extent.symbol("H", 500), Extent.symbol("W", 500)
    assert (h // 32 * (w // 32)).at({"H": 64, "W": 320}) == 20
    assert str((h + 1) // 2 + (w + 1) // 2) == "ceil(H/2)+ceil(W/2)"


def test_the_formula_of_fcn32s() -> None:
    """The arithmetic that the literature does by hand: pad 100, five poolings, fc6, upscore of 64 by 32."""
    h = Window(3, pad=100).count(Extent.symbol("H", 500))
    assert str(h) == "H+198"
    for _ in range(5):
        h = PoolAxis(h, 2, 2, 0, ceil=True).out
    assert str(h) == "ceil((H+198)/32)"
    h = Window(7).count(h)
    assert str(h) == "ceil((H+6)/32)"
    h = Window(64, 32).span(h)
    assert str(h) == "32*ceil((H+38)/32)"
    assert hint(h) == 544


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda h, w: h + 1, "H+1"),
        (lambda h, w: h - 1, "H-1"),
        (lambda h, w: -h, "-H"),
        (lambda h, w: 5 - h, "5-H"),
        (lambda h, w: h * w * 3, "3*H*W"),
        (lambda h, w: h * h - w, "H*H-W"),
        (lambda h, w: (h + 1) // 2, "ceil(H/2)"),
        (lambda h, w: h // 2, "ceil((H-1)/2)"),
        (lambda h, w: (h + 1) // 2 * 8 + 20, "8*ceil((H+4)/2)+4"),
    ],
)
def test_printing(make, text: str) -> None:
    assert str(make(Extent.symbol("H", 10), Extent.symbol("W", 20))) == text


def test_a_number_where_one_is_needed() -> None:
    h = Extent.symbol("H", 3)
    for use in (range, fixed, lambda n: "abcd"[n], lambda n: int(n + Extent.symbol("W", 1))):
        with pytest.raises(SizeNeeded, match="has to be fixed") as error:
            use(h)
        assert "H" in error.value.symbols
    assert fixed(7) == 7


def test_division_by_nothing_is_an_error() -> None:
    with pytest.raises(ZeroDivisionError, match="H // 0"):
        Extent.symbol("H", 3) // 0


@given(sizes, st.integers(1, 9), st.integers(1, 9))
def test_exact_division_by_a_product(values: Sizes, a: int, b: int) -> None:
    h, w = symbols({name: n + 1 for name, n in values.items()}).values()
    assert same((a * b * h * w) // (a * h), b * w)
    with pytest.raises(SizeNeeded):
        (a * h + 1) // (a * h)


@given(sizes, st.integers(1, 9), st.integers(1, 9))
def test_exact_division_by_a_sum(values: Sizes, a: int, b: int) -> None:
    """What Reshape's -1 needs where an extent is not a single product: 9 * (H / 2 + W + 3) of 18 of them."""
    h, w = symbols({name: n + 1 for name, n in values.items()}).values()
    by = h // 2 + w + a
    assert same((b * h * by) // by, b * h)
    assert same((by * (h - w)) // by, h - w)
    with pytest.raises(SizeNeeded):
        (by * h + 1) // by
    with pytest.raises(SizeNeeded):
        (by * h) // (2 * by)


def test_shapes() -> None:
    h = Extent.symbol("H", 3)
    assert is_fixed((1, 2))
    assert not is_fixed((1, h))
    assert product(()) == 1
    assert product((2, 3, 4)) == 24
    assert str(product((2, h, h + 1))) == "2*H+2*H*H"
    assert h.symbols() == {"H"}
    assert (h // 2 * Extent.symbol("W", 1)).symbols() == {"H", "W"}
