"""A top that several layers read gets a Split behind it, with Caffe's names (insert_splits.cpp)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from caffe_fcn.errors import LayerError, nearest

Source = tuple[int, int]  # a top: index of its layer, index in the layer


def insert_splits(layers: Sequence[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """(LayerParameter, origin) pairs -> the same with Split layers, bottoms renamed; copies.

    A loss weight on a top counts as a reader. Raises LayerError for a bottom that no layer makes.
    """
    sources, readers = _readers(layers)
    taken: Counter[Source] = Counter()  # split tops that are handed out already
    result: list[tuple[Any, Any]] = []
    for i, (original, origin) in enumerate(layers):
        layer = type(original)()
        layer.CopyFrom(original)
        result.append((layer, origin))
        for j, bottom in enumerate(layer.bottom):
            source = sources[i, j]
            if readers[source] > 1:
                layer.bottom[j] = f"{bottom}_{layers[source[0]][0].name}_{source[1]}_split_{taken[source]}"
                taken[source] += 1
        weights = list(layer.loss_weight)
        for j, top in enumerate(layer.top):
            if readers[i, j] > 1:
                stem = f"{top}_{layer.name}_{j}_split"
                split = type(layer)(name=stem, type="Split", bottom=[top])
                split.top.extend(f"{stem}_{k}" for k in range(readers[i, j]))
                if j < len(weights) and weights[j]:  # the loss is taken from the first of the Split's tops
                    split.loss_weight.extend([weights[j]] + [0.0] * (readers[i, j] - 1))
                    del layer.loss_weight[:]
                    taken[i, j] += 1
                result.append((split, origin))
    return result


def _readers(layers: Sequence[tuple[Any, Any]]) -> tuple[dict[tuple[int, int], Source], Counter[Source]]:
    """(layer, bottom index) -> the top it reads; and how many read each top."""
    last: dict[str, Source] = {}
    sources: dict[tuple[int, int], Source] = {}
    readers: Counter[Source] = Counter()
    for i, (layer, origin) in enumerate(layers):
        for j, bottom in enumerate(layer.bottom):
            if bottom not in last:
                problem = f"unknown bottom blob '{bottom}' (bottom index {j}): no layer before it makes it"
                raise LayerError(str(origin), layer.name, layer.type, problem, nearest(bottom, last))
            sources[i, j] = last[bottom]
            readers[last[bottom]] += 1
        for j, top in enumerate(layer.top):
            last[top] = (i, j)
        for j, weight in enumerate(layer.loss_weight[: len(layer.top)]):
            readers[i, j] += bool(weight)
    return sources, readers
