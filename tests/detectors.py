"""What the tests of detectors share."""

from __future__ import annotations

import numpy as np

from caffe_fcn.net import Net
from caffe_fcn.runtime import Session
from tests.layer_nets import NAMES, to_session
from tests.reference_cases import assert_close

F = np.float32
GAUSS = 'weight_filler { type: "gaussian" std: %g }'


def both(net: Net, *arrays, session: Session | None = None, opset=17) -> dict[str, np.ndarray]:
    """The outputs of NumPy, which ONNX has to give too; their shapes depend on the values."""
    fed = dict(zip(NAMES, arrays, strict=False))
    for name, array in fed.items():
        net.blobs[name].reshape(*array.shape)
    net.reshape()
    got = {name: array.copy() for name, array in net.forward(**fed).items()}
    session = session or to_session(net, opset)
    for name, array in session.run({n: fed[n] for n in session.inputs}).items():
        assert_close(array, got[name], name)
    return got


def jaccard(a, b):
    """JaccardOverlap and BBoxSize of bbox_util.cpp."""

    def size(box):
        return F(0) if box[2] < box[0] or box[3] < box[1] else F(box[2] - box[0]) * F(box[3] - box[1])

    if b[0] > a[2] or b[2] < a[0] or b[1] > a[3] or b[3] < a[1]:
        return F(0)
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return F(w * h) / (size(a) + size(b) - F(w * h)) if w > 0 and h > 0 else F(0)
