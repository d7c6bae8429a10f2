"""The demo net really segments: mean IU on pictures that it did not see, through the exported file."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from caffe_fcn.conversion import convert
from caffe_fcn.labels import SHAPES
from caffe_fcn.segment import Segmenter, read_image
from tests.conftest import HERE

NET = HERE.parent / "prototxts" / "shapes-fcn8s"
UNSEEN = 60  # pictures


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory):
    path = tmp_path_factory.mktemp("shapes") / "net.onnx"
    convert(NET / "deploy.prototxt", NET / "shapes-fcn8s.caffemodel", path)
    return Segmenter(path, "cpu")


@pytest.fixture(scope="module")
def drawing():
    sys.path.insert(0, str(HERE.parent / "tools"))
    import draw_shapes

    return draw_shapes


def mean_iu(confusion: np.ndarray) -> float:
    hit = np.diag(confusion)
    return float((hit / (confusion.sum(0) + confusion.sum(1) - hit)).mean())


def test_it_segments_what_it_did_not_see(segmenter, drawing):
    confusion = np.zeros((7, 7))
    for i in range(UNSEEN):
        image, label = drawing.draw_any_size(np.random.default_rng((90210, i)))
        (found,) = segmenter(np.asarray(image))
        confusion += np.bincount(7 * label.astype(int).ravel() + found.labels.ravel(), minlength=49).reshape(
            7, 7
        )
    assert mean_iu(confusion) >= 0.80


def test_its_classes_have_names(segmenter, drawing):
    (found,) = segmenter(read_image(NET / "sample-1.png"))
    assert tuple(found.classes) == SHAPES.classes == tuple(drawing.CLASSES)


@pytest.mark.parametrize("sample", range(1, 5))
def test_samples(segmenter, sample):
    from PIL import Image

    label = np.asarray(Image.open(NET / f"sample-{sample}-label.png"))
    (found,) = segmenter(read_image(NET / f"sample-{sample}.png"))
    assert (found.labels == label).mean() > 0.93


def test_its_weights_are_small():
    assert (NET / "shapes-fcn8s.caffemodel").stat().st_size <= 3_000_000
