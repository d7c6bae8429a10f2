"""What a net is, layer by layer: shapes and formulas, cost, place in the image, and why it is cut where.

Nothing is computed but sizes: a trace needs neither weights nor memory. `caffe_fcn.report` renders it.

    model.py     what a trace holds             walk.py      formulas for every size, places in the image
    rows.py      the table's rows               learning.py  what is learned, and whence weights come
    fields.py    receptive fields               memory.py    which blobs live at once
    smallest.py  the least input that works     words.py     the arithmetic behind pads and offsets
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence

from caffe_fcn.errors import CaffeWarning
from caffe_fcn.net import TEST, Net
from caffe_fcn.tracing.learning import learn, missing
from caffe_fcn.tracing.model import Axis, Crop, Cut, Row, Smallest, Step, Totals, Trace, Why
from caffe_fcn.tracing.rows import crops, odd, rows
from caffe_fcn.tracing.smallest import smallest
from caffe_fcn.tracing.walk import walk
from caffe_fcn.tracing.words import explain

__all__ = ["Axis", "Crop", "Cut", "Row", "Smallest", "Step", "Totals", "Trace", "Why", "trace"]


def trace(
    net: Net | str | os.PathLike[str],
    input_shape: Mapping[str, Sequence[int]] | None = None,
    *,
    weights: str | os.PathLike[str] | None = None,
    splits: bool = False,
) -> Trace:
    """Follow the sizes through a net. Nothing is run, and its blobs keep their shapes.

    Args:
        net: a Net, or the path of a prototxt, which is read for the TEST phase.
        input_shape: of inputs by blob name, where it is not the net's own.
        weights: a file to load, to say which layers it fills; mapped, not read.
        splits: show the Split layers that the net put in.

    Raises:
        LayerError: a layer cannot take what it would get.
        CaffeError: `input_shape` names what is not an input, or has other axes or channels.
        CaffemodelError: the weights do not fit.
    """
    net = net if isinstance(net, Net) else Net(net, TEST)
    if weights is not None:
        with warnings.catch_warnings():  # what is missing stands in the trace
            warnings.simplefilter("ignore", CaffeWarning)
            net.copy_from(weights)
    given = weights is not None or bool(net.filled)
    walked = walk(net, input_shape or {})
    table, totals = rows(walked, learn(walked, given), splits)
    cut = crops(walked)
    return Trace(
        name=net.name, path=net.path, phase="TEST" if net.phase == TEST else "TRAIN",
        inputs=walked.inputs, outputs=list(net.outputs), symbols=walked.symbols, fixed=walked.fixed,
        rows=table, crops=list(cut.values()), totals=totals, smallest=smallest(walked),
        whys=explain(walked, cut), warnings=[*odd(walked, cut), *missing(net, given)],
    )  # fmt: skip
