"""On a GPU: the same outputs as on the CPU, at every size that a session meets one after the other.

Outputs are compared, not only times: onnxruntime's CUDA provider once returned what a Slice with run-time
ends reads uncut (its issue 32083).
"""

from __future__ import annotations

import sys

import numpy as np
import pytest

from caffe_fcn.benchmark import bench
from caffe_fcn.conversion import convert
from caffe_fcn.runtime import Session
from tests.conftest import REFERENCE

pytestmark = pytest.mark.gpu

NET = REFERENCE / "nets" / "fcn8s-thin-1px.prototxt"
SHAPES = REFERENCE.parent.parent / "prototxts" / "shapes-fcn8s"
#: Growing, shrinking, and the same again: buffers are reused between them.
SIZES = [(1, 1, 1), (2, 37, 45), (1, 334, 500), (3, 31, 33), (1, 334, 500), (2, 37, 45)]
FIXED = {"data": (1, 3, 20, 30)}


def model(folder, **options):
    convert(NET, NET.with_suffix(".caffemodel"), folder / "net.onnx", verify=False, **options)
    return folder / "net.onnx"


def inputs(session: Session, n: int, h: int, w: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(h * w)
    ((name, info),) = session.inputs.items()
    if "uint8" in info.type:
        return {name: rng.integers(0, 256, (n, h, w, 3), np.uint8)}
    return {name: rng.normal(0, 60, (n, 3, h, w)).astype(np.float32)}


@pytest.mark.parametrize(
    ("options", "tolerance"),
    [
        ({}, 1e-4),
        ({"skip_passes": ["all"]}, 1e-4),
        ({"skip_passes": ["border"]}, 1e-4),
        ({"skip_passes": ["crop-in-deconvolution"]}, 1e-4),
        ({"opset": 20}, 1e-4),
        ({"preprocess": True, "softmax": True}, 1e-4),
        ({"fp16": True}, 3e-2),
    ],
    ids=str,
)
def test_one_session_at_many_sizes(tmp_path, options, tolerance):
    path = model(tmp_path, **options)
    on_cpu, on_cuda = Session(path, "cpu"), Session(path, "cuda")
    for size in SIZES:
        fed = inputs(on_cpu, *size)
        for name, expected in on_cpu.run(fed).items():
            got = on_cuda.run(fed)[name]
            assert got.shape == expected.shape, size
            assert np.abs(got - expected).max() <= tolerance * np.abs(expected).max(), size


def test_bound_buffers(tmp_path):
    session, on_cpu = Session(model(tmp_path), "cuda"), Session(tmp_path / "net.onnx", "cpu")
    for size in SIZES:
        fed = inputs(session, *size)
        bound = session.bound({"data": fed["data"].shape})
        bound.inputs["data"][...] = fed["data"]
        expected = on_cpu.run(fed)["score"]
        for _ in range(2):
            assert np.abs(bound()["score"] - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("fp16", [False, True])
def test_a_recorded_pass(tmp_path, fp16):
    path = model(tmp_path, input_shapes=FIXED, fp16=fp16)
    session, on_cpu = Session(path, "cuda"), Session(path, "cpu")
    assert session.captures
    bound, data = session.bound(FIXED), inputs(on_cpu, 1, 20, 30)["data"]
    for factor in (1, 2, -1):
        bound.inputs["data"][...] = data * factor
        expected = on_cpu.run({"data": data * np.float32(factor)})["score"]
        assert np.abs(bound()["score"] - expected).max() <= (3e-2 if fp16 else 1e-4) * np.abs(expected).max()


@pytest.mark.parametrize(("fp16", "tf32"), [(False, False), (True, False), (False, True)])
def test_labels_of_the_shapes_net(tmp_path, fp16, tf32):
    sys.path.insert(0, str(SHAPES.parent.parent / "tools"))
    import draw_shapes

    path, told = tmp_path / "shapes.onnx", {"preprocess": True, "argmax": True, "verify": False, "fp16": fp16}
    convert(SHAPES / "deploy.prototxt", SHAPES / "shapes-fcn8s.caffemodel", path, **told)
    on_cpu, on_cuda = Session(path, "cpu"), Session(path, "cuda", tf32=tf32)
    same = []
    for seed in range(8):
        image = {"image": draw_shapes.draw(np.random.default_rng(seed), 150, 200)[0][None]}
        (expected,), (got,) = on_cpu.run(image).values(), on_cuda.run(image).values()
        same.append(got == expected)
    assert np.mean(same) >= 0.999


def test_bench(tmp_path):
    (figures,) = bench([model(tmp_path)], "cuda", shapes={"data": (1, 3, 64, 64)}, rounds=3)
    assert figures.device == "cuda"
    assert 0 < figures.rate < figures.limit
