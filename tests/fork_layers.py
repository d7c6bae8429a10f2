"""How a fork's layer is held against the loops of its .cpp."""

from __future__ import annotations

import numpy as np

from tests.layer_nets import build, draw, run, to_session

MAPS = (2, 8, 6, 4)


def grown(shape):
    """Another size: the batch, and H and W where the channels are not touched."""
    return (shape[0] + 1, shape[1], *(n + 2 for n in shape[2:]))


def check(layer: str, *shapes, expected, fill=None, top="top", others=None, opset=17):
    """The values of `expected` at the shapes of the net, and from the same file at other ones."""
    net = build(layer, *shapes, top=top)
    for i, blob in enumerate(net.params.get("layer", [])):
        blob.data[...] = fill[i] if fill else np.random.default_rng(i).uniform(0.5, 2, blob.shape)
    session = to_session(net, opset)
    for sizes in (shapes, others or [grown(s) for s in shapes]):
        arrays = [draw(*s, seed=i) for i, s in enumerate(sizes)]
        got = run(net, *arrays, session=session)
        np.testing.assert_allclose(
            got, expected(*arrays, *map(np.array, net.layer_dict["layer"].weights)), 2e-5, 2e-6
        )
