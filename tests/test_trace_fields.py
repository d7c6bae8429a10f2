"""Receptive fields and the place of blobs in the image, against what a forward pass reads."""

from __future__ import annotations

from collections import defaultdict
from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from caffe_fcn.errors import LayerError
from caffe_fcn.net import Net
from caffe_fcn.tracing import trace
from tests.small_nets import VOC8S, conv, net_of, pool, row

kinds = st.sampled_from(["conv", "deconv", "ave"])
chains = st.lists(
    st.tuples(kinds, st.integers(1, 4), st.integers(1, 3), st.integers(0, 2), st.integers(1, 2)),
    min_size=1,
    max_size=4,
)


@given(chains)
def test_receptive_field_is_what_the_forward_pass_reads(chain: list[tuple[str, int, int, int, int]]) -> None:
    """With weights and inputs of ones, an output changes with exactly the pixels of its field."""
    layers, bottom = [], "data"
    for i, (kind, kernel, stride, pad, dilation) in enumerate(chain):
        name = f"l{i}"
        if kind == "ave":
            pad = min(pad, kernel - 1)
            fields = f"pool: AVE kernel_size: {kernel} stride: {stride} pad: {pad}"
            layers.append(f"Pooling {name} {bottom} {pool(fields)}")
        else:
            fields = f'bias_term: false weight_filler {{ type: "constant" value: 1 }} kernel_size: {kernel} '
            fields += f"stride: {stride} pad: {pad} dilation: {dilation}"
            layers.append(
                f"{'Convolution' if kind == 'conv' else 'Deconvolution'} {name} {bottom} {conv(fields)}"
            )
        bottom = name
    try:
        net = net_of(*layers, h=60, w=1)
        found = trace(net)
    except LayerError:  # nothing is left, or less than nothing
        return
    (vertical, _) = row(found, bottom).axes
    assert vertical.stride is not None
    reads = _what_the_middle_reads(net, bottom, vertical)
    if not reads:
        return
    if all(kind != "deconv" for kind, *_ in chain):
        assert all(first == centre - (vertical.size - 1) / 2 for centre, first, _ in reads)
        assert all(last == centre + (vertical.size - 1) / 2 for centre, _, last in reads)
    else:  # the elements of a Deconvolution do not all read equally much; the field is of the largest
        assert all(last - first + 1 <= vertical.size for _, first, last in reads)


def _what_the_middle_reads(net: Net, blob: str, axis) -> list[tuple[Fraction, int, int]]:
    """(centre by the trace, first and last pixel read) of elements whose field lies inside the image."""
    size = net.blobs["data"].height
    changed = defaultdict(list)
    for pixel in range(size):
        image = np.zeros(net.blobs["data"].shape, np.float32)
        image[0, 0, pixel] = 1
        out = np.nan_to_num(net.forward([blob], data=image)[blob])  # an empty window of AVE is 0/0
        for element in np.nonzero(out[0, 0].any(axis=1))[0]:
            changed[int(element)].append(pixel)
    found = []
    for element, pixels in changed.items():
        centre = axis.offset + element * axis.stride
        if axis.size / 2 < centre < size - 1 - axis.size / 2:
            found.append((centre, min(pixels), max(pixels)))
    return found


def test_receptive_field_behind_deconvolutions_is_the_largest_there_is() -> None:
    """FCN-8s's way up, behind one convolution."""
    ones = 'bias_term: false weight_filler { type: "constant" value: 1 }'
    net = net_of(
        "Convolution c data " + conv(f"{ones} kernel_size: 3 stride: 4"),
        "Deconvolution one c " + conv(f"{ones} kernel_size: 4 stride: 2"),
        "Deconvolution two one " + conv(f"{ones} kernel_size: 4 stride: 2"),
        h=60, w=3,
    )  # fmt: skip
    for name in ("one", "two"):
        axis = row(trace(net), name).axes[0]
        assert (
            max(last - first + 1 for _, first, last in _what_the_middle_reads(net, name, axis)) == axis.size
        )


def test_receptive_fields_of_fcn8s() -> None:
    found = trace(VOC8S)
    places = {
        name: (a.size, a.stride, a.offset)
        for name in ("data", "conv1_2", "pool5", "fc7", "upscore2", "score_pool4c", "upscore8", "score")
        for a in row(found, "input" if name == "data" else name).axes[:1]
    }
    assert places == {
        "data": (1, 1, 0), "conv1_2": (5, 1, -99), "pool5": (212, 32, Fraction(-167, 2)),
        "fc7": (404, 32, Fraction(25, 2)), "upscore2": (436, 16, Fraction(-23, 2)),
        "score_pool4c": (100, 16, Fraction(-23, 2)), "upscore8": (468, 1, -31), "score": (468, 1, 0),
    }  # fmt: skip


def test_fields_through_other_layers() -> None:
    found = trace(net_of(
        "Convolution wide data " + conv("kernel_size: 5 pad: 2"),
        "Convolution slim data " + conv("kernel_size: 1"),
        "Concat both slim,wide",
        "Softmax soft both",
        "Pooling all soft " + pool("pool: AVE global_pooling: true"),
        "InnerProduct end all inner_product_param { num_output: 2 }",
    ))  # fmt: skip
    sizes = {r.name: [(a.size, a.stride, a.offset) for a in r.axes[:1]] for r in found.rows}
    assert sizes["both"] == sizes["soft"] == [(5, 1, 0)]
    assert sizes["all"] == [(12, None, Fraction(7, 2))]
    assert sizes["end"] == []


def test_blobs_that_lie_apart_are_told() -> None:
    rest = ("Crop moved data,c crop_param { axis: 2 offset: 0 }", "Eltwise sum c,moved")
    assert trace(net_of("Convolution c data " + conv("kernel_size: 3 pad: 1"), *rest)).warnings == []
    assert trace(net_of("Convolution c data " + conv("kernel_size: 3"), *rest)).warnings == [
        "moved: the offset is 0; the coordinates of its bottoms ask for 1",
        "sum: c and moved do not lie alike: their rows begin on pixel 1 and 0 of the image",
    ]
    wider = "Convolution c data " + conv("kernel_size: 3 stride: 2"), *rest
    told = trace(net_of(*wider)).warnings[0]
    assert told.endswith("their rows begin on pixel 1 and 0 of the image, 2 and 1 pixels apart")
