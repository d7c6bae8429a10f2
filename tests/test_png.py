"""RGB images as PNG: Pillow reads back what was written."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from caffe_fcn.formats import png
from caffe_fcn.formats.png import write_png


def read(image: np.ndarray) -> np.ndarray:
    file = io.BytesIO()
    write_png(file, image)
    with Image.open(file) as found:
        assert (found.format, found.mode) == ("PNG", "RGB")
        return np.array(found)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1), st.booleans())
def test_read_back(height, width, seed, flat):
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    image = values // 128 * 255 if flat else values
    np.testing.assert_array_equal(read(image), image)


@pytest.mark.parametrize("strip", [1, 100, 301])
def test_in_strips(monkeypatch, strip):
    monkeypatch.setattr(png, "STRIP", strip)
    image = np.random.default_rng(0).integers(0, 256, (23, 50, 3), np.uint8)
    np.testing.assert_array_equal(read(image), image)


def test_views():
    image = np.random.default_rng(0).integers(0, 256, (24, 50, 3), np.uint8)[::2, ::-1]
    np.testing.assert_array_equal(read(image), image)


def test_no_larger_than_pillows():
    rows, columns = np.mgrid[:200, :300]
    smooth = np.stack([rows + columns, 2 * rows, 3 * columns], axis=-1) / 5
    noise = np.random.default_rng(0).normal(0, 3, smooth.shape)
    image = (smooth + noise).clip(0, 255).astype(np.uint8)
    ours, pillows = io.BytesIO(), io.BytesIO()
    write_png(ours, image)
    Image.fromarray(image).save(pillows, "PNG")
    assert len(ours.getvalue()) < 1.1 * len(pillows.getvalue())
