"""Rewrites of the plain graph, one file an idea. Each is exact, or its name says that it is not.

A pass is a module here with `NAME`, `apply(graph) -> int` (how many places it changed), and its reason in the
docstring. `PASSES` is the order in which they run.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import ModuleType

from caffe_fcn.errors import CaffeError, nearest
from caffe_fcn.export.graph import Graph
from caffe_fcn.export.passes import crop_in_deconvolution, group_deconvolution

PASSES: Sequence[ModuleType] = (group_deconvolution, crop_in_deconvolution)


def run(graph: Graph, skip: Iterable[str] = ()) -> dict[str, int]:
    """Apply all passes but those in `skip` ("all": none); returns how many places each changed."""
    skip = set(skip)
    names = [p.NAME for p in PASSES]
    for name in skip - {"all"}:
        if name not in names:
            raise CaffeError(f"no pass '{name}'", nearest(name, names) or f"there are: {', '.join(names)}")
    return {p.NAME: p.apply(graph) for p in PASSES if not skip & {p.NAME, "all"}}
