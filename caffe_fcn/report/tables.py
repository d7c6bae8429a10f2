"""What the tables of a report hold, as cells of text; the same for every form."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from caffe_fcn.geometry import Window
from caffe_fcn.symbols import Extent, Shape, hint, same
from caffe_fcn.tracing import Crop, Row, Smallest, Step, Trace
from caffe_fcn.tracing.sizes import pixels
from caffe_fcn.units import bytes_text, count_text


@dataclass
class Table:
    """Cells with a heading for each column; a heading that begins with '>' stands for numbers."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    note: str = ""

    def filled(self) -> Table:
        """Without the columns in which nothing stands."""
        kept = [i for i in range(len(self.columns)) if any(row[i] for row in self.rows)]
        rows = [[row[i] for i in kept] for row in self.rows]
        return Table(self.title, [self.columns[i] for i in kept], rows, self.note)


def layers(trace: Trace) -> Table:
    """Shapes: numbers, and formulas where the input's size is open."""
    short = _one_formula(trace)
    columns = [
        ">#",
        "layer",
        "type",
        "bottoms → tops",
        "window",
        "output",
        "by H (W alike)" if short else "formula",
    ]
    rows = [
        [
            str(row.index),
            row.name,
            row.type,
            flow(row),
            window_text(row.windows, row.group),
            _outputs(row.shapes),
            _formula(row.shapes, short),
        ]
        for row in trace.rows
    ]
    note = "window: kernel, s stride, p pad, d dilation, g groups, where these are not 1 or 0"
    return Table("Layers", columns, rows, note).filled()


def costs(trace: Trace) -> Table:
    """What the layers hold and cost, and where their tops lie in the image."""
    names = ["layer", ">parameters", ">bytes", "learning", "weights from", ">MACs", ">activations"]
    columns = [">#", *names, ">field", ">stride", ">offset"]
    rows = [
        [
            str(row.index),
            row.name,
            f"{row.parameters:,}" if row.parameters else "",
            bytes_text(row.parameter_bytes) if row.parameters else "",
            row.learning,
            row.source,
            count_text(hint(row.macs)) if hint(row.macs) else "",
            bytes_text(hint(row.memory)) if hint(row.memory) else "",
            by(a.size for a in row.axes),
            by(pixels(a.stride) for a in row.axes),
            by((pixels(a.offset) for a in row.axes), between=", "),
        ]
        for row in trace.rows
    ]
    note = (
        "field: pixels of the image that an element is computed from; stride: pixels from one element to the "
        "next; offset: the pixel under the middle of element 0"
    )
    return Table("Cost, weights, and place in the image", columns, rows, note).filled()


def crops(trace: Trace) -> Table:
    """The Crops: a row for each axis, or one for axes that are alike."""
    columns = [
        "crop",
        "cuts",
        "to the size of",
        "along",
        ">offset",
        ">derived",
        ">before",
        ">behind",
        "verdict",
    ]
    rows = []
    for crop in trace.crops:
        seen: dict[tuple[str, ...], list[str]] = {}
        for c in crop.cuts:
            derived = "?" if c.derived is None else str(c.derived)
            cells = (str(c.given), derived, str(c.before), str(hint(c.after)))
            seen.setdefault(cells, []).append(c.name)
        rows += [
            [crop.layer, crop.data, crop.reference, ", ".join(names), *cells, _verdict(crop, cells)]
            for cells, names in seen.items()
        ]
    note = "before, behind: what is cut off, in pixels of the blob that is cut; derived: from the coordinates"
    return Table("Crops", columns, rows, note).filled()


def steps(found: Sequence[Step]) -> Table:
    """How an extent changes on the way to a Crop."""
    rows = [
        [
            _listed(step.layers),
            window_text(step.windows),
            f"{step.change}, {len(step.layers)} times" if len(step.layers) > 1 else step.change,
            str(step.size),
        ]
        for step in found
    ]
    return Table("", ["layer", "window", "makes of n", "in all"], rows)


def facts(trace: Trace) -> list[tuple[str, str]]:
    """Sums and other single facts, with their units."""
    t = trace.totals
    frozen = f", {t.frozen:,} of them frozen" if t.frozen else ""
    at_once = (
        f"{bytes_text(t.live)} at most (in {t.live_at}) if each blob is let go after its last reader; "
        "what a layer needs to work is not counted"
    )
    found = [
        ("input", ", ".join(f"{name} {_numbers(shape)}" for name, shape in trace.inputs.items()) or "none"),
        ("output", ", ".join(trace.outputs)),
        ("layers", str(t.layers)),
        ("parameters", f"{t.parameters:,} ({bytes_text(t.parameter_bytes)} as float32){frozen}"),
        ("arithmetic", f"{_macs(hint(t.macs))} for one pass"),
        ("activations", f"{bytes_text(hint(t.memory))}, all blobs together"),
        ("at once", at_once),
    ]
    if trace.fixed:
        found.append(("fixed", _fixed(trace.fixed)))
    if trace.symbols:
        found.append(("smallest", _smallest(trace.smallest)))
    return found


def flow(row: Row) -> str:
    """What is read → what is made; a top that replaces its bottom is named once."""
    if row.in_place and row.bottoms == row.tops:
        return f"{', '.join(row.tops)} in place"
    tops = ", ".join(row.tops)
    marked = f"{tops} (in place)" if row.in_place else tops
    return f"{', '.join(row.bottoms)} → {marked}" if row.bottoms else f"→ {marked}"


def window_text(windows: Sequence[Window], group: int = 1) -> str:
    """Kernel, and what is not 1 or 0: '16x16 s8', '3x3 p100'."""
    if not windows:
        return ""
    parts = [by((w.kernel for w in windows), alike=False)]
    for letter, values, plain in (
        ("s", [w.stride for w in windows], 1),
        ("p", [w.pad for w in windows], 0),
        ("d", [w.dilation for w in windows], 1),
        ("g", [group], 1),
    ):
        if any(v != plain for v in values):
            parts.append(letter + by(values))
    return " ".join(parts)


def by(values: Iterable[object], alike: bool = True, between: str = "x") -> str:
    """'3x5'; if `alike`, '3' for values that are all 3."""
    found = [str(v) for v in values]
    return found[0] if alike and len(set(found)) == 1 else between.join(found)


def _numbers(shape: Shape) -> str:
    return by((hint(n) for n in shape), alike=False) or "scalar"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) < 4 else f"{names[0]} to {names[-1]}"


def _outputs(shapes: list[Shape]) -> str:
    found = [_numbers(shape) for shape in shapes]
    return f"{len(found)} of {found[0]}" if len(found) > 1 and len(set(found)) == 1 else ", ".join(found)


def _formula(shapes: list[Shape], short: bool) -> str:
    """The extents that depend on the input."""
    found = []
    for shape in shapes:
        sizes = [str(n) for n in shape if isinstance(n, Extent)]
        found.append(sizes[0] if short and sizes else " x ".join(sizes))
    return ", ".join(dict.fromkeys(f for f in found if f))


def _one_formula(trace: Trace) -> bool:
    """Whether everywhere W has the formula of H."""
    if set(trace.symbols) != {"H", "W"}:
        return False
    for shape in (shape for row in trace.rows for shape in row.shapes):
        sizes = [n for n in shape if isinstance(n, Extent)]
        if sizes and not (len(sizes) == 2 and _alike(*sizes)):
            return False
    return True


def _alike(h: Extent, w: Extent) -> bool:
    return h.symbols() == {"H"} and same(h.at({"H": Extent.symbol("W", 1)}), w)


def _verdict(crop: Crop, cells: tuple[str, ...]) -> str:
    if cells[1] == "?":
        return crop.problem.splitlines()[0] if crop.problem else ""
    return "" if cells[0] == cells[1] else "wrong: the two do not lie alike in the image"


def _macs(n: int) -> str:
    text = count_text(n)
    return f"{text}MAC" if " " in text else f"{text} MAC"


def _fixed(fixed: dict[str, str]) -> str:
    """Which extents have to stay as they are, and why."""
    layers = {layer: [s for s, other in fixed.items() if other == layer] for layer in fixed.values()}
    return "; ".join(f"{' and '.join(s)} stay as they are, because of {layer}" for layer, s in layers.items())


def _smallest(found: Smallest | None) -> str:
    if found is None:
        return "not found by trying one extent after the other"
    least = ", ".join(f"{symbol} = {n}" for symbol, n in found.sizes.items())
    tried = ", ".join(f"{symbol} = {n}" for symbol, n in found.tried.items())
    failing = [f"{symbol} = {_some(values)}" for symbol, values in found.failing.items() if values]
    more = f", but not {', nor '.join(failing)}" if failing else ", and every size from there on"
    return f"{least}{more} (found by trying, up to {tried})"


def _some(values: list[int]) -> str:
    """At most six of them."""
    shown = ", ".join(map(str, values[:6]))
    return shown if len(values) <= 6 else f"{shown}, ... ({len(values)} sizes)"
