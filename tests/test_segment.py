"""Images in, label images and overlays out."""

from __future__ import annotations

import io
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from caffe_fcn import segment
from caffe_fcn.cli import call
from caffe_fcn.conversion import convert
from caffe_fcn.errors import CaffeError
from caffe_fcn.labels import VOC, palette
from caffe_fcn.runtime import Bound
from caffe_fcn.segment import KEPT, Labels, Segmenter, images_in, label_map, read_image
from tests.conftest import REFERENCE

NET = REFERENCE / "nets" / "fcn8s-thin-1px.prototxt"


def model(folder, **options):
    path = folder / "net.onnx"
    convert(NET, NET.with_suffix(".caffemodel"), path, verify=False, **options)
    return path


def pixels(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return model(tmp_path_factory.mktemp("plain"))


@pytest.fixture
def picture(tmp_path):
    Image.fromarray(pixels(40, 53)).save(tmp_path / "picture.png")
    return tmp_path / "picture.png"


def run(*words: object) -> int:
    return call("segment", [str(w) for w in words], prog="caffe-fcn segment")


# --- the command


def test_files(plain, picture, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(plain, picture, "-o", out, "--device", "cpu") == 0
    label = Image.open(out / "picture.label.png")
    assert label.mode == "P"
    assert label.size == (53, 40)
    assert label.getpalette()[3:6] == [128, 0, 0]
    labels = np.asarray(label)
    assert labels.max() < 21
    expected = Segmenter(plain, "cpu")(read_image(picture))[0].labels
    np.testing.assert_array_equal(labels, expected)
    assert Image.open(out / "picture.overlay.png").height > 40
    assert VOC.classes[labels[0, 0]] in capsys.readouterr().out


def test_labels_only(plain, picture, tmp_path, capsys):
    assert run(plain, picture, "-o", tmp_path / "out", "--device", "cpu", "--no-overlay") == 0
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["picture.label.png"]
    assert "overlay" not in capsys.readouterr().out


def test_what_was_written_is_no_input(plain, picture, tmp_path):
    assert run(plain, tmp_path, "-o", tmp_path, "--device", "cpu", "--quiet") == 0
    assert images_in([str(tmp_path), str(picture)]) == [picture]


def test_a_folder_goes_on_after_a_bad_file(plain, picture, tmp_path, capsys):
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 not a picture")
    assert run(plain, tmp_path, "-o", tmp_path / "out", "--device", "cpu", "--json") == 1
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert [row["image"] for row in found["images"]] == [str(picture)]
    assert "broken.jpg" in found["failed"][0]
    assert "1 of 2 images failed" in said.err
    assert (tmp_path / "out" / "picture.label.png").exists()


@pytest.mark.parametrize("batch", [1, 3])
def test_sizes_are_never_mixed_nor_changed(plain, tmp_path, batch):
    folder, sizes = (
        tmp_path / "in",
        [(20, 30), (9, 9), (20, 30), (30, 20), (20, 30), (9, 9), (20, 30), (20, 30)],
    )
    folder.mkdir()
    for i, size in enumerate(sizes):
        Image.fromarray(pixels(*size, seed=i)).save(folder / f"{i}.png")
    assert run(plain, folder, "-o", tmp_path / "out", "--device", "cpu", "--batch", batch, "--quiet") == 0
    segmenter = Segmenter(plain, "cpu")
    for i, size in enumerate(sizes):
        labels = np.asarray(Image.open(tmp_path / "out" / f"{i}.label.png"))
        np.testing.assert_array_equal(labels, segmenter(pixels(*size, seed=i))[0].labels)


def test_images_of_one_name(plain, picture, tmp_path, capsys):
    Image.open(picture).save(tmp_path / "picture.bmp")
    assert run(plain, tmp_path, "-o", tmp_path / "out", "--device", "cpu", "--quiet") == 0
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        f"picture.{kind}.{what}.png" for kind in ("bmp", "png") for what in ("label", "overlay")
    }
    (tmp_path / "other").mkdir()
    Image.open(picture).save(tmp_path / "other" / "picture.png")
    assert run(plain, picture, tmp_path / "other", "-o", tmp_path / "out", "--device", "cpu") == 1
    assert "would both be written as picture.png.label.png" in capsys.readouterr().err


def test_missing_image(plain, tmp_path, capsys):
    assert run(plain, tmp_path / "none.png", "-o", tmp_path, "--device", "cpu") == 1
    assert "no such file" in capsys.readouterr().err


def test_a_batch_that_the_model_does_not_take(picture, tmp_path, capsys):
    fixed = model(tmp_path, input_shapes={"data": (2, 3, 40, 53)})
    assert run(fixed, picture, "-o", tmp_path, "--device", "cpu", "--batch", 3) == 1
    assert "takes 2 at a time" in capsys.readouterr().err
    assert run(fixed, picture, "-o", tmp_path, "--device", "cpu", "--batch", 0) == 1
    assert run(fixed, picture, "-o", tmp_path, "--device", "cpu", "--quiet") == 0


# --- the model


@pytest.mark.parametrize(
    "options", [{"preprocess": True}, {"argmax": True}, {"preprocess": True, "argmax": True}]
)
def test_every_form_of_the_file_gives_the_same_labels(plain, picture, tmp_path, options):
    image = read_image(picture)
    expected = Segmenter(plain, "cpu")(image)[0]
    got = Segmenter(model(tmp_path, **options), "cpu")(image)[0]
    assert (got.labels == expected.labels).mean() > 0.999
    assert got.classes == expected.classes == list(VOC.classes)


def test_preparation_is_caffes(plain, tmp_path):
    """Blue first, the mean off, then the scale."""
    segmenter = Segmenter(model(tmp_path, mean=[1, 2, 3], scale=0.5), "cpu")
    data = segmenter.prepare(np.array([[[10, 20, 30]]], np.uint8))
    assert data.ravel().tolist() == [(30 - 1) / 2, (20 - 2) / 2, (10 - 3) / 2]
    segmenter = Segmenter(model(tmp_path, mean=[127.5]), "cpu")
    assert segmenter.prepare(np.zeros((1, 1, 3), np.uint8)).ravel().tolist() == [-127.5] * 3


def test_batches_of_a_fixed_count(plain, tmp_path):
    images = [pixels(8, 9, seed) for seed in range(5)]
    expected = [found[0].labels for found in map(Segmenter(plain, "cpu"), images)]
    for segmenter in (
        Segmenter(plain, "cpu"),
        Segmenter(model(tmp_path, input_shapes={"data": (2, 3, 8, 9)}), "cpu"),
    ):
        got = [found[0].labels for found in segmenter.batch(images)]
        np.testing.assert_array_equal(got, expected)


def test_results_stay_when_buffers_are_used_again(plain, tmp_path):
    for path in (plain, model(tmp_path, argmax=True)):
        segmenter, images = Segmenter(path, "cpu"), [pixels(8, 9, seed) for seed in range(3)]
        scores = [segmenter.scores(image) for image in images]
        labels = [segmenter(image)[0].labels for image in images]
        for image, score, label in zip(images, scores, labels, strict=True):
            for name, value in Segmenter(path, "cpu").scores(image).items():
                np.testing.assert_array_equal(value, score[name])
            np.testing.assert_array_equal(Segmenter(path, "cpu")(image)[0].labels, label)


def test_threads_share_a_segmenter(plain):
    segmenter, images = Segmenter(plain, "cpu"), [pixels(8, 9, seed) for seed in range(8)]
    expected, got = [segmenter(image)[0].labels for image in images], {}

    def work(i):
        for _ in range(3):
            got[i] = segmenter(images[i])[0].labels

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal([got[i] for i in range(8)], expected)


def test_buffers_of_old_sizes_are_dropped(plain):
    segmenter = Segmenter(plain, "cpu")
    for width in range(3, 3 + 2 * KEPT):
        segmenter(pixels(4, width))
    assert [shape[3] for shape in segmenter._kept.bounds] == [3 + 2 * KEPT - 2, 3 + 2 * KEPT - 1]


def test_fixed_size_refuses_others(picture, tmp_path):
    fixed = Segmenter(model(tmp_path, input_shapes={"data": (1, 3, 32, 32)}), "cpu")
    with pytest.raises(CaffeError, match="32x32 only"):
        fixed(read_image(picture))


def test_what_is_no_image(plain):
    segmenter = Segmenter(plain, "cpu")
    for bad in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((4, 4, 4), np.uint8)):
        with pytest.raises(CaffeError, match=r"takes images \(H, W, 3\) uint8"):
            segmenter(bad)


def test_other_nets_are_refused(tmp_path):
    net = REFERENCE / "nets" / "nyud-fcn32s-color-d-thin.prototxt"
    convert(net, net.with_suffix(".caffemodel"), tmp_path / "x.onnx", verify=False)
    with pytest.raises(CaffeError, match="an image is"):
        Segmenter(tmp_path / "x.onnx", "cpu")
    prototxt = tmp_path / "pooled.prototxt"
    prototxt.write_text(
        'input: "data" input_shape { dim: 1 dim: 3 dim: 8 dim: 8 }'
        'layer { name: "f" type: "Flatten" bottom: "data" top: "f" }'
    )
    convert(prototxt, None, tmp_path / "y.onnx", verify=False)
    with pytest.raises(CaffeError, match="not a label for each pixel"):
        Segmenter(tmp_path / "y.onnx", "cpu")


def test_coarse_scores_are_drawn_larger(tmp_path):
    image = pixels(64, 90)
    (labels,) = Segmenter(model(tmp_path, outputs=["score_fr"]), "cpu")(image)
    assert labels.labels.shape != image.shape[:2]
    assert labels.overlay(image, legend=False).size == (90, 64)


# --- labels


@given(
    hnp.arrays(
        st.sampled_from([np.float32, np.float16]),
        st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(1, 5)),
        elements=st.sampled_from([-2.0, -1.0, 0.0, 0.5, 3.0]),  # so that classes are equal often
    )
)
def test_label_map_is_argmax(scores):
    labels = label_map(scores)
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, scores.argmax(axis=0))


def test_label_map_of_many_pixels_and_classes(monkeypatch):
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(21, 200, 211)).astype(np.float32)
    np.testing.assert_array_equal(label_map(scores), scores.argmax(axis=0))
    scores = rng.normal(size=(300, 5, 7)).astype(np.float32)
    labels = label_map(scores)
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(labels, scores.argmax(axis=0))


def test_palette_is_vocs():
    """The first colours of the VOC devkit's map."""
    assert palette(6).tolist() == [
        [0, 0, 0],
        [128, 0, 0],
        [0, 128, 0],
        [128, 128, 0],
        [0, 0, 128],
        [128, 0, 128],
    ]


def test_areas_and_legend(monkeypatch):
    labels = Labels("score", np.array([[0, 0, 0, 15]]), list(VOC.classes))
    assert labels.areas() == {"background": 0.75, "person": 0.25}
    image = np.full((1, 4, 3), 100, np.uint8)
    overlay = labels.overlay(image, legend=False)
    assert overlay.getpixel((0, 0)) == (100, 100, 100)
    assert overlay.getpixel((3, 0)) == tuple(round((100 * 115 + int(c) * 140) / 255) for c in palette()[15])
    monkeypatch.setattr("caffe_fcn.segment.STRIP", 1)
    tall = Labels("score", np.arange(12).reshape(6, 2) % 3)
    assert tall.counts() == {0: 4, 1: 4, 2: 4}
    assert np.asarray(tall.overlay(pixels(6, 2), legend=False)).shape == (6, 2, 3)


def test_labels_in_a_notebook():
    labels = Labels("score", np.array([[0, 7], [1, 0]], np.uint8))
    import io

    picture = Image.open(io.BytesIO(labels._repr_png_()))
    assert np.asarray(picture).tolist() == [[0, 7], [1, 0]]
    with pytest.raises(CaffeError, match="label 256 does not fit"):
        Labels("score", np.array([[256]])).image()


# --- files


def test_an_image_is_upright_and_has_eight_bits(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn right
    Image.fromarray(pixels(4, 6)).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "turned.png"), np.rot90(pixels(4, 6), -1))
    Image.fromarray(np.array([[0, 300, 65535]], np.uint16)).save(tmp_path / "deep.png")
    assert read_image(tmp_path / "deep.png")[0].tolist() == [[0] * 3, [1] * 3, [255] * 3]
    Image.new("LA", (2, 1), (9, 0)).save(tmp_path / "alpha.png")
    assert read_image(tmp_path / "alpha.png").shape == (1, 2, 3)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_damaged_image_is_a_message(tmp_path):
    """Cut or changed anywhere: an image, or CaffeError."""
    rng = np.random.default_rng(0)
    for suffix in ("png", "jpg", "gif", "bmp", "tif", "webp", "ppm"):
        path = tmp_path / f"x.{suffix}"
        Image.fromarray(pixels(9, 8)).save(path)
        whole = path.read_bytes()
        for _ in range(40):
            data = bytearray(whole[: rng.integers(1, len(whole) + 1)])
            for at in rng.integers(0, len(data), 3):
                data[at] = rng.integers(256)
            path.write_bytes(data)
            try:
                assert read_image(path).shape[2] == 3
            except CaffeError as error:
                assert str(path) in str(error)  # noqa: PT017


@pytest.mark.parametrize(("alone", "most"), [(0, 1), (10_000, 2)])
def test_large_passes_take_turns(plain, monkeypatch, alone, most):
    """One fills a CPU's cores, and two would its memory; small ones run together."""
    lock, running, seen = threading.Lock(), [0], []
    real = Bound.__call__

    def watched(bound):
        with lock:
            running[0] += 1
            seen.append(running[0])
        time.sleep(0.02)
        found = real(bound)
        with lock:
            running[0] -= 1
        return found

    monkeypatch.setattr(segment, "ALONE", alone)
    monkeypatch.setattr(Bound, "__call__", watched)
    segmenter = Segmenter(plain, "cpu")
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(segmenter, [pixels(20, 30)] * 4))
    assert max(seen) == most


def test_a_notebook_shows_no_more_than_it_has_to():
    """A large image's labels are shown smaller; labels beyond the palette are shown all the same."""
    noise = np.random.default_rng(0).integers(0, 21, (2000, 3000)).astype(np.uint8)
    shown = Labels("score", noise, list(VOC.classes))
    picture = Image.open(io.BytesIO(shown._repr_png_()))
    assert picture.size == (1024, 683)
    assert len(shown._repr_html_()) < 1_500_000
    assert "score, 2000 × 3000" in shown._repr_html_()
    wide = Labels("<b>", np.full((2, 3), 700, np.int32))
    assert "class 700</span> 100.0%" in wide._repr_html_() or "class 700 100.0%" in wide._repr_html_()
    assert "<b>" not in wide._repr_html_()
