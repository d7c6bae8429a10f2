"""What a trace holds. Sizes that depend on the input are kept as formulas beside their present value."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from fractions import Fraction
from types import ModuleType
from typing import Any, ClassVar

from caffe_fcn.geometry import Window
from caffe_fcn.symbols import Atom, Extent, Shape, Size, Symbol, hint

FLOAT = 4  # bytes of a number


@dataclass(frozen=True)
class Axis:
    """How elements along one axis of a blob lie in the image."""

    size: int  # pixels that an element is computed from, at most
    stride: Fraction | None  # pixels from one element to the next; None if there is one only
    offset: Fraction  # the pixel on which the middle of element 0 lies; pixels count from 0


@dataclass(frozen=True)
class Row:
    """One layer."""

    index: int
    name: str
    type: str
    bottoms: list[str]
    tops: list[str]
    in_place: bool
    windows: list[Window]  # along the last axes; [] where nothing slides
    group: int
    shapes: list[Shape]  # of each top, with the input's extents as symbols
    parameters: int  # learnable numbers of its own
    shared: list[str]  # owners of parameters that it shares
    macs: Size  # multiply-accumulates of one pass
    memory: Size  # bytes of the blobs that it makes; none where it works in place or shares its bottom's
    axes: list[Axis]  # along the spatial axes of top 0; [] where its elements have no place in the image
    lr_mult: list[float]  # one per parameter blob
    learning: str  # "learned", "frozen", "partly", or "" without parameters
    source: str  # where its weights come from, or ""

    ALSO: ClassVar = ("parameter_bytes",)  # what to_dict gives beside the fields

    @property
    def parameter_bytes(self) -> int:
        return FLOAT * self.parameters


@dataclass(frozen=True)
class Cut:
    """What a Crop does along one axis, in elements of the blob that it cuts."""

    axis: int
    name: str  # "rows", "columns", or "axis 1"
    given: int  # the offset in the prototxt
    derived: int | None  # the offset that makes both blobs lie alike in the image
    before: int  # cut off in front
    after: Size  # cut off behind


@dataclass(frozen=True)
class Crop:
    """One Crop layer."""

    layer: str
    data: str  # the blob that is cut
    reference: str  # the blob whose size it gets
    cuts: list[Cut]
    problem: str  # why no offset can be derived, or ""

    ALSO: ClassVar = ("right",)

    @property
    def right(self) -> bool:
        """Whether no given offset differs from a derived one."""
        return all(c.derived is None or c.derived == c.given for c in self.cuts)


@dataclass(frozen=True)
class Smallest:
    """The smallest input, found by trying."""

    sizes: dict[str, int]  # symbol -> its smallest value
    tried: dict[str, int]  # symbol -> the largest value up to which every one was tried
    failing: dict[str, list[int]]  # symbol -> values between these two that do not work


@dataclass(frozen=True)
class Totals:
    """Sums over the net."""

    layers: int
    parameters: int  # shared ones counted once
    frozen: int  # of these, how many have lr_mult 0
    macs: Size
    memory: Size  # bytes of all blobs together
    live: int  # bytes of the blobs that are needed at once, at most; each is let go after its last reader
    live_at: str  # the layer at which that is

    ALSO: ClassVar = ("parameter_bytes",)

    @property
    def parameter_bytes(self) -> int:
        return FLOAT * self.parameters


@dataclass(frozen=True)
class Step:
    """Layers along which an extent changes: one, or several alike that follow each other."""

    layers: list[str]
    windows: list[Window]
    change: str  # what one of them makes of n
    size: Size  # after the last of them


@dataclass(frozen=True)
class Why:
    """The arithmetic behind one pad or offset."""

    about: str
    steps: list[Step]
    sentences: list[str]


@dataclass(frozen=True)
class Trace:
    """A net at one input size, and the formulas for all others."""

    name: str
    path: str
    phase: str
    inputs: dict[str, Shape]
    outputs: list[str]
    symbols: dict[str, int]  # symbol -> its value here
    fixed: dict[str, str]  # symbol that had to be a number -> the layer that needs it
    rows: list[Row]
    crops: list[Crop]
    totals: Totals
    smallest: Smallest | None  # None if no extent is open
    whys: list[Why]
    warnings: list[str]

    def __str__(self) -> str:
        """As `caffe-fcn trace` prints it."""
        return str(_report("text").render(self))

    def _repr_html_(self) -> str:
        """What Jupyter shows: the tables."""
        return str(_report("notebook").render(self))

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, dicts, strings and numbers, for JSON.

        Where a field holds sizes, FIELD has the numbers of this input; if they depend on the input,
        FIELD_formula has them for people, and FIELD_js as JavaScript whose variables are the symbols.
        Fractions are numbers if whole, else strings such as "1/2".
        """
        return _plain(self)


def _report(form: str) -> ModuleType:
    """A form of reports. They are made of traces, so that a trace knows of them only when somebody looks."""
    return importlib.import_module(f"caffe_fcn.report.{form}")


def js(size: Size) -> str:
    """A JavaScript expression; the symbols are its variables."""

    def atom(a: Atom) -> str:
        return a.name if isinstance(a, Symbol) else f"Math.floor(({js(a.of)})/{a.by})"

    if not isinstance(size, Extent):
        return str(size)
    return str(size.fold(atom, lambda a, b: f"{a}*{b}", lambda a, b: f"{a}+{b}"))


def _plain(value: Any, size: Callable[[Extent], Any] = hint) -> Any:
    if isinstance(value, Extent):
        return size(value)
    if isinstance(value, Fraction):
        return int(value) if value.denominator == 1 else str(value)
    if isinstance(value, Window):
        return value._asdict()
    if is_dataclass(value):
        return _members(value)
    if isinstance(value, dict):
        return {key: _plain(v, size) for key, v in value.items()}
    return [_plain(v, size) for v in value] if isinstance(value, (list, tuple)) else value


def _members(value: Any) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name in [*(f.name for f in fields(value)), *getattr(value, "ALSO", ())]:
        member = getattr(value, name)
        result[name] = _plain(member)
        if _is_open(member):
            result[f"{name}_formula"], result[f"{name}_js"] = _plain(member, str), _plain(member, js)
    return result


def _is_open(value: Any) -> bool:
    """Whether there is a symbol in a size, shape, or collection of them."""
    if isinstance(value, dict):
        return any(_is_open(v) for v in value.values())
    if isinstance(value, (list, tuple)):
        return any(_is_open(v) for v in value)
    return isinstance(value, Extent)
