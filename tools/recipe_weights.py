"""Weights for any net by a recipe that needs no download: what tests and benchmarks of full-size nets run on.

    python tools/recipe_weights.py prototxts/voc-fcn8s/deploy.prototxt fcn8s.caffemodel

For each layer with parameters a generator seeded with the CRC-32 of its name draws the weight, normal with
variance 2 / fan_in, then the bias, normal with deviation 0.1; Deconvolutions get the bilinear kernel on the
channel diagonal. Real Caffe was run on weights of this recipe (tests/reference/full).
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import caffe_fcn
from caffe_fcn import surgery
from caffe_fcn.formats.caffemodel import write


def arrays(net: caffe_fcn.Net, name: str) -> list[np.ndarray]:
    """The blobs of one layer."""
    layer = net.layer_dict[name]
    shapes = [blob.shape for blob in layer.blobs]
    if layer.param.type == "Deconvolution":
        kernel = np.zeros(shapes[0], np.float32)
        diagonal = np.arange(min(shapes[0][:2]))
        kernel[diagonal, diagonal] = surgery.upsample_filt(shapes[0][2])
        return [kernel]
    rng = np.random.RandomState(zlib.crc32(name.encode()))
    weight = rng.standard_normal(shapes[0]) * np.sqrt(2 / np.prod(shapes[0][1:]))
    return [a.astype(np.float32) for a in (weight, *(rng.standard_normal(s) * 0.1 for s in shapes[1:]))]


def layers(net: caffe_fcn.Net) -> Iterator[tuple[str, str, list[np.ndarray]]]:
    """(name, type, blobs) of every layer with parameters, one at a time."""
    for name in net.params:
        yield name, net.layer_dict[name].param.type, arrays(net, name)


def make(prototxt: str | Path, path: str | Path) -> None:
    """Write the weights of a prototxt's net."""
    net = caffe_fcn.Net(prototxt, caffe_fcn.TEST)
    write(path, net.name, layers(net))


def voc_fcn8s(folder: str | Path) -> tuple[str, str]:
    """The prototxt of voc-fcn8s at full size, and weights made for it in a folder: what benchmarks run on."""
    prototxt = Path(__file__).resolve().parents[1] / "prototxts" / "voc-fcn8s" / "deploy.prototxt"
    model = Path(folder) / "recipe.caffemodel"
    make(prototxt, model)
    return str(prototxt), str(model)


if __name__ == "__main__":
    make(*sys.argv[1:3])
