"""A Deconvolution whose kernels are zero off the channel diagonal works on each channel by itself.

`surgery.interp` writes such kernels: upsampling 21 score maps multiplies each with 20 planes of zeros besides
its own. With a group for each channel these products are left out.

Requires: exactly zero off the diagonal, as many channels out as in, group 1. A learned, dense one stays.
Keeps: every element, bit for bit; adding 0 * x changes nothing, short of infinities in x.
"""

from __future__ import annotations

import numpy as np

from caffe_fcn.export.graph import Graph

NAME = "group-deconvolution"


def apply(graph: Graph) -> int:
    """Group what can be grouped; returns how many."""
    changed = 0
    for node in graph.nodes:
        weight = graph.constants.get(node.inputs[1]) if node.op == "ConvTranspose" else None
        if weight is None or node.attributes.get("group", 1) != 1 or not diagonal(weight):
            continue
        channels = len(weight)
        name = f"{node.inputs[1]}.diagonal"
        each = np.arange(channels)
        graph.constants[name] = np.ascontiguousarray(weight[each, each][:, None])
        node.inputs[1] = name
        node.attributes["group"] = channels
        changed += 1
    graph.prune()
    return changed


def diagonal(weight: np.ndarray) -> bool:
    """Whether a kernel (C, C, ...) is zero wherever its two channels differ."""
    if weight.ndim < 3 or weight.shape[0] != weight.shape[1] or len(weight) < 2:
        return False
    off = ~np.eye(len(weight), dtype=bool)
    return not any(weight[row, off[row]].any() for row in range(len(weight)))
