"""Accuracies and intersections over union, as the FCN papers count them."""

from __future__ import annotations

import json
import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from caffe_fcn.cli import call
from caffe_fcn.conversion import convert
from caffe_fcn.errors import CaffeError
from caffe_fcn.scoring import MEASURES, MOST, Confusion, read_labels
from caffe_fcn.segment import Segmenter
from tests.conftest import HERE, REFERENCE

SHAPES = HERE.parent / "prototxts" / "shapes-fcn8s"


def straightforward(pairs, n: int, ignore: int) -> tuple[np.ndarray, dict[str, float]]:
    """Pixel by pixel, then the definitions word by word."""
    table = [[0] * n for _ in range(n)]
    for label, prediction in pairs:
        for t, p in zip(label.ravel().tolist(), prediction.ravel().tolist(), strict=True):
            if 0 <= t < n and t != ignore:
                table[t][p] += 1
    total = sum(map(sum, table))
    true = [sum(row) for row in table]
    said = [sum(row[i] for row in table) for i in range(n)]
    accuracies = [table[i][i] / true[i] for i in range(n) if true[i]]
    ius = {i: table[i][i] / (true[i] + said[i] - table[i][i]) for i in range(n) if true[i] or said[i]}
    return np.array(table), {
        "pixel_accuracy": sum(table[i][i] for i in range(n)) / total if total else math.nan,
        "mean_accuracy": sum(accuracies) / len(accuracies) if accuracies else math.nan,
        "mean_iu": sum(ius.values()) / len(ius) if ius else math.nan,
        "frequency_weighted_iu": sum(true[i] / total * ius[i] for i in ius) if total else math.nan,
    }


@st.composite
def label_pairs(draw):
    """(pairs, number of classes, label to ignore): patches or noise, of several types."""
    n = draw(st.sampled_from([1, 2, 5, 21, 300]))
    kind = draw(st.sampled_from([np.uint8, np.int32, np.int64] if n <= 256 else [np.int32, np.uint16]))
    ignore = draw(st.sampled_from([255, 0, 254] if kind in (np.uint8, np.uint16) else [255, -1, 0]))
    known = st.integers(0, min(n, np.iinfo(kind).max + 1) - 1)
    strange = st.sampled_from([ignore, *(x for x in (n, 255) if x <= np.iinfo(kind).max)])
    pairs = []
    for _ in range(draw(st.integers(1, 3))):
        shape = draw(st.tuples(st.integers(0, 4), st.integers(1, 5)))
        factor = draw(st.sampled_from([1, 6]))
        label = draw(hnp.arrays(kind, shape, elements=st.one_of(known, strange)))
        prediction = draw(hnp.arrays(kind, shape, elements=known))
        pairs.append(tuple(a.repeat(factor, 0).repeat(factor, 1) for a in (label, prediction)))
    return pairs, n, ignore


@given(label_pairs())
@settings(deadline=None)
def test_it_is_what_is_written_in_the_papers(case):
    pairs, n, ignore = case
    confusion = Confusion(n, ignore)
    for label, prediction in pairs:
        confusion.add(label, prediction)
    table, expected = straightforward(pairs, n, ignore)
    np.testing.assert_array_equal(confusion.matrix, table)
    assert {k: getattr(confusion, k) for k in MEASURES} == pytest.approx(expected, nan_ok=True)
    assert confusion.ignored == sum(int((label == ignore).sum()) for label, _ in pairs)
    pixels = sum(label.size for label, _ in pairs)
    assert confusion.matrix.sum() + confusion.ignored + confusion.strange == pixels
    json.dumps(confusion.to_dict(), allow_nan=False)
    assert str(confusion)


def test_the_fcn_repositorys_numbers():
    """A pair worked out by hand with the formulas of its score.py."""
    confusion = Confusion(["a", "b", "c"])
    confusion.add(np.array([[0, 0, 0, 0], [1, 1, 255, 255]]), np.array([[0, 0, 0, 1], [1, 0, 1, 0]]))
    assert confusion.matrix.tolist() == [[3, 1, 0], [1, 1, 0], [0, 0, 0]]
    assert confusion.pixel_accuracy == 4 / 6
    assert confusion.mean_accuracy == (3 / 4 + 1 / 2) / 2
    assert confusion.mean_iu == (3 / 5 + 1 / 3) / 2  # c never occurs, and has no part in it
    assert confusion.frequency_weighted_iu == pytest.approx(4 / 6 * 3 / 5 + 2 / 6 * 1 / 3)
    assert "b" in str(confusion)
    assert confusion.to_dict()["classes"][2] == {
        "name": "c", "pixels": 0, "predicted": 0, "accuracy": None, "iu": None
    }  # fmt: skip
    assert confusion.occurring().names == ["a", "b"]
    assert confusion.occurring().mean_iu == confusion.mean_iu


def test_parts_add_up():
    rng = np.random.default_rng(0)
    parts, whole = [Confusion(4), Confusion(4)], Confusion(4)
    for i in range(6):
        pair = rng.integers(0, 4, (2, 9, 9)).astype(np.uint8)
        pair[0, 0] = 255
        whole.add(*pair)
        parts[i % 2].add(*pair)
    parts[0] += parts[1]
    assert parts[0].to_dict() == whole.to_dict()


def test_large_images_are_counted_in_pieces(monkeypatch):
    monkeypatch.setattr("caffe_fcn.scoring.CHUNK", 7)
    rng = np.random.default_rng(0)
    label, prediction = rng.integers(0, 5, (2, 10, 10)).astype(np.uint8)
    confusion = Confusion(5)
    confusion.add(label, prediction)
    np.testing.assert_array_equal(confusion.matrix, straightforward([(label, prediction)], 5, 255)[0])


def test_what_does_not_fit():
    confusion = Confusion(3)
    with pytest.raises(CaffeError, match="the label is 2x3 pixels, the prediction 3x2"):
        confusion.add(np.zeros((2, 3), int), np.zeros((3, 2), int))
    with pytest.raises(CaffeError, match="the prediction holds float64"):
        confusion.add(np.zeros((2, 3), int), np.zeros((2, 3)))
    for kind in (np.uint8, np.int64):
        with pytest.raises(CaffeError, match=r"holds label 7, and there are 3 classes \(0 to 2\)"):
            confusion.add(np.array([255, 1], kind), np.array([200, 7], kind))
    assert (confusion.pairs, confusion.matrix.sum()) == (0, 0)
    confusion.add(np.array([9, 255, 1]), np.array([9, 9, 1]))
    assert (confusion.ignored, confusion.strange, confusion.matrix.sum()) == (1, 1, 1)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int32, np.int64, np.uint64])
def test_wild_labels_take_no_memory(kind):
    """No table is as large as a label's value says."""
    most = np.iinfo(kind).max
    label = np.array([0, 1, most, most - 1, np.iinfo(kind).min], kind)
    confusion = Confusion(64)
    tracemalloc.start()
    confusion.add(label, np.array([0, 1, 2, 0, 0], kind))
    assert confusion.strange + confusion.ignored == (2 if label[-1] == 0 else 3)
    with pytest.raises(CaffeError, match="holds label"):
        Confusion(2).add(np.zeros(5, kind), label)
    assert tracemalloc.get_traced_memory()[1] < 1e7
    tracemalloc.stop()


def test_no_more_classes_than_can_be_compared():
    for many in (0, -1, MOST + 1, 10**12):
        with pytest.raises(CaffeError, match=f"{many} classes: from 1 to 4,096"):
            Confusion(many)
    assert score("x", "y", "--classes", "99999999999") == 1


# --- files


@pytest.fixture
def folders(tmp_path):
    """Three label images, and as many predictions, one of them in the way of `caffe-fcn segment`."""
    rng = np.random.default_rng(0)
    for folder in ("true", "said"):
        (tmp_path / folder).mkdir()
    for name, said in (("a", "a.png"), ("b", "b.png"), ("c", "c.png")):
        save(rng.integers(0, 3, (6, 5)), tmp_path / "true" / f"{name}.png")
        save(rng.integers(0, 3, (6, 5)), tmp_path / "said" / said)
    return tmp_path


def save(labels, path):
    Image.fromarray(np.asarray(labels, np.uint8)).save(path)


def score(*words: object) -> int:
    return call("score", [str(w) for w in words], prog="caffe-fcn score")


def test_command(folders, capsys):
    assert score(folders / "true", folders / "said", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    expected = Confusion(3)
    for name in "abc":
        expected.add(*(read_labels(folders / f / f"{name}.png") for f in ("true", "said")))
    assert found == {**expected.to_dict(), "failed": []}
    assert score(folders / "true", folders / "said", "--classes", "voc") == 0
    said = capsys.readouterr().out
    assert "aeroplane" in said
    assert f"{expected.mean_iu:.2%}" in said
    assert "3 images" in said
    assert score(folders / "true" / "a.png", folders / "said" / "b.png") == 0
    assert "1 images" in capsys.readouterr().out


def test_files_that_do_not_pair(folders, capsys):
    (folders / "said" / "a.png").unlink()
    save(np.zeros((5, 6)), folders / "said" / "b.png")
    assert score(folders / "true", folders / "said") == 1
    told = capsys.readouterr()
    assert "a.png: " in told.err
    assert "holds no prediction for it" in told.err
    assert "b.png: the label is 6x5 pixels, the prediction 5x6" in told.err
    assert "1 images" in told.out
    (folders / "said" / "c.png").write_bytes(b"broken")
    assert score(folders / "true", folders / "said") == 1
    assert "nothing to compare" in capsys.readouterr().err
    Image.new("RGB", (5, 6)).save(folders / "true" / "c.png")
    assert score(folders / "true", folders / "said") == 1
    assert "is a picture of mode RGB" in capsys.readouterr().err


def test_wrong_words(folders, capsys):
    for words, told in (
        ([folders / "none", folders / "said"], "no such file or folder"),
        ([folders / "true"], "give LABELS and PREDICTIONS"),
        ([folders / "true", folders / "said", "--model", "x"], "give LABELS and PREDICTIONS"),
        ([folders / "true", folders / "said", "--classes", "vok"], "did you mean voc?"),
        ([folders, folders / "said"], "no label images in this folder"),
        ([folders / "true", folders / "said", "--classes", "2"], "and there are 2 classes"),
    ):
        assert score(*words) == 1
        assert told in capsys.readouterr().err


def test_labels_that_are_no_class(folders, capsys):
    save(np.full((6, 5), 40), folders / "true" / "a.png")
    assert score(folders / "true", folders / "said", "--classes", "voc") == 0
    assert "30 pixels left out whose label is no class" in capsys.readouterr().out


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    path = tmp_path_factory.mktemp("shapes") / "shapes.onnx"
    convert(SHAPES / "deploy.prototxt", SHAPES / "shapes-fcn8s.caffemodel", path, verify=False)
    return path


def test_a_model_on_the_samples(shapes, tmp_path, capsys):
    """Predicted and scored in one go, and in two."""
    assert score(SHAPES, "--model", shapes, "--images", SHAPES, "--device", "cpu", "--json") == 0
    at_once = json.loads(capsys.readouterr().out)
    assert at_once["pairs"] == 4
    assert at_once["mean_iu"] > 0.8
    assert [row["name"] for row in at_once["classes"]][:2] == ["background", "circle"]
    samples = [str(SHAPES / f"sample-{i}.png") for i in range(1, 5)]
    words = [str(shapes), *samples, "-o", str(tmp_path), "--device", "cpu", "--quiet"]
    assert call("segment", words, prog="caffe-fcn segment") == 0
    assert score(SHAPES, tmp_path, "--classes", "shapes", "--json") == 0
    assert json.loads(capsys.readouterr().out) == at_once


def test_several_outputs(tmp_path, capsys):
    net = REFERENCE / "nets" / "siftflow-fcn8s-thin.prototxt"
    convert(net, net.with_suffix(".caffemodel"), tmp_path / "x.onnx", verify=False)
    (tmp_path / "images").mkdir()
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "images" / "i.png")
    (tmp_path / "true").mkdir()
    found = {x.output: x for x in Segmenter(tmp_path / "x.onnx", "cpu")(image)}
    save(found["score_geo"].labels, tmp_path / "true" / "i.png")
    words = [
        tmp_path / "true",
        "--model",
        tmp_path / "x.onnx",
        "--images",
        tmp_path / "images",
        "--device",
        "cpu",
    ]
    assert score(*words) == 1
    assert "which output is to be compared" in capsys.readouterr().err
    assert score(*words, "--output", "score_geo", "--json") == 0
    assert json.loads(capsys.readouterr().out)["pixel_accuracy"] == 1
    call("segment", [*map(str, (words[2], words[4], "-o", tmp_path / "out")), "--quiet"], prog="segment")
    assert score(tmp_path / "true", tmp_path / "out", "--output", "score_geo", "--json") == 0
    assert json.loads(capsys.readouterr().out)["pixel_accuracy"] == 1
