"""The page of a run of `segment`: what it holds. What it does: tests/browser."""

from __future__ import annotations

import base64
import io
import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from caffe_fcn.cli import call
from caffe_fcn.conversion import convert
from caffe_fcn.labels import VOC
from caffe_fcn.report import segmentation as sg
from caffe_fcn.segment import Labels, Segmenter, read_image
from tests.small_nets import NETS

NET = NETS / "fcn8s-thin-1px.prototxt"


def model(folder, net=NET, **options):
    path = folder / "net.onnx"
    convert(net, net.with_suffix(".caffemodel"), path, verify=False, **options)
    return path


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(3):
        rgb = rng.integers(0, 256, (30 + i, 40, 3), dtype=np.uint8)
        Image.fromarray(rgb).save(folder / f"{i}<b>.png")
    return folder


def held(text: str) -> list[dict]:
    return json.loads(re.search(r"^const ENTRIES = (.*);$", text, re.MULTILINE)[1])


def unpacked(address: str) -> np.ndarray:
    kind, _, content = address.partition(";base64,")
    assert kind in ("data:image/png", "data:image/jpeg")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))


def run(*words: object) -> int:
    return call("segment", [str(w) for w in words], prog="caffe-fcn segment")


def test_one_page_for_a_run(pictures, tmp_path, capsys):
    path, out = model(tmp_path), tmp_path / "page.html"
    assert run(path, pictures, "-o", tmp_path / "out", "--html", out, "--device", "cpu") == 0
    text = out.read_text(encoding="utf-8")
    assert not re.findall(r"""(?:src|href)=["'](?!#|data:)""", text)
    found = held(text)
    assert [e["name"] for e in found] == ["0<b>.png", "1<b>.png", "2<b>.png"]
    segmenter = Segmenter(path, "cpu")
    for entry in found:
        image = read_image(pictures / entry["name"])
        (output,) = entry["outputs"]
        expected = segmenter(image)[0]
        np.testing.assert_array_equal(unpacked(output["labels"]), expected.labels)
        assert unpacked(entry["image"]).shape == image.shape
        assert {c["name"]: c["share"] for c in output["classes"]} == expected.areas()
        sure = sg.confidence(segmenter.scores(image)["score"])
        assert abs(unpacked(output["confidence"]) - sure * 255).max() <= 0.51
        assert output["sure"] == pytest.approx(sure.mean(), abs=1e-4)


def test_labels_alone_have_no_confidence(pictures, tmp_path):
    out = tmp_path / "page.html"
    assert (
        run(
            model(tmp_path, argmax=True),
            pictures / "0<b>.png",
            "-o",
            tmp_path,
            "--html",
            out,
            "--device",
            "cpu",
        )
        == 0
    )
    (entry,) = held(out.read_text(encoding="utf-8"))
    assert "confidence" not in entry["outputs"][0]


def test_softmax_in_the_file_gives_the_same_confidence(pictures, tmp_path):
    image = read_image(pictures / "0<b>.png")
    plain = Segmenter(model(tmp_path), "cpu")
    scores = sg.label_and_confidence(plain, [plain.prepare(image)])[0][0]
    soft = Segmenter(model(tmp_path, softmax=True), "cpu")
    again = sg.label_and_confidence(soft, [soft.prepare(image)])[0][0]
    np.testing.assert_allclose(scores.confidence, again.confidence, atol=1e-5)


def test_every_output_is_shown(pictures, tmp_path):
    out = tmp_path / "page.html"
    net = NETS / "siftflow-fcn8s-thin.prototxt"
    assert (
        run(model(tmp_path, net), pictures / "0<b>.png", "-o", tmp_path, "--html", out, "--device", "cpu")
        == 0
    )
    (entry,) = held(out.read_text(encoding="utf-8"))
    assert sorted(o["name"] for o in entry["outputs"]) == ["score_geo", "score_sem"]


def test_the_page_has_a_place_of_its_own(pictures, tmp_path, capsys):
    picture, out = pictures / "0<b>.png", tmp_path / "out"
    assert run(model(tmp_path), picture, "-o", out, "--device", "cpu", "--html") == 0
    assert len(held((out / "index.html").read_text(encoding="utf-8"))) == 1
    before = picture.read_bytes()
    assert run(model(tmp_path), pictures, "-o", tmp_path / "o", "--html", picture) == 1
    assert "is not the name of a page" in capsys.readouterr().err
    assert picture.read_bytes() == before
    assert not (tmp_path / "o").exists()


def test_a_bad_file_does_not_keep_the_page_away(pictures, tmp_path):
    (pictures / "0bad.png").write_bytes(b"nothing")
    out = tmp_path / "page.html"
    assert (
        run(model(tmp_path), pictures, "-o", tmp_path / "o", "--html", out, "--device", "cpu", "--quiet") == 1
    )
    assert len(held(out.read_text(encoding="utf-8"))) == 3


@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.floats(0.1, 80))
def test_confidence_is_the_softmaxs_largest(seed, classes, spread):
    scores = (np.random.default_rng(seed).standard_normal((classes, 3, 4)) * spread).astype(np.float32)
    wide = np.exp(scores.astype(np.float64) - scores.max(axis=0))
    expected = (wide / wide.sum(axis=0)).max(axis=0)
    np.testing.assert_allclose(sg.confidence(scores), expected, rtol=1e-4)
    np.testing.assert_allclose(
        sg.confidence((wide / wide.sum(axis=0)).astype(np.float32)), expected, rtol=1e-4
    )


def test_large_images_are_shown_smaller_and_counted_whole():
    labels = np.zeros((3000, 1500), np.uint8)
    labels[:1500] = 15
    found = sg.entry("x", np.zeros((3000, 1500, 3), np.uint8), [Labels("score", labels, list(VOC.classes))])
    assert found["shown"] == [1024, 512]
    assert found["size"] == [3000, 1500]
    shown = unpacked(found["outputs"][0]["labels"])
    assert shown.shape == (1024, 512)
    assert set(np.unique(shown)) == {0, 15}
    assert [c["pixels"] for c in found["outputs"][0]["classes"]] == [2_250_000, 2_250_000]


def test_many_classes_take_two_bytes():
    labels = np.array([[0, 255, 256, 1000]], np.int32)
    found = sg.entry("x", np.zeros((1, 4, 3), np.uint8), [Labels("score", labels)])
    shown = unpacked(found["outputs"][0]["labels"]).astype(int)
    assert (shown[..., 0] + 256 * shown[..., 1]).tolist() == labels.tolist()


def test_a_page_has_an_end(tmp_path):
    from pathlib import Path

    paths = [Path(f"{i}.png") for i in range(sg.MOST + 2)]
    gallery = sg.Gallery(tmp_path / "p.html", "m.onnx", paths)
    for path in reversed(paths):
        gallery.add(path, np.zeros((2, 2, 3), np.uint8), [Labels("score", np.zeros((2, 2), np.uint8))])
    gallery.write()
    text = (tmp_path / "p.html").read_text(encoding="utf-8")
    assert [e["name"] for e in held(text)] == [p.name for p in paths[: sg.MOST]]
    assert "2 more images are not on this page" in text


def test_notebooks_show_a_legend():
    shown = Labels("score", np.zeros((3, 4), np.uint8), ["<b>"])._repr_html_()
    assert "&lt;b&gt; 100.0%" in shown
    assert "data:image/png;base64," in shown
