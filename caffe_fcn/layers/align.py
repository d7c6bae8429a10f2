"""Where one blob lies upon another, by the layers between them.

Semantics: crop_layer.cpp of the forks that FCN, HED and CRF-RNN came with.
"""

from __future__ import annotations

from collections.abc import Iterator

from caffe_fcn.layers.base import Around, AxisMap

Maps = list[AxisMap]  # of H and of W


def offset(around: Around) -> tuple[int, ...] | None:
    """How far into the last layer's first bottom the place of its second lies, on H and W.

    None if they are not of one scale or it is no whole number. Both are followed back along first bottoms to
    where they meet.
    """
    data, reference = around.bottom_ids[-1]
    paths = dict(_path(around, data))
    for blob, to_reference in _path(around, reference):
        if blob not in paths:
            continue
        maps = [to.after(back.inverse()) for to, back in zip(to_reference, paths[blob], strict=True)]
        if all(m.scale == 1 and m.shift <= 0 and m.shift.denominator == 1 for m in maps):
            return tuple(int(-m.shift) for m in maps)
        return None
    return None


def _path(around: Around, blob: int) -> Iterator[tuple[int, Maps]]:
    """The blobs that this one comes from, each with the maps from it to this one."""
    maps, index = [AxisMap(), AxisMap()], len(around.top_ids) - 1  # the layer that looks
    seen = set()
    while True:
        if blob not in seen:
            yield blob, maps
        seen.add(blob)
        index = next((i for i in reversed(range(index)) if blob in around.top_ids[i]), -1)
        if index < 0 or not around.bottom_ids[index]:
            return
        step = around.layers[index].coord_map()
        if step is None or len(step.maps) > 2:
            return
        maps = [a.after(b) for a, b in zip(maps, (list(step.maps) * 2)[:2], strict=True)]
        blob = around.bottom_ids[index][0]
