"""Losses against loops over their definition: what no case of real Caffe states."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caffe_fcn.errors import CaffeError, LayerError
from caffe_fcn.export.exporter import export
from caffe_fcn.formats.binaryproto import write_blob
from tests.layer_nets import IMAGE, build, draw, run, to_session
from tests.reference_cases import assert_close

LABELS = (2, 1, 5, 4)


def labels(*shape, classes=6, seed=1):
    return np.random.default_rng(seed).integers(0, classes, shape).astype(np.float32)


def refused(layer: str, *bottoms, says: str) -> None:
    with pytest.raises(LayerError, match=re.escape(says)):
        build(layer, *bottoms)


def divisor(setting: str, outer: int, inner: int, valid: int, default: str) -> int:
    """What loss_param says, as softmax_loss_layer.cpp reads it."""
    mode = re.search(r"normalization: (\w+)", setting)
    legacy = re.search(r"normalize: (\w+)", setting)
    if mode:
        name = mode[1]
    elif legacy:
        name = "VALID" if legacy[1] == "true" else "BATCH_SIZE"
    else:
        name = default
    return max(1, {"FULL": outer * inner, "VALID": valid, "BATCH_SIZE": outer, "NONE": 1}[name])


NORMALISATIONS = [
    "",
    *(f"normalization: {mode}" for mode in ("FULL", "VALID", "BATCH_SIZE", "NONE")),
    "normalize: true",
    "normalize: false",
    "normalize: false normalization: FULL",
]


def probabilities(scores, axis):
    e = np.exp(scores.astype(np.float64) - scores.max(axis, keepdims=True))
    return np.moveaxis(e / e.sum(axis, keepdims=True), axis, -1)


# --- SoftmaxWithLoss


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize("ignored", [None, 255, -1, 2])
@pytest.mark.parametrize("axis", [1, -1, 2])
def test_softmax_loss_divides_by_what_counts(normalisation, ignored, axis):
    setting = normalisation + (f" ignore_label: {ignored}" if ignored is not None else "")
    rest = tuple(n for i, n in enumerate(IMAGE) if i != axis % 4)
    target = labels(*rest, classes=IMAGE[axis])
    if ignored is not None:
        target[0, 1:3] = ignored
    prob = probabilities(draw(*IMAGE), axis)
    losses = [-np.log(prob[(*i, int(c))]) for i, c in np.ndenumerate(target) if int(c) != ignored]
    outer = int(np.prod(IMAGE[: axis % 4]))
    over = divisor(setting, outer, target.size // outer, len(losses), "VALID")
    layer = f'type: "SoftmaxWithLoss" softmax_param {{ axis: {axis} }} loss_param {{ {setting} }}'
    got = run(build(layer, IMAGE, rest), draw(*IMAGE), target)
    assert got.shape == ()
    assert_close(got, np.asarray(np.sum(losses) / over), setting)


def test_a_batch_without_a_label_that_counts_has_no_loss():
    net = build('type: "SoftmaxWithLoss" loss_param { ignore_label: 255 }', IMAGE, LABELS)
    assert run(net, draw(*IMAGE), np.full(LABELS, 255, np.float32)) == 0


def test_a_second_top_is_the_probabilities():
    net = build('type: "SoftmaxWithLoss" top: "prob"', IMAGE, LABELS)
    got = run(net, draw(*IMAGE), labels(*LABELS))
    assert_close(np.moveaxis(got["prob"], 1, -1), probabilities(draw(*IMAGE), 1), "prob")


def test_a_hopeless_score_costs_what_caffe_says():
    net = build('type: "SoftmaxWithLoss"', (1, 2), (1,))
    assert_close(
        run(net, np.float32([[1000, 0]]), np.float32([1])), np.asarray(-np.log(2.0**-126)), "FLT_MIN"
    )


@pytest.mark.parametrize("kind", ["SoftmaxWithLoss", "SigmoidCrossEntropyLoss", "EuclideanLoss"])
@pytest.mark.parametrize(
    "normalisation", ["normalization: FULL", "normalization: BATCH_SIZE", "ignore_label: 1"]
)
def test_one_file_judges_any_size(kind, normalisation):
    target = LABELS if kind == "SoftmaxWithLoss" else IMAGE
    net = build(f'type: "{kind}" loss_param {{ {normalisation} }}', IMAGE, target)
    session = to_session(net)
    for n, h, w in ((2, 5, 4), (1, 1, 1), (3, 7, 2)):
        run(net, draw(n, 6, h, w), labels(n, target[1], h, w), session=session)


def test_labels_of_another_rank_fix_the_size():
    net = build('type: "SoftmaxWithLoss"', IMAGE, (2, 20))
    assert {"H", "W"} <= set(export(net).fixed)
    run(net, draw(*IMAGE), labels(2, 20))


@pytest.mark.parametrize("label", [6, -1, 255, np.nan])
def test_a_label_that_is_no_class_is_refused(label):
    net = build('type: "SoftmaxWithLoss"', (2, 6), (2,))
    with pytest.raises(
        LayerError, match=r"is none of the 6 classes, 0 to 5\n  give loss_param \{ ignore_label \}"
    ):
        net.forward(a=draw(2, 6), b=[0, label])


def test_the_loss_of_the_net_is_weighted_and_the_top_is_not():
    net = build('type: "SoftmaxWithLoss" loss_weight: 3', (2, 6), (2,))
    net.blobs["a"].data[...], net.blobs["b"].data[...] = draw(2, 6), [0, 5]
    total = net.forward_range(0, len(net.layers) - 1)
    assert total == pytest.approx(3 * float(net.blobs["top"].data))


def test_shapes_that_do_not_fit_are_both_named():
    layer = 'type: "SoftmaxWithLoss"'
    refused(layer, IMAGE, (2, 1, 4, 4), says="'a' is (2, 6, 5, 4), 'b' is (2, 1, 4, 4): 40 labels are needed")
    refused(layer, IMAGE, (1, 2, 5, 4), says="'a' is (2, 6, 5, 4), 'b' is (1, 2, 5, 4): their first extents")
    refused(layer, IMAGE, (), says="'b' is ()")
    refused(
        'type: "EuclideanLoss"',
        (2, 6),
        (2, 5),
        says="'a' is (2, 6), 'b' is (2, 5): their items differ in size",
    )
    refused('type: "HingeLoss"', (2, 6), (2, 6), says="one label for each item is needed")
    refused('type: "MultinomialLogisticLoss"', (2, 6), (2, 2), says="one label for each item is needed")
    refused('type: "SigmoidCrossEntropyLoss"', (2, 6), (2, 5), says="as many targets as scores")
    refused('type: "ContrastiveLoss"', (2, 6), (2, 5), (2,), says="(N, C), (N, C) and (N) are needed")
    refused('type: "ContrastiveLoss"', (2, 6, 2), (2, 6, 2), (2,), says="(N, C), (N, C) and (N) are needed")
    refused('type: "ContrastiveLoss"', (2, 6), (2, 6), (2, 2), says="one number for each pair")
    refused('type: "InfogainLoss"', (2, 6), (2,), (5, 5), says="'c' is (5, 5): a matrix of 6 x 6 is needed")


# --- InfogainLoss


@pytest.mark.parametrize("normalisation", [n for n in NORMALISATIONS if "normalize" not in n])
@pytest.mark.parametrize("ignored", [None, 255])
@pytest.mark.parametrize("axis", [1, -1])
def test_infogain_weighs_all_classes(normalisation, ignored, axis, tmp_path):
    classes = IMAGE[axis]
    rest = tuple(n for i, n in enumerate(IMAGE) if i != axis % 4)
    target, matrix = labels(*rest, classes=classes), draw(classes, classes, seed=3) ** 2
    setting = normalisation + (" ignore_label: 255" if ignored else "")
    if ignored:
        target[0, 0] = ignored
    log = np.log(np.maximum(probabilities(draw(*IMAGE), axis), 1e-20))
    losses = [-(matrix[int(c)] * log[i]).sum() for i, c in np.ndenumerate(target) if c != ignored]
    outer = int(np.prod(IMAGE[: axis % 4]))
    wanted = np.sum(losses) / divisor(setting, outer, target.size // outer, len(losses), "VALID")
    write_blob(tmp_path / "h.binaryproto", matrix.reshape(1, 1, classes, classes))
    setting = f"infogain_loss_param {{ axis: {axis} %s }} loss_param {{ {setting} }}"
    three = build(f'type: "InfogainLoss" {setting % ""}', IMAGE, rest, (1, 1, classes, classes))
    assert_close(run(three, draw(*IMAGE), target, matrix[None, None]), np.asarray(wanted), "three bottoms")
    source = f'source: "{tmp_path}/h.binaryproto"'
    two = build(f'type: "InfogainLoss" top: "prob" {setting % source}', IMAGE, rest)
    assert_close(run(two, draw(*IMAGE), target)["top"], np.asarray(wanted), "a file")


def test_an_infogain_matrix_is_needed_only_to_compute(tmp_path):
    refused('type: "InfogainLoss"', (2, 6), (2,), says="the matrix is missing\n  give its file as source")
    refused(
        'type: "InfogainLoss" loss_param { normalize: true }',
        (2, 6),
        (2,),
        (6, 6),
        says="normalize is not known here",
    )
    net = build(f'type: "InfogainLoss" infogain_loss_param {{ source: "{tmp_path}/none" }}', (2, 6), (2,))
    with pytest.raises(CaffeError, match="none: cannot be read"):
        net.forward(a=draw(2, 6), b=[0, 1])
    write_blob(tmp_path / "none", np.ones((5, 5), np.float32))
    with pytest.raises(LayerError, match=r"the matrix is \(5, 5\), 6 x 6 is needed"):
        net.forward(a=draw(2, 6), b=[0, 1])


# --- the others


@given(n=st.integers(1, 4), classes=st.integers(1, 5), square=st.booleans(), flat=st.booleans())
@settings(max_examples=20, deadline=None)
def test_hinge_loss_is_its_formula(n, classes, square, flat):
    scores, target = draw(n, classes), labels(n, classes=classes)
    shape = (n, classes) if flat else (n, classes, 1, 1)
    terms = [max(0, 1 + s * (-1 if c == target[i] else 1)) for i in range(n) for c, s in enumerate(scores[i])]
    wanted = np.sum(np.square(terms) if square else terms) / n
    norm = "hinge_loss_param { norm: L2 }" if square else ""
    got = run(build(f'type: "HingeLoss" {norm}', shape, (n,)), scores.reshape(shape), target)
    assert_close(got, np.asarray(wanted), norm)


@pytest.mark.parametrize(
    "setting", ["", "legacy_version: true", "margin: 3", "margin: 9 legacy_version: true"]
)
@pytest.mark.parametrize("tail", [(), (1, 1)])
def test_contrastive_loss_is_its_formula(setting, tail):
    a, b, similar = draw(5, 3), draw(5, 3, seed=1), np.float32([1, 0, 0, 2, 0.5])
    margin = float(re.search(r"margin: (\d)", setting)[1]) if "margin" in setting else 1
    total = 0.0
    for x, y, s in zip(a.astype(float), b.astype(float), similar, strict=True):
        d2 = ((x - y) ** 2).sum()
        far = max(margin - d2, 0) if "legacy" in setting else max(margin - np.sqrt(d2), 0) ** 2
        total += d2 if int(s) else far
    net = build(
        f'type: "ContrastiveLoss" contrastive_loss_param {{ {setting} }}', (5, 3, *tail), (5, 3, *tail), (5,)
    )
    got = run(net, a.reshape(5, 3, *tail), b.reshape(5, 3, *tail), similar)
    assert_close(got, np.asarray(total / 10), setting)


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize("ignored", [None, 1, -1])
def test_sigmoid_loss_divides_by_the_batch_unless_told(normalisation, ignored):
    x = draw(3, 4, 2) * 5
    target = np.random.default_rng(2).random((3, 8)).round(1).astype(np.float32)
    target[1, 2:5] = [1, -1, -1] if ignored == -1 else [1, 0, 1]
    setting = normalisation + (f" ignore_label: {ignored}" if ignored is not None else "")
    p = 1 / (1 + np.exp(-x.reshape(3, 8).astype(np.longdouble)))
    terms = -(target * np.log(p) + (1 - target) * np.log(1 - p))
    terms = [t for t, c in zip(terms.flat, target.flat, strict=True) if int(c) != ignored]
    wanted = float(np.sum(terms)) / divisor(setting, 3, 8, len(terms), "BATCH_SIZE")
    net = build(f'type: "SigmoidCrossEntropyLoss" loss_param {{ {setting} }}', (3, 4, 2), (3, 8))
    assert_close(run(net, x, target), np.asarray(wanted), setting)


def test_sigmoid_loss_of_large_scores_is_finite():
    net = build('type: "SigmoidCrossEntropyLoss"', (1, 2), (1, 2))
    assert_close(run(net, np.float32([[1e5, -1e5]]), np.float32([[0, 1]])), np.asarray(2e5), "linear")


def test_multinomial_loss_takes_probabilities_as_they_are():
    net = build('type: "MultinomialLogisticLoss"', (3, 2), (3, 1))
    prob = np.float32([[0.25, 0.5], [0, 1], [1, 2]])
    wanted = -(np.log(0.5) + np.log(1e-20) + np.log(2)) / 3
    assert_close(run(net, prob, np.float32([[1], [0], [1]])), np.asarray(wanted), "loss")


def test_euclidean_loss_halves_the_squares():
    net = build('type: "EuclideanLoss"', (2, 3, 1), (2, 3))
    assert run(net, np.zeros((2, 3, 1), np.float32), np.full((2, 3), 2, np.float32)) == 6


@pytest.mark.parametrize("kind", ["SoftmaxWithLoss", "EuclideanLoss", "HingeLoss", "MultinomialLogisticLoss"])
def test_losses_of_nothing_are_what_caffe_says(kind):
    net = build(f'type: "{kind}"', (0, 3), (0, 3) if kind == "EuclideanLoss" else (0,))
    got = net.forward(a=draw(0, 3), b=np.zeros(net.blobs["b"].shape))["top"]
    assert got == 0 if kind == "SoftmaxWithLoss" else np.isnan(got)


@pytest.mark.parametrize("opset", [17, 18, 19, 20])
def test_every_opset_takes_every_loss(opset):
    net = build('type: "SoftmaxWithLoss" loss_param { ignore_label: 1 }', IMAGE, LABELS)
    run(net, draw(*IMAGE), labels(*LABELS), opset=opset)
    run(build('type: "InfogainLoss"', (2, 6), (2,), (6, 6)), draw(2, 6), labels(2), draw(6, 6), opset=opset)
    run(build('type: "HingeLoss"', (2, 6), (2,)), draw(2, 6), labels(2), opset=opset)
    run(
        build('type: "ContrastiveLoss"', (2, 6), (2, 6), (2,)),
        draw(2, 6),
        draw(2, 6, seed=1),
        labels(2),
        opset=opset,
    )
    run(build('type: "SigmoidCrossEntropyLoss"', (2, 6), (2, 6)), draw(2, 6), labels(2, 6), opset=opset)
