"""Rewrites of the plain graph, one file an idea. Each is exact, or its name says that it is not.

A pass is a module here with `NAME`, `apply(graph) -> int` (how many places it changed), and its reason in the
docstring. `PASSES` is the order in which they run.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import ModuleType

from caffe_fcn.errors import CaffeError, nearest
from caffe_fcn.export.graph import Graph
from caffe_fcn.export.passes import border, crop_in_deconvolution, group_deconvolution, merge_affine

PASSES: Sequence[ModuleType] = (merge_affine, group_deconvolution, crop_in_deconvolution, border)


def run(graph: Graph, skip: Iterable[str] = (), compute: border.Compute | None = None) -> dict[str, int]:
    """Apply all passes but those in `skip` ("all": none); returns how many places each changed.

    With `compute`, which runs a graph, what no input reaches is computed now and stored.
    """
    skip = set(skip)
    names = [p.NAME for p in PASSES]
    for name in skip - {"all"}:
        if name not in names:
            raise CaffeError(f"no pass '{name}'", nearest(name, names) or f"there are: {', '.join(names)}")
    changed = {p.NAME: p.apply(graph) for p in PASSES if not skip & {p.NAME, "all"}}
    if compute and changed.get(border.NAME):
        border.store(graph, compute)
    return changed
