"""The server's page in a browser: an image dropped, a file chosen, and what is refused."""

from __future__ import annotations

import base64

import pytest

from tests.browser.page import Page
from tests.test_serve import model, picture, port, segmenter, serving  # noqa: F401 - fixtures
from tests.test_serve_model import model as other

DROP = """const bytes = Uint8Array.from(atob(arguments[0]), (c) => c.charCodeAt(0));
const held = new DataTransfer(); held.items.add(new File([bytes], arguments[1]));
document.querySelector('#drop').dispatchEvent(
  new DragEvent('drop', {dataTransfer: held, bubbles: true, cancelable: true}))"""


@pytest.fixture
def page(driver, port):  # noqa: F811
    return Page(driver, f"http://127.0.0.1:{port}/")


def drop(page: Page, content: bytes, name: str) -> None:
    page.run(DROP, base64.b64encode(content).decode(), name)


def said(page: Page) -> str:
    page.wait("return ['', 'bad'].includes(document.querySelector('#state').className) && "
              "document.querySelector('#state').textContent")  # fmt: skip
    return page.text("#state")


def test_a_dropped_image_is_labelled(page):
    assert not page.one("#viewer").is_displayed()
    drop(page, picture(), "my <b>.png")
    page.wait("return document.querySelectorAll('#legend tbody tr').length")
    assert said(page).startswith("my <b>.png: 40 × 53 pixels, ")
    assert page.one("#viewer").is_displayed()
    page.press("[data-stage=overlay]", "\ue012")
    assert "sure, at row" in page.text("#under")
    assert page.complaints() == []


def test_a_chosen_file_is_labelled(page, tmp_path):
    path = tmp_path / "chosen.png"
    path.write_bytes(picture(20, 30))
    page.one("#file").send_keys(str(path))
    page.wait("return document.querySelectorAll('#legend tbody tr').length")
    assert said(page).startswith("chosen.png: 20 × 30 pixels")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"hello", "notes.txt: this is no image of a kind that is taken"),
        (picture()[:300], "notes.txt: the image is damaged"),
        (b"\x00" * (2 << 20), "notes.txt: the file is larger than 1 MiB"),
        (picture(400, 300), "notes.txt: the image is 300 x 400; at most 100,000 pixels are taken"),
    ],
    ids=["text", "damaged", "large", "many pixels"],
)
def test_refusals_are_said(page, content, told):
    drop(page, content, "notes.txt")
    assert said(page).startswith(told)
    assert page.run("return document.querySelector('#state').className") == "bad"
    assert not page.one("#viewer").is_displayed()


def test_what_is_no_file(page):
    page.run("document.body.dispatchEvent(new DragEvent('drop', "
             "{dataTransfer: new DataTransfer(), bubbles: true, cancelable: true}))")  # fmt: skip
    assert said(page) == "What was dropped is no file."


@pytest.mark.parametrize(
    ("layer", "told"),
    [
        ("InnerProduct fc data inner_product_param { num_output: 9 }", "the best 5 of 9 classes"),
        ("Power out data", "20 × 30"),
        ("Reduction sum data", "one number"),
    ],
    ids=["classes", "picture", "number"],
)
def test_models_that_label_no_pixels(driver, tmp_path, layer, told):
    answering, _ = other(tmp_path, layer)
    with serving(answering) as number:
        page = Page(driver, f"http://127.0.0.1:{number}/")
        drop(page, picture(20, 30), "<i>.png")
        assert said(page).startswith("<i>.png: 20 × 30 pixels")
        assert page.texts("#answers h2")[0] == "<i>.png"
        assert page.text("#answers figure:nth-child(2) .note").strip() == told
        assert not page.one("#viewer").is_displayed()
        assert (
            page.run(
                "return [...document.images].filter((i) => i.isConnected && i.src && !i.naturalWidth).length"
            )
            == 0
        )
        assert page.unnamed() == []
        assert page.complaints() == []
