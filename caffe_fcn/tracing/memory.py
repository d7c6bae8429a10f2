"""How much memory the blobs of a net take, all together and at once."""

from __future__ import annotations

from itertools import accumulate
from typing import NamedTuple

from caffe_fcn.net import Net
from caffe_fcn.symbols import Shape, Size, hint, product
from caffe_fcn.tracing.model import FLOAT


class Memory(NamedTuple):
    """Bytes."""

    made: list[Size]  # by each layer
    live: int  # at once, at most
    live_at: int  # the layer at which that is


def memory(net: Net, shapes: list[list[Shape]]) -> Memory:
    """What the layers' tops take, given their shapes.

    A blob that works in place or shares its bottom's memory (Split, Reshape) takes none of its own. A blob
    lives from the layer that makes it to the last that reads it, an output to the end.
    """
    owner: dict[int, int] = {}  # blob -> the blob whose memory it is
    born: dict[int, int] = {}
    sizes: dict[int, Size] = {}
    dies: dict[int, int] = {}
    made: list[Size] = []
    for i, layer in enumerate(net.layers):
        bottoms, tops = net.bottom_ids[i], net.top_ids[i]
        new = [(t, s) for t, s in zip(tops, shapes[i], strict=True) if t not in owner]
        for t, shape in new:
            owner[t] = owner[bottoms[0]] if layer.shares_data else t
            if owner[t] == t:
                born[t], sizes[t] = i, FLOAT * product(shape)
        made.append(sum((sizes[t] for t, _ in new if t in sizes), 0))
        dies.update((owner[b], i) for b in [*bottoms, *tops])
    dies.update((owner[net.blob_index[name]], len(net.layers) - 1) for name in net.outputs)
    change = [0] * (len(net.layers) + 1)
    for t, size in sizes.items():
        change[born[t]] += hint(size)
        change[dies[t] + 1] -= hint(size)
    live = list(accumulate(change))
    return Memory(made, max(live), live.index(max(live)))
