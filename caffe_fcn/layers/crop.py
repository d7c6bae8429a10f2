"""Crop. Semantics: src/caffe/layers/crop_layer.cpp."""

from __future__ import annotations

import warnings
from fractions import Fraction

from caffe_fcn.errors import CaffeWarning
from caffe_fcn.layers.align import offset
from caffe_fcn.layers.base import (
    Around,
    Array,
    AxisMap,
    Builder,
    CoordMap,
    Layer,
    Sequence,
    Shape,
    Size,
    Value,
)  # fmt: skip


class Crop(Layer, bottoms=2):
    """Cut the first bottom to the size of the second, on every axis from `axis` on.

    Bottoms: data; reference, of which only the shape is read.
    Top: data's extent before `axis`, reference's from `axis` on; starts `offset` into data.
    """

    shape_only = frozenset({1})

    def _window(self, data: Shape, reference: Shape) -> list[tuple[int, int, Size]]:
        """(axis, start, stop) of each cropped axis."""
        p, rank = self.param.crop_param, len(data)
        axis = self.axis(p.axis, rank)
        self.check(len(reference) == rank, f"'{self.param.bottom[0]}' is {data}, the reference {reference}")
        offsets = list(p.offset) if len(p.offset) > 1 else (list(p.offset) or [0]) * (rank - axis)
        self.check(
            len(offsets) == rank - axis,
            f"{len(offsets)} offsets for the {rank - axis} axes from {axis} on",
            "give one offset for all of them, or one for each",
        )
        window = [(i, o, o + reference[i]) for i, o in zip(range(axis, rank), offsets, strict=True)]
        for i, start, stop in window:
            self.check(
                stop <= data[i],
                f"axis {i}: offset {start} + size {stop - start} > {data[i]}",
                f"'{self.param.bottom[0]}' is {data}, '{self.param.bottom[1]}' is {reference}",
            )
        return window

    def reshape(self, bottoms: Sequence[Shape]) -> list[Shape]:
        data, reference = bottoms
        cut = {i: stop - start for i, start, stop in self._window(data, reference)}
        return [tuple(cut.get(i, n) for i, n in enumerate(data))]

    def forward(self, bottoms: Sequence[Array]) -> list[Array]:
        data, reference = bottoms
        cut = {i: slice(start, stop) for i, start, stop in self._window(data.shape, reference.shape)}
        return [data[tuple(cut.get(i, slice(None)) for i in range(data.ndim))]]

    def to_onnx(self, g: Builder, bottoms: Sequence[Value]) -> list[str]:
        data, reference = bottoms
        axes, starts, stops = zip(*self._window(data.shape, reference.shape), strict=True)
        return [g.op("Slice", data, g.ints(starts), g.ints(stops), g.ints(axes))]

    def coord_map(self) -> CoordMap:
        p = self.param.crop_param
        return CoordMap(p.axis - 1, [AxisMap(shift=Fraction(-o)) for o in p.offset or [0]])

    @property
    def unsettled(self) -> bool:
        return not self.param.crop_param.offset

    def settle(self, around: Around) -> None:
        """Warn if a fork's Crop would begin elsewhere than at 0."""
        found = offset(around)
        if found and any(found):
            y, x = found
            told = f"begins at 0, as in Caffe 1.0; in forks of 2015 (FCN, HED, CRF-RNN) at {y}, {x}"
            hint = f"crop_param {{ axis: 2 offset: {y} offset: {x} }} says so"
            warnings.warn(f"{self.where}: layer '{self.name}' {told}: {hint}", CaffeWarning, stacklevel=5)


class CROP(Crop, bottoms=2):
    """Crop of the forks that FCN and CRF-RNN came with, as V1 names it: it begins where the layers say.

    Bottoms: (N, C, H, W); reference. Top: H and W of the reference.
    """

    fork = "FCN, CRF-RNN"

    def settle(self, around: Around) -> None:
        found = offset(around)
        told = "where it begins does not follow from the layers between its bottoms"
        self.check(found is not None, told, 'write type: "Crop" and crop_param { axis: 2 offset: N }')
        self.param.crop_param.axis = 2
        self.param.crop_param.offset.extend(found or ())
        self.param.type = "Crop"
