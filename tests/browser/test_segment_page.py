"""The page of a run of `segment` in a browser: slider, pointer, legend, outputs."""

from __future__ import annotations

import numpy as np
import pytest

from caffe_fcn.labels import VOC
from caffe_fcn.report import segmentation as sg
from tests.browser.page import Page


def labels(name: str, seed: int) -> sg.Sure:
    """Left background, right one class; more and more sure towards the bottom."""
    found = np.zeros((60, 80), np.uint8)
    found[:, 40:] = seed
    sure = np.linspace(0.5, 1, 60, dtype=np.float32)[:, None].repeat(80, 1)
    return sg.Sure(name, found, list(VOC.classes), confidence=sure)


@pytest.fixture
def page(driver, tmp_path):
    grey = np.full((60, 80, 3), 128, np.uint8)
    entries = [
        sg.entry("one<b>.png", grey, [labels("score_a", 15), labels("score_b", 8)]),
        sg.entry("two.png", grey, [labels("score_a", 3)]),
    ]
    path = tmp_path / "page.html"
    path.write_text(sg.render(entries, "net.onnx"), encoding="utf-8")
    page = Page(driver, path.as_uri())
    page.wait("return document.querySelectorAll('#legend tbody tr').length")
    yield page
    assert page.complaints() == []


def colour(page: Page, stage: str, row: int, column: int) -> list[int]:
    return page.run(
        "const c = document.querySelector(`[data-stage=${arguments[0]}] canvas`).getContext('2d');"
        "return [...c.getImageData(arguments[2], arguments[1], 1, 1).data]",
        stage, row, column,
    )  # fmt: skip


def point(page: Page, row: float, column: float) -> None:
    page.run(
        "const s = document.querySelector('[data-stage=overlay]'), b = s.getBoundingClientRect();"
        "s.dispatchEvent(new PointerEvent('pointermove', {clientX: b.left + b.width * arguments[1],"
        "clientY: b.top + b.height * arguments[0], bubbles: true}))",
        row, column,
    )  # fmt: skip


def test_labels_have_their_colours(page):
    assert colour(page, "labels", 5, 5) == [0, 0, 0, 255]
    assert colour(page, "labels", 5, 70) == [192, 128, 128, 255]
    assert colour(page, "overlay", 5, 5)[3] == 0  # background stays clear
    assert colour(page, "overlay", 5, 70) == [192, 128, 128, 255]
    dark, bright = colour(page, "confidence", 0, 5), colour(page, "confidence", 59, 5)
    assert sum(dark[:3]) < sum(bright[:3])


def test_the_slider_fades_the_labels(page):
    opacity = "return getComputedStyle(document.querySelector('[data-stage=overlay] canvas')).opacity"
    assert page.run(opacity) == "0.55"
    page.type("#opacity", 0)
    assert page.run(opacity) == "0"
    page.press("#opacity", "\ue014")  # right
    assert page.run(opacity) == "0.01"


def test_the_class_under_the_pointer(page):
    point(page, 0.99, 0.9)
    assert page.text("#under") == "person, 100.0 % sure, at row 59, column 72"
    assert page.text("#legend tr.under button") == "person"
    assert page.run("return document.querySelectorAll('.cross').length") == 4
    point(page, 0.5, 0.1)
    assert page.text("#under").startswith("background, 75.3 % sure")


def test_keys_move_the_pointer(page):
    page.press("[data-stage=overlay]", "\ue014")
    assert page.text("#under").startswith("person")
    assert page.text("#under").endswith("at row 30, column 41")


def test_the_legend_has_areas_and_picks_a_class(page):
    assert page.texts("#legend tbody tr:first-child td") == ["background", "50.0 %", "75.0 %"]
    page.one("#legend tr[data-label='0'] button").click()
    assert colour(page, "overlay", 5, 70)[3] == 0
    assert colour(page, "overlay", 5, 5)[3] == 255  # asked for, so shown
    page.one("#legend tr[data-label='0'] button").click()
    assert colour(page, "overlay", 5, 70)[3] == 255


def test_other_outputs_and_images(page):
    assert page.texts("#outputs button") == ["score_a", "score_b"]
    page.one("#outputs button:nth-child(2)").click()
    page.wait("return document.querySelector('#legend tr[data-label=\"8\"]')")
    assert colour(page, "labels", 5, 70) == [64, 0, 0, 255]
    assert page.texts("#pictures button") == ["one<b>.png", "two.png"]
    page.one("#pictures li:nth-child(2) button").click()
    page.wait("return document.querySelector('#legend tr[data-label=\"3\"]')")
    assert page.texts("#outputs button") == []


def test_labels_alone(driver, tmp_path):
    plain = sg.entry("x.png", np.zeros((4, 5, 3), np.uint8), [sg.Labels("score", np.ones((4, 5), np.uint8))])
    path = tmp_path / "plain.html"
    path.write_text(sg.render([plain], "net.onnx"), encoding="utf-8")
    page = Page(driver, path.as_uri())
    page.wait("return document.querySelectorAll('#legend tbody tr').length")
    assert page.texts("#legend tbody td") == ["class 1", "100.0 %"]
    assert not page.one("[data-stage=confidence]").is_displayed()


def test_only_a_background_stays_clear(page, driver, tmp_path):
    assert page.one("#clear").is_displayed()
    found = sg.Labels("geo", np.zeros((6, 8), np.uint8), ["sky", "ground"])
    path = tmp_path / "sky.html"
    path.write_text(sg.render([sg.entry("x", np.zeros((6, 8, 3), np.uint8), [found])], "m"), encoding="utf-8")
    other = Page(driver, path.as_uri())
    other.wait("return document.querySelectorAll('#legend tbody tr').length")
    assert not other.one("#clear").is_displayed()


def test_a_screen_reader_can_name_everything(page):
    assert page.unnamed() == []


def test_on_a_phone(page):
    with page.seen(390, 844):
        assert page.run("return document.documentElement.scrollWidth <= innerWidth")
