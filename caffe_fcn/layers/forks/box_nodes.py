"""Lowerings that detectors share: what numeric/boxes.py does, as ONNX nodes."""

from __future__ import annotations

from caffe_fcn.layers.base import Builder, Size, Value, np

#: The score of what is no detection; nothing a net says is below it.
NONE = float(np.finfo(np.float32).min)


def decode(g: Builder, priors: str, variance: str | None, code: str, moves: str) -> str:
    """`boxes.decode`: the boxes that `moves` make of the priors."""
    moves = moves if variance is None else g.op("Mul", moves, variance)
    if code == "CORNER":
        return g.op("Add", priors, moves)
    low, high = halves(g, priors)
    size = g.op("Sub", high, low)
    if code == "CORNER_SIZE":
        return g.op("Add", priors, g.op("Mul", moves, g.op("Concat", size, size, axis=-1)))
    shift, growth = halves(g, moves)
    centre = g.op("Add", g.op("Mul", shift, size), g.op("Mul", g.op("Add", low, high), g.scalar(0.5)))
    half = g.op("Mul", g.op("Mul", g.op("Exp", growth), size), g.scalar(0.5))
    return g.op("Concat", g.op("Sub", centre, half), g.op("Add", centre, half), axis=-1)


def halves(g: Builder, boxes: Value | str) -> list[str]:
    """(..., 4) as x1, y1 and x2, y2."""
    return g.op("Split", boxes, g.ints([2, 2]), outputs=2, axis=-1)


def suppress(
    g: Builder, boxes: str, scores: str, most: int | str, threshold: float, floor: float = NONE
) -> str:
    """`boxes.suppress` for boxes (B, P, 4) and scores (B, K, P): (M, 3) int64 of b, k, p, the best first.

    At most `most` of each k (a number, or a tensor [1] of it), and none whose score is not above `floor`.
    """
    limits = (
        g.ints([most]) if isinstance(most, int) else most,
        *(g.array(np.asarray([v], np.float32)) for v in (min(threshold, 1.0), floor)),
    )
    return g.op("NonMaxSuppression", boxes, scores, *limits)


def upright(g: Builder, boxes: str) -> str:
    """Boxes that are upside down without an area: ONNX would take their corners in the other order."""
    low, high = halves(g, boxes)
    return g.op("Concat", low, g.op("Max", low, high), axis=-1)


def numbers(g: Builder, n: Size) -> str:
    """0 to n - 1, int64."""
    if isinstance(n, int):
        return g.ints(range(n))
    zero, one = (g.array(np.asarray(v, np.int64)) for v in (0, 1))
    return g.op("Range", zero, g.reshape(g.size(n), ()), one)
