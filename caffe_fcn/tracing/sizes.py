"""Sizes with symbols, given values."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from math import lcm
from typing import Any

import numpy as np

from caffe_fcn.symbols import Extent, Shape, Size, Symbol, fixed, hint


def at(shape: Shape, values: Mapping[str, int]) -> Shape:
    """The shape with the symbols' values put in."""
    return tuple(n.at(values) if isinstance(n, Extent) else n for n in shape)


def numbers(shape: Shape) -> tuple[int, ...]:
    """The shape at the present input."""
    return tuple(hint(n) for n in shape)


def number(size: Size, **values: int) -> int:
    """The size with the symbols' values put in; SizeNeeded if one is missing."""
    return fixed(size.at(values) if isinstance(size, Extent) else size)


def over(size: Size, symbol: str, values: np.ndarray) -> np.ndarray:
    """The size at each of the symbol's values; it may have no other symbol."""
    arrays: Any = {symbol: values}  # `at` needs no more than + * //, which arrays have
    found: Any = size.at(arrays) if isinstance(size, Extent) else size
    return np.broadcast_to(found, values.shape)


def pixels(value: Fraction | None) -> str:
    """-92.5, 1/3, or - for none."""
    if value is None:
        return "-"
    return f"{float(value):g}" if value.denominator in (2, 4, 8) else str(value)


def period(size: Size) -> int:
    """After so many steps of the symbols, every floor in the size has moved by a whole number."""
    if not isinstance(size, Extent):
        return 1
    atoms = [a for monomial in size.terms for a in monomial]
    return lcm(*(a.by * period(a.of) for a in atoms if not isinstance(a, Symbol)))
