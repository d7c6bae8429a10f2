"""Sizes that are not known yet: polynomials in the extents of a net's inputs, with floor division.

An `Extent` is used where a size is used. It carries the value it has at the shape the net was built with
(`hint`), and comparisons look at that value, so that code written for numbers runs unchanged. Where a
number is really needed (an array, a loop), Python asks for `__index__`, which raises `SizeNeeded` naming
the symbols: the exporter then fixes these and starts again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import total_ordering
from typing import Any, NamedTuple, TypeAlias

from caffe_fcn.errors import CaffeError


class SizeNeeded(CaffeError):  # noqa: N818 - it is a question, answered by fixing the size
    """A number was needed where only a symbol stands."""

    def __init__(self, extent: Extent) -> None:
        self.symbols = extent.symbols()
        text = str(extent)
        super().__init__(f"the size {text if len(text) < 200 else text[:200] + ' ...'} has to be fixed")


#: A formula that takes more symbols, or larger numbers, than any net's gives up: its symbols are fixed.
MOST, DEEPEST, BITS = 1000, 40, 128


class Floor(NamedTuple):
    """floor(of / by)."""

    of: Extent
    by: int

    @property
    def key(self) -> tuple[Any, ...]:
        return (1, self.of.key, self.by)

    def __eq__(self, other: object) -> bool:  # not by the hints: of a square image, H and W have the same
        return isinstance(other, Floor) and self.key == other.key

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(self.key)


class Symbol(NamedTuple):
    """The extent of an input along one axis."""

    name: str
    hint: int

    @property
    def key(self) -> tuple[Any, ...]:
        return (0, self.name)


Atom: TypeAlias = Symbol | Floor
Monomial: TypeAlias = tuple[Atom, ...]


@total_ordering
class Extent:
    """A polynomial with integer coefficients in symbols and floors. Immutable."""

    __slots__ = ("atoms", "depth", "hint", "key", "terms")

    def __init__(self, terms: Mapping[Monomial, int]) -> None:
        self.terms: dict[Monomial, int] = {m: c for m, c in sorted(terms.items(), key=_order) if c}
        self.key: tuple[Any, ...] = tuple((tuple(a.key for a in m), c) for m, c in self.terms.items())
        self.hint: int = sum(c * _value(m) for m, c in self.terms.items())
        self.atoms: int = sum(1 if isinstance(a, Symbol) else 1 + a.of.atoms for m in self.terms for a in m)
        inner = [a.of.depth for m in self.terms for a in m if isinstance(a, Floor)]
        self.depth: int = 1 + max(inner, default=-1)  # floors in each other
        if self.atoms > MOST or self.depth > DEEPEST or any(n.bit_length() > BITS for n in self._numbers()):
            raise SizeNeeded(self)

    def _numbers(self) -> Iterator[int]:
        yield from self.terms.values()
        yield from (a.by for m in self.terms for a in m if isinstance(a, Floor))

    @classmethod
    def symbol(cls, name: str, hint: int) -> Extent:
        return cls({(Symbol(name, hint),): 1})

    # --- arithmetic; the result is an int as soon as no symbol is left

    def __add__(self, other: Size) -> Size:
        terms = dict(self.terms)
        for m, c in _terms(other).items():
            terms[m] = terms.get(m, 0) + c
        return _reduced(terms)

    def __mul__(self, other: Size) -> Size:
        terms: dict[Monomial, int] = {}
        for m, c in self.terms.items():
            for n, d in _terms(other).items():
                product = tuple(sorted(m + n, key=lambda atom: atom.key))
                terms[product] = terms.get(product, 0) + c * d
        return _reduced(terms)

    __radd__, __rmul__ = __add__, __mul__

    def __neg__(self) -> Size:
        return self * -1

    def __sub__(self, other: Size) -> Size:
        return self + other * -1

    def __rsub__(self, other: int) -> Size:
        return self * -1 + other

    def __floordiv__(self, by: Size) -> Size:
        if isinstance(by, Extent):
            return self._exactly(by)
        if by <= 0:
            raise ZeroDivisionError(f"{self} // {by}")
        # floor((by * q + r) / by) = q + floor(r / by), monomial by monomial
        whole = {m: c // by for m, c in self.terms.items()}
        rest = {m: c % by for m, c in self.terms.items()}
        constant = rest.pop((), 0)
        if not any(rest.values()):
            return _reduced(whole)
        whole[()] = whole.get((), 0)
        inner = Extent({**rest, (): constant})
        # floor((floor(x / a) + c) / b) = floor((x + a c) / (a b))
        if len(atoms := [m for m in inner.terms if m]) == 1 and inner.terms[atoms[0]] == 1:
            (atom,) = atoms[0] if len(atoms[0]) == 1 else (None,)
            if isinstance(atom, Floor):
                return _reduced(whole) + (atom.of + atom.by * constant) // (atom.by * by)
        return _reduced(whole) + Extent({(Floor(inner, by),): 1})

    def __mod__(self, by: int) -> Size:
        return self - (self // by) * by

    def _exactly(self, by: Extent) -> Size:
        """Self / by where `by` divides it for every value of the symbols: long division of polynomials."""
        lead, factor = max(by.terms.items(), key=_degree)
        rest: Size = self
        quotient: Size = 0
        while isinstance(rest, Extent):
            product, coefficient = max(rest.terms.items(), key=_degree)
            left = list(product)
            if coefficient % factor or any(left.count(a) < lead.count(a) for a in lead):
                raise SizeNeeded(self)
            for a in lead:
                left.remove(a)
            step = _reduced({tuple(left): coefficient // factor})
            quotient, rest = quotient + step, rest - step * by
        if rest:
            raise SizeNeeded(self)
        return quotient

    # --- comparisons look at the hint

    def __eq__(self, other: object) -> bool:
        return self.hint == (other.hint if isinstance(other, Extent) else other)

    def __lt__(self, other: Size) -> bool:
        return self.hint < hint(other)

    def __hash__(self) -> int:
        return hash(self.hint)

    def __bool__(self) -> bool:
        return bool(self.hint)

    def same(self, other: Size) -> bool:
        """Equal for every value of the symbols."""
        return isinstance(other, Extent) and self.key == other.key

    def __index__(self) -> int:
        raise SizeNeeded(self)

    __int__ = __index__

    # --- reading

    def symbols(self) -> set[str]:
        """Names of the symbols in it."""
        names: set[str] = set()
        for atom in (a for m in self.terms for a in m):
            names |= {atom.name} if isinstance(atom, Symbol) else atom.of.symbols()
        return names

    def at(self, values: Mapping[str, Size]) -> Size:
        """The size with each symbol replaced by its value."""

        def value(atom: Atom) -> Size:
            if isinstance(atom, Symbol):
                return values.get(atom.name, Extent({(atom,): 1}))
            return atom.of.at(values) // atom.by

        return self.fold(value, lambda a, b: a * b, lambda a, b: a + b)

    def fold(
        self, atom: Callable[[Atom], Any], multiply: Callable[[Any, Any], Any], add: Callable[[Any, Any], Any]
    ) -> Any:
        """Evaluate with the given operations; coefficients are passed as plain ints."""
        total: Any = None
        for m, c in self.terms.items():
            term: Any = c if c != 1 or not m else None
            for a in m:
                term = atom(a) if term is None else multiply(atom(a), term)
            total = term if total is None else add(total, term)
        return total

    def __str__(self) -> str:
        constant = self.terms.get((), 0)
        parts: list[str] = []
        for m, c in self.terms.items():
            if not m:
                continue
            absorbed = 0
            if len(m) == 1 and isinstance(m[0], Floor):
                absorbed, constant = constant // c, constant % c
            body = "*".join(_text(a, absorbed) for a in m)
            if abs(c) != 1:
                body = f"{abs(c)}*{body}"
            parts.append(("-" if c < 0 else "+") + body)
        if constant or not parts:
            parts.append(f"{constant:+d}")
        text = "".join(sorted(parts, key=lambda part: part[0] == "-"))
        return text.removeprefix("+")

    __repr__ = __str__


Size: TypeAlias = int | Extent
Shape: TypeAlias = tuple[Size, ...]


def hint(size: Size) -> int:
    """The value at the shape that the net was built with."""
    return size.hint if isinstance(size, Extent) else int(size)


def fixed(size: Size) -> int:
    """The number; raises SizeNeeded for a symbol."""
    return size.__index__()


def is_fixed(shape: Shape) -> bool:
    """Whether every axis is a number."""
    return not any(isinstance(n, Extent) for n in shape)


def same(a: Size, b: Size) -> bool:
    """Equal for every value of the symbols."""
    return a.same(b) if isinstance(a, Extent) else not isinstance(b, Extent) and a == b


def product(sizes: Shape) -> Size:
    """The number of elements."""
    total: Size = 1
    for n in sizes:
        total = n * total
    return total


def _terms(size: Size) -> Mapping[Monomial, int]:
    return size.terms if isinstance(size, Extent) else {(): int(size)}


def _reduced(terms: Mapping[Monomial, int]) -> Size:
    return Extent(terms) if any(c for m, c in terms.items() if m) else terms.get((), 0)


def _order(term: tuple[Monomial, int]) -> tuple[Any, ...]:
    return (not term[0], len(term[0]), tuple(atom.key for atom in term[0]))


def _degree(term: tuple[Monomial, int]) -> tuple[Any, ...]:
    """Products of more symbols are greater; of as many, an order that multiplying keeps."""
    return (len(term[0]), tuple(atom.key for atom in term[0]))


def _value(monomial: Monomial) -> int:
    value = 1
    for atom in monomial:
        value *= atom.hint if isinstance(atom, Symbol) else atom.of.hint // atom.by
    return value


def _text(atom: Atom, absorbed: int) -> str:
    """`absorbed` is a constant beside a floor; Caffe rounds up nearly everywhere, so we print ceil."""
    if isinstance(atom, Symbol):
        return atom.name
    inner = str(atom.of + (absorbed * atom.by - atom.by + 1))
    return f"ceil({inner}/{atom.by})" if inner.isalnum() else f"ceil(({inner})/{atom.by})"
