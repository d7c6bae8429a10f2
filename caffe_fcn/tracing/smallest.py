"""The smallest input that a net takes, found by trying: what works need not work for the next larger size."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping

from caffe_fcn.errors import CaffeError
from caffe_fcn.tracing.model import Smallest
from caffe_fcn.tracing.sizes import at, number
from caffe_fcn.tracing.walk import Walk

SPAN = 64  # sizes that are tried one by one; no more, however large the net's stride
STEPS = 1 << 21  # layers that are gone through for it, which makes the span shorter in nets of thousands


def smallest(walked: Walk) -> Smallest | None:
    """The least value of each symbol with which every blob has at least one element.

    Every size is tried up to two strides of the net; beyond these the first that works is found by bisection
    below the present size, and looked for again among the sizes just below. None if no symbol is open, if the
    least values of the single symbols do not work together, or if the net is too large to try.
    """

    def works(values: Mapping[str, int]) -> bool:
        try:
            shapes = walked.net.infer({name: at(shape, values) for name, shape in walked.inputs.items()})
        except CaffeError:
            return False
        return all(number(n) > 0 for tops in shapes for shape in tops for n in shape)

    present = walked.symbols
    # after the largest stride, sizes repeat what they do
    span = min(walked.period(), SPAN, STEPS // max(1, len(present) * len(walked.net.layers)))
    if not (present and span):
        return None
    if all(works(dict.fromkeys(present, n)) for n in range(1, span + 2)):  # as an FCN does
        return Smallest(dict.fromkeys(present, 1), dict.fromkeys(present, span + 1), {s: [] for s in present})
    sizes, tried, failing = {}, {}, {}
    for name, size in present.items():

        def alone(n: int, name: str = name) -> bool:
            return works({**present, name: n})

        sizes[name], tried[name], failing[name] = _least(alone, size, span)
    return Smallest(sizes, tried, failing) if works(sizes) else None


def _least(works: Callable[[int], bool], present: int, span: int) -> tuple[int, int, list[int]]:
    """The least size, the size up to which the larger ones were tried too, and which of these fail."""
    least = next((n for n in range(1, min(2 * span, present) + 1) if works(n)), 0)
    if not least:
        first = bisect_left(range(2 * span, present), True, key=works) + 2 * span
        least = next((n for n in range(max(first - span, 2 * span), first) if works(n)), first)
    last = least + span
    return least, last, [n for n in range(least + 1, last + 1) if not works(n)]
