"""Why the pad is 100 and the offset 19: the arithmetic of a net's Crops, in words, from its own formulas."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from caffe_fcn.geometry import Window
from caffe_fcn.symbols import Extent, Size, hint, same
from caffe_fcn.trace.model import Crop, Cut, Step, Why
from caffe_fcn.trace.sizes import number, numbers, period
from caffe_fcn.trace.walk import Walk

LONGEST = 1024  # sizes that are gone through for the least and the most of something


def explain(walked: Walk, crops: Mapping[int, Crop]) -> list[Why]:
    """The arithmetic of every Crop along a symbol, and of the large pad that makes room for it.

    Axes that behave alike are told of once.
    """
    whys: dict[str, Why] = {}
    cases = {index: _cases(walked, index, crop) for index, crop in crops.items()}
    for told in cases.values():
        first = told[0] if told else None
        for case in told:
            if case is not first and first is not None and case.alike(first):
                whys[first.about].sentences.append(
                    f"The {case.cut.name} go the same way, with {case.symbol} for {first.symbol}."
                )
                continue
            whys[case.about] = case.why()
            if pad := _pad(case, [c for other in cases.values() for c in other if c.symbol == case.symbol]):
                whys.setdefault(pad.about, pad)
    return list(whys.values())


def _cases(walked: Walk, index: int, crop: Crop) -> list[_Case]:
    data, reference = walked.bottoms[index]
    result = []
    for cut in crop.cuts:
        sizes = [n for n in (data[cut.axis], reference[cut.axis]) if isinstance(n, Extent)]
        symbols = {s for n in sizes for s in n.symbols()}
        if len(symbols) == 1 and isinstance(data[cut.axis], Extent):
            result.append(_Case(walked, index, crop, cut, symbols.pop(), data[cut.axis], reference[cut.axis]))
    return result


@dataclass
class _Case:
    """One Crop along one axis, whose sizes depend on one symbol."""

    walked: Walk
    index: int
    crop: Crop
    cut: Cut
    symbol: str
    data: Size
    reference: Size

    @property
    def about(self) -> str:
        axis = "" if len({c.given for c in self.crop.cuts}) == 1 else f" along the {self.cut.name}"
        return f"{self.crop.layer}: offset {self.cut.given}{axis}"

    @property
    def to_image(self) -> bool:
        """Whether it cuts to the size of the input."""
        return str(self.reference) == self.symbol

    def alike(self, other: _Case) -> bool:
        """Whether it is the other with another symbol."""
        x = {self.symbol: Extent.symbol(other.symbol, 1)}
        pairs = ((self.data, other.data), (self.reference, other.reference))
        renamed = (same(a.at(x) if isinstance(a, Extent) else a, b) for a, b in pairs)
        return (self.cut.given, self.cut.derived) == (other.cut.given, other.cut.derived) and all(renamed)

    def at(self, size: Size, value: int) -> int:
        return number(size, **{self.symbol: value})

    @cached_property
    def spare(self) -> tuple[int, int] | None:
        """The least and the most that there is to cut; None if that grows with the input."""
        spare = self.data - self.reference
        step = period(self.data) * period(self.reference)
        if step > LONGEST or self.at(spare, 1) != self.at(spare, 1 + step):
            return None
        found = [self.at(spare, n) for n in range(1, step + 1)]
        return min(found), max(found)

    @cached_property
    def path(self) -> tuple[int, ...]:
        """Layers from the image to the blob that is cut."""
        field = self.walked.bottom_fields[self.index][0]
        return field.path if field else ()

    @cached_property
    def steps(self) -> list[tuple[int, Step]]:
        """Where the extent changes on the way, each with its (first) layer."""
        found: list[tuple[int, Step]] = []
        before: Size | None = None
        for i in self.path:
            after = self.walked.tops[i][0][self.cut.axis]
            if before is not None and not same(before, after):
                step = self._step(i, after)
                last = found[-1][1] if found else None
                if last and (last.windows, last.change) == (step.windows, step.change):
                    found[-1] = (
                        found[-1][0],
                        Step(last.layers + step.layers, step.windows, step.change, after),
                    )
                else:
                    found.append((i, step))
            before = after
        return found

    def _step(self, i: int, after: Size) -> Step:
        layer, bottoms = self.walked.net.layers[i], self.walked.bottoms[i]
        change = ""
        if len(bottoms) == 1:
            axis = self.cut.axis
            n = Extent.symbol("n", hint(bottoms[0][axis]))
            change = str(layer.reshape([(*bottoms[0][:axis], n, *bottoms[0][axis + 1 :])])[0][axis])
        return Step([layer.name], list(layer.windows([numbers(s) for s in bottoms])), change, after)

    def why(self) -> Why:
        told = [self._spare(), *self._place(), self._cut()]
        return Why(self.about, [step for _, step in self.steps] if self.to_image else [], told)

    def _spare(self) -> str:
        crop, rows = self.crop, self.cut.name
        if self.spare:
            more = f"{_range(*self.spare)} more than the {self.reference} of {crop.reference}, whatever {self.symbol} is"
        else:
            more = f"{hint(self.data) - hint(self.reference)} more than the {self.reference} of {crop.reference} here"
        return f"{crop.data} has {self.data} {rows}: {more}."

    def _place(self) -> list[str]:
        """Where the coordinates put the two blobs."""
        if self.cut.derived is None:
            return [f"No offset can be derived: {self.crop.problem}."]
        one, two = (f.axes[self.cut.axis - 2] if f else None for f in self.walked.bottom_fields[self.index])
        if one is None or two is None or not one.stride or one.stride != two.stride:
            return [f"The coordinates of the two ask for an offset of {self.cut.derived}."]
        row = self.cut.name[:-1]
        sum_ = f"{two.offset} - {_bracketed(one.offset)}"
        if one.stride != 1:
            sum_ = f"({sum_}) / {one.stride}"
        apart = f", and {self.cut.name} are {one.stride} apart there" if one.stride != 1 else ""
        told = (
            f"Its {row} 0 lies on {row} {one.offset} of the image, that of {self.crop.reference} on {two.offset}"
            f"{apart}: it begins {sum_} = {self.cut.derived} {self.cut.name} too early"
        )
        right = self.cut.derived == self.cut.given
        return [
            told + (", which is the offset." if right else f". But the offset given is {self.cut.given}.")
        ]

    def _cut(self) -> str:
        given = self.cut.given
        here = hint(self.cut.after)
        if self.spare is None:
            return f"So {given} are cut in front and {here} behind."
        least, most = self.spare
        told = f"So {given} are cut in front and {_range(least - given, most - given)} behind"
        if least != most:
            told += f" ({here} at {self.symbol} = {self.walked.symbols[self.symbol]})"
        half = (
            f"; of the least to spare, {least}, that is half on each side" if least == 2 * given > 0 else ""
        )
        return f"{told}{half}."


def _pad(case: _Case, others: list[_Case]) -> Why | None:
    """Why the first layer on the way to a Crop pads more than its windows reach; None if none does."""
    if not (case.to_image and case.steps and case.spare and case.cut.derived == case.cut.given):
        return None
    index, step = case.steps[0]
    window = step.windows[case.cut.axis - 2] if step.windows else Window(1)
    image = Extent.symbol(case.symbol, case.walked.symbols[case.symbol])
    if window.pad < window.reach or len(step.layers) > 1 or not same(window.count(image), step.size):
        return None
    plain = (window.reach - 1) // 2 if window.stride == 1 else 0
    made = [(i, case.walked.tops[i][0][case.cut.axis]) for i in case.path if i >= index]
    less = 2 * (window.pad - plain)
    names, rows, symbol = case.walked.net.layer_names, case.cut.name, case.symbol
    needs = [
        (bisect_left(range(1 << 14), True, key=lambda n, s=s: case.at(s, n - less) > 0), i) for i, s in made
    ]
    most, layer = max(needs, key=lambda need: need[0])
    short = _range(*sorted(max(0, less - spare) for spare in case.spare))
    keeps = ", which keeps the size," if window.stride == 1 and window.reach % 2 else ""
    told = [
        f"With pad {plain}{keeps} {names[layer]} would leave nothing of an image of fewer than {most} {rows}, "
        f"and {case.crop.data} would be {short} {rows} short of {case.crop.reference}: no offset makes up for that.",
    ]
    least = bisect_left(
        range(plain, window.pad), True, key=lambda p: _serves(case, others, made, window.pad - p)
    )
    least += plain
    if least < window.pad:
        offset = case.cut.given - (window.pad - least)
        told.append(f"The least pad with which every image works is {least} (and the offset then {offset}).")
    else:
        told.append("With any smaller pad there are images that do not work.")
    if window.stride == 1:
        told.append(_cost(case, index))
    return Why(f"{names[index]}: pad {window.pad}", [], told)


def _serves(case: _Case, others: list[_Case], made: list[tuple[int, Size]], less: int) -> bool:
    """Whether every input from 1 on works with so much less pad: as if it were smaller by twice that."""
    if any(case.at(size, 1 - 2 * less) < 1 for _, size in made):
        return False
    for other in others:
        step = min(period(other.data) * period(other.reference), LONGEST)
        for n in range(1, step + 1):
            data = other.at(other.data, n - 2 * less)
            offset = other.cut.given - less if other.to_image else other.cut.given
            reference = n if other.to_image else other.at(other.reference, n - 2 * less)
            if offset < 0 or offset + reference > data:
                return False
    return True


def _cost(case: _Case, index: int) -> str:
    """How many times the image's pixels the padded layer computes."""
    top, bottom = (numbers(s)[2:] for s in (case.walked.tops[index][0], case.walked.bottoms[index][0]))
    times = 1.0
    for a, b in zip(top, bottom, strict=True):
        times *= a / b
    shown = " x ".join(map(str, top)), " x ".join(map(str, bottom))
    name = case.walked.net.layer_names[index]
    return f"Its price: {name} computes {shown[0]} positions for an image of {shown[1]}, {times:.1f} times as many."


def _range(least: int, most: int) -> str:
    return str(least) if least == most else f"{least} to {most}"


def _bracketed(n: object) -> str:
    return f"({n})" if str(n).startswith("-") else str(n)
