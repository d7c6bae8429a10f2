"""Why the pad is 100 and the offset 19: the arithmetic of a net's Crops, in words, from its own formulas."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from math import lcm, prod

import numpy as np

from caffe_fcn.geometry import Window
from caffe_fcn.symbols import Extent, Size, fixed, hint, same
from caffe_fcn.tracing.model import Crop, Cut, Step, Why
from caffe_fcn.tracing.sizes import number, numbers, over, period, pixels
from caffe_fcn.tracing.walk import Walk

MOST = 32  # Crops that are explained
LONGEST = 1024  # sizes that are gone through for the least and the most of something
LARGEST = 1 << 14  # pixels; no net needs more


def explain(walked: Walk, crops: Mapping[int, Crop]) -> list[Why]:
    """The arithmetic of every Crop along a symbol, and of the large pad that makes room for it.

    Axes that behave alike are told of once. Of very many Crops the first are explained.
    """
    whys: dict[str, Why] = {}
    cases = {index: _cases(walked, index, crop) for index, crop in islice(crops.items(), MOST)}
    told: list[_Case] = []
    for case in (case for each in cases.values() for case in each):
        before = next((other for other in told if case.alike(other)), None)
        if before is None:
            told.append(case)
            whys[case.about] = case.why()
            rest = [c for others in cases.values() for c in others if c.symbol == case.symbol]
            if pad := _pad(case, rest):
                whys.setdefault(pad.about, pad)
        elif before.crop is case.crop:
            why = f"The {case.cut.name} go the same way, with {case.symbol} for {before.symbol}."
            whys[before.about].sentences.append(why)
        elif case.about not in whys:
            same_as = f"The same sizes, and so the same offset, as of {before.crop.layer}."
            whys[case.about] = Why(case.about, [], [same_as])
    return list(whys.values())


def _cases(walked: Walk, index: int, crop: Crop) -> list[_Case]:
    data, reference = walked.bottoms[index]
    result = []
    for cut in crop.cuts:
        sizes = [n for n in (data[cut.axis], reference[cut.axis]) if isinstance(n, Extent)]
        symbols = {s for n in sizes for s in n.symbols()}
        if len(symbols) == 1 and isinstance(data[cut.axis], Extent):
            sides = (data[cut.axis], reference[cut.axis])
            result.append(_Case(walked, index, crop, cut, symbols.pop(), *sides))
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

    @cached_property
    def to_image(self) -> bool:
        """Whether it cuts to the size of the input."""
        return str(self.reference) == self.symbol

    def alike(self, other: _Case) -> bool:
        """Whether it is the other with another symbol."""
        x = {self.symbol: Extent.symbol(other.symbol, 1)}
        pairs = ((self.data, other.data), (self.reference, other.reference))
        renamed = (same(a.at(x) if isinstance(a, Extent) else a, b) for a, b in pairs)
        return (self.cut.given, self.cut.derived) == (other.cut.given, other.cut.derived) and all(renamed)

    @cached_property
    def period(self) -> int:
        """After so many pixels everything is as before."""
        return lcm(period(self.data), period(self.reference))

    def at(self, size: Size, value: int) -> int:
        return number(size, **{self.symbol: value})

    @cached_property
    def spare(self) -> tuple[int, int] | None:
        """The least and the most that there is to cut; None if that grows with the input."""
        spare = self.data - self.reference
        if self.period > LONGEST or self.at(spare, 1) != self.at(spare, 1 + self.period):
            return None
        found = over(spare, self.symbol, np.arange(1, self.period + 1))
        return int(found.min()), int(found.max())

    @cached_property
    def path(self) -> tuple[int, ...]:
        """Layers from the image to the blob that is cut."""
        field = self.walked.bottom_fields[self.index][0]
        return field.path if field else ()

    @cached_property
    def steps(self) -> list[tuple[int, Step]]:
        """Where the extent changes on the way, each with its first layer."""
        found: list[tuple[int, Step]] = []
        before: Size | None = None
        for i in self.path:
            after = self.walked.tops[i][0][self.cut.axis]
            if before is not None and not same(before, after):
                step = self._step(i, after)
                first, last = found[-1] if found else (i, None)
                if last and (last.windows, last.change) == (step.windows, step.change):
                    found[-1] = (first, Step(last.layers + step.layers, step.windows, step.change, after))
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
        told = [self._spare(), self._place(), self._cut()]
        return Why(self.about, [step for _, step in self.steps] if self.to_image else [], told)

    def _spare(self) -> str:
        least, most = self.spare or (hint(self.data - self.reference),) * 2
        always = f"whatever {self.symbol} is" if self.spare else "at this size"
        return (
            f"{self.crop.data} has {self.data} {self.cut.name}: {_range(least, most)} more than the "
            f"{self.reference} of {self.crop.reference}, {always}."
        )

    def _place(self) -> str:
        """Where the coordinates put the two blobs."""
        derived, given, rows = self.cut.derived, self.cut.given, self.cut.name
        if derived is None:
            return f"No offset can be derived: {self.crop.problem}."
        told = f"The coordinates of the two ask for an offset of {derived}"
        one, two = (f.axes[self.cut.axis - 2] if f else None for f in self.walked.bottom_fields[self.index])
        if one and two and one.stride and one.stride == two.stride:
            row = rows[:-1]
            sum_ = f"{pixels(two.offset)} - {_bracketed(pixels(one.offset))}"
            apart = ""
            if one.stride != 1:
                sum_, apart = (
                    f"({sum_}) / {pixels(one.stride)}",
                    f", and its {rows} {pixels(one.stride)} apart",
                )
            here, there = pixels(one.offset), pixels(two.offset)
            told = (
                f"Its {row} 0 lies on {row} {here} of the image{apart}; {row} 0 of {self.crop.reference} "
                f"lies on {there}. It begins {sum_} = {derived} {row if derived == 1 else rows} early"
            )
        return told + (
            ", which is the offset." if derived == given else f". But the offset given is {given}."
        )

    def _cut(self) -> str:
        given, here = self.cut.given, hint(self.cut.after)
        if self.spare is None:
            return f"{given} are cut in front and {here} behind."
        least, most = self.spare
        told = f"{given} are cut in front and {_range(least - given, most - given)} behind"
        if least != most:
            told += f" ({here} at {self.symbol} = {self.walked.symbols[self.symbol]})"
        half = f"; where {least} are to spare, that is half on each side" if least == 2 * given else ""
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
    made = [(i, case.walked.tops[i][0][case.cut.axis]) for i in case.path if i >= index]
    plain = (window.reach - 1) // 2 if window.stride == 1 else 0
    keeps = " (which keeps the size)" if window.stride == 1 and window.reach % 2 else ""
    told = [f"With pad {plain}{keeps}, {_without(case, made, window.pad - plain)}."]
    less = bisect_left(
        range(window.pad - plain), True, key=lambda less: not _serves(case, others, made, less + 1)
    )
    if less:
        told.append(
            f"The least pad with which every image works is {window.pad - less} "
            f"(and the offset of {case.crop.layer} then {case.cut.given - less})."
        )
    else:
        told.append("With any smaller pad there are images that do not work.")
    told.append(_cost(case, index, plain))
    return Why(f"{case.walked.net.layer_names[index]}: pad {window.pad}", [], told)


def _without(case: _Case, made: list[tuple[int, Size]], less: int) -> str:
    """What goes wrong with so much less pad, which is as if the image were smaller by twice that."""
    names, rows = case.walked.net.layer_names, case.cut.name

    def needs(size: Size) -> int:
        return bisect_left(range(LARGEST), 1, key=lambda n: case.at(size, n - 2 * less))

    found = {i: needs(size) for i, size in made}
    layer = max(found, key=lambda i: found[i])  # the first of those that need the most
    least, most = case.spare or (0, 0)
    told = f"{names[layer]} would leave nothing of an image of fewer than {found[layer]} {rows}"
    if least < 2 * less:
        short = _range(max(0, 2 * less - most), 2 * less - least)
        told += (
            f", and {case.crop.data} would be {short} {rows} short of {case.crop.reference}, "
            "for which no offset makes up"
        )
    return told


def _serves(case: _Case, others: list[_Case], made: list[tuple[int, Size]], less: int) -> bool:
    """Whether every image from 1 on works with so much less pad."""
    if any(case.at(size, 1 - 2 * less) < 1 for _, size in made):
        return False
    for other in others:
        images = np.arange(1, min(other.period, LONGEST) + 1)
        padded = images - 2 * less
        offset = other.cut.given - (less if other.to_image else 0)
        reference = over(other.reference, other.symbol, images if other.to_image else padded)
        if offset < 0 or (offset + reference > over(other.data, other.symbol, padded)).any():
            return False
    return True


def _cost(case: _Case, index: int, plain: int) -> str:
    """How much more the padded layer computes."""
    layer, (bottom,) = case.walked.net.layers[index], (numbers(s) for s in case.walked.bottoms[index])
    windows = layer.windows([bottom])
    padded = numbers(case.walked.tops[index][0])[-len(windows) :]
    without = [
        fixed(w._replace(pad=plain).count(n)) for w, n in zip(windows, bottom[-len(windows) :], strict=True)
    ]
    times = prod(padded) / max(1, prod(without))
    computed, less = (" x ".join(map(str, n)) for n in (padded, without))
    told = f"The price: {layer.name} computes {computed} positions in place of {less}"
    return f"{told}, {times:.1f} times as many."


def _range(least: int, most: int) -> str:
    return str(least) if least == most else f"{least} to {most}"


def _bracketed(n: str) -> str:
    return f"({n})" if n.startswith("-") else n
