"""A trace's page in a browser: sizes, graph, table, keyboard."""

from __future__ import annotations

import pytest

from caffe_fcn.errors import LayerError
from caffe_fcn.net import Net
from caffe_fcn.report import html
from caffe_fcn.tracing import trace
from tests.browser.page import Page
from tests.small_nets import NETS, PROTOTXTS, VOC8S, conv, net_of, pool

SIZES = "return document.querySelector('#verdict').dataset.layer"


@pytest.fixture(scope="module")
def shown(driver, tmp_path_factory):
    """Opens the page of a net; each net's page is written once."""
    folder = tmp_path_factory.mktemp("pages")

    def show(name: str, net: Net, fragment: str = "") -> Page:
        path = folder / f"{name}.html"
        if not path.exists():
            path.write_text(html.render(trace(net), net), encoding="utf-8")
        driver.get("about:blank")
        return Page(driver, f"{path.as_uri()}{fragment}")

    return show


@pytest.fixture
def voc8s(shown):
    return shown("voc8s", Net(VOC8S))


def outputs(page: Page) -> dict[str, str]:
    return dict(zip(page.texts("#table td:nth-child(2)"), page.texts("#table td:nth-child(5)"), strict=True))


def test_it_needs_nothing_from_outside_and_complains_of_nothing(voc8s):
    assert voc8s.complaints() == []
    assert voc8s.run("return performance.getEntriesByType('resource').length") == 0


def test_every_shape_follows_the_box(voc8s):
    voc8s.type("[data-symbol=H]", 334)
    got = outputs(voc8s)
    want = trace(Net(VOC8S), {"data": (1, 3, 334, 500)})
    for row in want.to_dict()["rows"]:
        assert got[row["name"]] == " × ".join(map(str, row["shapes"][0])), row["name"]
    assert voc8s.text("[data-fact=output]") == "score 1 × 21 × 334 × 500"
    told = voc8s.text("[data-fact='at once']")
    assert told.startswith(f"{want.totals.live / 2**20:.1f} MiB at most (in {want.totals.live_at})")
    assert voc8s.text("[data-shape='5']") == "64×266×349"
    label = voc8s.one("#graph [data-row='5']").get_attribute("aria-label")
    assert label == "pool1, Pooling, 1 × 64 × 266 × 349"
    assert voc8s.text("#verdict") == "Every layer works: score 1 × 21 × 334 × 500."
    voc8s.one("#reset").click()
    assert voc8s.run("return document.querySelector('[data-symbol=H]').value") == "500"
    assert outputs(voc8s)["score"] == "1 × 21 × 500 × 500"


def verdict(net: Net, name: str, h: int, w: int) -> str:
    """The first layer that such an input is too small for, or that rejects it."""
    try:
        shapes = net.infer({name: (*net.blobs[name].shape[:2], h, w)})
    except LayerError as error:
        stop = net.layer_names.index(error.layer)
        shapes = [*net.infer({name: (*net.blobs[name].shape[:2], h, w)}, stop), [(0,)]]
    return next((net.layer_names[i] for i, tops in enumerate(shapes) for top in tops if min(top) < 1), "")


def unet() -> Net:
    """Fuses without a Crop: every other size does not fit."""
    up = "convolution_param { num_output: 1 kernel_size: 2 stride: 2 }"
    return net_of(
        f"Convolution c1 data {conv('kernel_size: 3')}", f"Pooling p1 c1 {pool('kernel_size: 2 stride: 2')}",
        f"Deconvolution u1 p1 {up}", "Eltwise sum u1,c1",
        f"Pooling p2 sum {pool('kernel_size: 2 stride: 2')}",
        f"Deconvolution u2 p2 {up}", "Concat cat sum,u2", f"Convolution far cat {conv('kernel_size: 5')}",
        h=14, w=14,
    )  # fmt: skip


def offset() -> Net:
    """A Crop that begins too late for every other input."""
    return net_of(
        f"Pooling p1 data {pool('kernel_size: 2 stride: 2')}",
        "Deconvolution up p1 convolution_param { num_output: 1 kernel_size: 4 stride: 2 }",
        f"Convolution small data {conv('kernel_size: 5')}", "Crop cut up,small crop_param { offset: 7 }",
        h=25, w=25,
    )  # fmt: skip


@pytest.mark.parametrize("make", [unet, offset, lambda: Net(NETS / "fcn32s-thin.prototxt"),
                                  lambda: Net(PROTOTXTS / "voc-fcn-alexnet" / "deploy.prototxt")],
                         ids=["unet", "offset", "fcn32s", "alexnet"])  # fmt: skip
def test_it_knows_which_sizes_work(shown, make, request):
    net = make()
    page = shown(request.node.callspec.id, net)
    name = net.inputs[0]
    sizes = [(h, w) for h in range(1, 27) for w in (h, 15)]
    got = page.run(
        """const set = (s, n) => { const b = document.querySelector(`[data-symbol=${s}]`); b.value = n;
           b.dispatchEvent(new Event('input')); };
           return arguments[0].map(([h, w]) => { set('H', h); set('W', w);
             return document.querySelector('#verdict').dataset.layer; });""",
        sizes,
    )
    want = [verdict(net, name, h, w) for h, w in sizes]
    assert dict(zip(sizes, got, strict=True)) == dict(zip(sizes, want, strict=True))
    assert len(set(got)) > 1 or net.path != "<text>"


def test_it_explains_what_does_not_work(shown):
    page = shown("unet", unet())
    page.type("[data-symbol=H]", 15)
    assert page.text("#verdict") == (
        "sum would put together u1 with 14 rows and c1 with 13. "
        "H = 10, W = 10 is the smallest that works, but not every larger size does."
    )
    assert page.run("return document.querySelector('.layer.fails').dataset.row") == "4"
    assert outputs(page)["sum"] == "–"
    page.type("[data-symbol=H]", 2)
    assert page.text("#verdict").startswith(
        "c1 would leave no rows of the 2 that data has: the window 3x3 does not fit."
    )
    page.type("[data-symbol=H]", "1.5")
    assert page.text("#verdict") == "H has to be a whole number from 1 to 100000."
    assert "partly of zeros" not in page.text("#verdict")
    page = shown("strided", net_of(f"Convolution c1 data {conv('kernel_size: 7 stride: 4')}", h=20, w=20))
    page.type("[data-symbol=H]", 4)
    assert "a window of 7, and only 4 rows of data" in page.text("#verdict")
    assert "partly of zeros" in page.text("#verdict")
    page.type("[data-symbol=H]", 3)
    assert "would leave no rows" in page.text("#verdict")
    page = shown("offset", offset())
    page.type("[data-symbol=W]", 6)
    assert "1 more columns of up than there are, to begin at 7 and cut to the size of small." in page.text(
        "#verdict"
    )


def test_a_click_shows_a_layer(voc8s):
    voc8s.one("#graph [data-row='32'] .box").click()
    assert voc8s.text("#layer h3") == "fc6"
    facts = dict(zip(voc8s.texts("#layer dt"), voc8s.texts("#layer dd"), strict=True))
    assert facts["reads"] == "pool5 1 × 512 × 22 × 22"
    assert facts["makes"] == "fc6 1 × 4096 × 16 × 16"
    assert facts["rows"] == "ceil((H+6)/32)"
    assert facts["parameters"] == "102,764,544 (392.0 MiB); lr_mult 1, 2"
    assert facts["arithmetic"] == "26.3 GMAC, 14.5 % of the net"
    assert facts["in ONNX"] == "Conv"  # no rewrite concerns it
    assert "404 × 404 pixels" in voc8s.text("#layer .field")
    assert "kernel_size: 7" in voc8s.text("#layer pre")
    assert voc8s.run("return document.querySelector('#graph [aria-pressed=true]').dataset.row") == "32"
    voc8s.one("#layer button.link").click()
    assert voc8s.text("#layer h3") == "pool5"


def test_keys_go_through_the_graph(voc8s):
    voc8s.one("#graph [data-row='1'] .box").click()
    voc8s.press("#graph [data-row='1']", "\ue015")  # down
    assert voc8s.text("#layer h3") == "relu1_1"
    assert voc8s.run("return document.activeElement.dataset.row") == "2"
    voc8s.press("#graph [data-row='2']", "\ue010")  # end
    assert voc8s.text("#layer h3") == "score"
    assert voc8s.run("return document.querySelectorAll('#graph [tabindex=\"0\"]').length") == 1


def test_the_receptive_field_is_to_scale(voc8s):
    voc8s.run("location.hash = '#score_pool4c'")
    voc8s.wait("return document.querySelector('#layer h3').textContent === 'score_pool4c'")
    box = """const seen = document.querySelector('#layer .seen');
             return ['x', 'y', 'width', 'height'].map((name) => +seen.getAttribute(name))"""
    middle = -11.5 + 16 * 16  # of element 16 of 34
    assert voc8s.run(box) == [middle - 50, middle - 50, 100, 100]
    voc8s.press("#layer .field svg", "\ue014")  # right
    assert voc8s.run(box)[0] == middle - 50 + 16
    assert voc8s.text("#layer .crops").count("5") >= 4


def test_the_table_sorts_and_filters(voc8s):
    head = "#table th:nth-child(7) button"
    assert voc8s.text(head) == "parameters"
    voc8s.one(head).click()
    voc8s.one(head).click()
    assert voc8s.texts("#table tbody td:nth-child(2)")[:3] == ["fc6", "fc7", "conv4_2"]
    assert voc8s.run("return document.querySelector('#table th:nth-child(7)').ariaSort") == "descending"
    voc8s.type("#filter", "pool4")
    names = voc8s.run(
        "const rows = [...document.querySelectorAll('#table tbody tr:not([hidden])')];"
        "return rows.map((row) => row.cells[1].textContent)"
    )
    assert set(names) == {
        "pool4",
        "conv5_1",
        "score_pool4",
        "score_pool4c",
        "fuse_pool4",
        "upscore_pool4",
        "score_pool3c",
        "fuse_pool3",
    }
    voc8s.type("#types", "Crop")
    assert voc8s.text("#found") == "2 of 47 layers"
    voc8s.one("#table tbody tr:not([hidden]) button").click()
    assert voc8s.text("#layer h3") in ("score_pool4c", "score_pool3c")


def test_crops_are_drawn(voc8s):
    assert voc8s.texts("#crops h3") == ["score_pool4c", "score_pool3c", "score"]
    kept = voc8s.run("const r = document.querySelectorAll('#crops figure')[2].querySelectorAll('rect');"
                     "return [...r].map((e) => e.width.baseVal.value)")  # fmt: skip
    assert kept[1] / kept[0] == pytest.approx(500 / 568)
    voc8s.type("[data-symbol=H]", 100)
    assert "31 cut before, 53 behind" in voc8s.text("#crops figure:nth-child(3)")


def test_fcn8s_needs_no_sideways_scrolling(voc8s):
    assert voc8s.run("return document.documentElement.scrollWidth <= innerWidth")
    assert voc8s.run("const p = document.querySelector('.pane'); return p.scrollWidth <= p.clientWidth")
    assert voc8s.run("return document.querySelector('#graph').getBoundingClientRect().width / "
                     "document.querySelector('#graph').viewBox.baseVal.width") > 0.9  # fmt: skip


def test_at_1280_nothing_scrolls_sideways_not_even_the_table(voc8s):
    with voc8s.seen(1280):
        for part in (".pane", ".flush", "html"):
            wide = f"const p = document.querySelector('{part}'); return p.scrollWidth <= p.clientWidth"
            assert voc8s.run(wide), part


def test_on_a_phone(voc8s):
    """The graph fits, and what is chosen in it is told beside it."""
    with voc8s.seen(390, 844):
        for part in (".pane", "html"):
            wide = f"const p = document.querySelector('{part}'); return p.scrollWidth <= p.clientWidth"
            assert voc8s.run(wide), part
        voc8s.run("document.querySelector('.pane').scrollIntoView()")
        voc8s.one("#graph [data-row='3'] .box").click()
        assert voc8s.text("#layer h3") == "conv1_2"
        top = voc8s.run("return document.querySelector('#layer').getBoundingClientRect().top")
        assert top < 844 * 0.7
        assert voc8s.run("return document.querySelector('#graph .name').getBoundingClientRect().height") > 8


def test_a_wide_graph_stays_readable(shown):
    """It scrolls in its pane; the page does not."""
    heads = [f"Convolution h{i} data {conv('kernel_size: 1')}" for i in range(20)]
    page = shown("wide", net_of(*heads, f"Concat all {','.join(f'h{i}' for i in range(20))}"))
    shown = "const g = document.querySelector('#graph'), r = g.getBoundingClientRect();"
    assert page.run(f"{shown} return r.width / g.viewBox.baseVal.width") >= 0.59
    assert page.run("return document.documentElement.scrollWidth <= innerWidth")
    page.run(
        "document.querySelector('#graph [data-row=\"1\"]').dispatchEvent(new Event('click', {bubbles: true}))"
    )
    page.press("#graph [data-row='1']", "\ue010")  # end
    assert page.run("const b = document.querySelector('#graph [aria-pressed=true]').getBoundingClientRect(),"
                    "p = document.querySelector('.pane').getBoundingClientRect();"
                    "return b.left >= p.left && b.right <= p.right")  # fmt: skip


def test_rewrites_are_told(voc8s):
    voc8s.run("location.hash = '#upscore8'")
    voc8s.wait("return document.querySelector('#layer h3').textContent === 'upscore8'")
    facts = dict(zip(voc8s.texts("#layer dt"), voc8s.texts("#layer dd"), strict=True))
    assert facts["in ONNX"].startswith("ConvTranspose")
    assert "group-deconvolution (group: 1 → 21): A Deconvolution whose" in facts["in ONNX"]
    assert "crop-in-deconvolution (pads: 0 → 15): What a Crop" in facts["in ONNX"]
    voc8s.run("location.hash = '#score'")
    voc8s.wait("return document.querySelector('#layer h3').textContent === 'score'")
    assert "Without rewrites: Shape ×2, Add ×2, Concat, Slice." in voc8s.text("#layer dl")


def test_a_screen_reader_can_name_everything(voc8s):
    assert voc8s.unnamed() == []
    voc8s.run("document.querySelector('#filter').parentNode.replaceWith(document.querySelector('#filter'))")
    voc8s.run("document.querySelector('#filter').removeAttribute('placeholder')")
    assert voc8s.unnamed() == ["searchbox"]  # this test can fail


def test_the_systems_wish_is_followed(voc8s):
    """Until somebody chooses."""
    colour = "return getComputedStyle(document.body).backgroundColor"
    voc8s.run("localStorage.clear(); location.reload()")
    with voc8s.seen(prefers_color_scheme="light"):
        light = voc8s.run(colour)
        assert voc8s.text("[data-do=theme]") == "Dark"
    with voc8s.seen(prefers_color_scheme="dark"):
        assert voc8s.run(colour) != light
        assert voc8s.text("[data-do=theme]") == "Light"
        voc8s.one("[data-do=theme]").click()
        assert voc8s.run(colour) == light
    voc8s.run("localStorage.clear()")


def test_light_and_dark(voc8s):
    colour = "return getComputedStyle(document.body).backgroundColor"
    before = voc8s.run(colour)
    voc8s.one("[data-do=theme]").click()
    assert voc8s.run(colour) != before
    voc8s.one("[data-do=theme]").click()
    assert voc8s.run(colour) == before


def test_print_shows_everything(voc8s):
    voc8s.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        assert voc8s.run(
            "const p = document.querySelector('.pane'); return p.scrollHeight <= p.clientHeight + 1"
        )
        assert not voc8s.one(".filters").is_displayed()
    finally:
        voc8s.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_weights_are_described(shown):
    net = Net(NETS / "fcn32s-thin.prototxt", NETS / "fcn32s-thin.caffemodel")
    page = shown("weights", net, "#conv1_1")
    weights = net.params["conv1_1"][0].data
    assert f"From {weights.min():.4g} to {weights.max():.4g}" in page.text("#layer")
    assert page.run("return document.querySelectorAll('#layer .bars')[0].children.length") == 40


def test_names_from_files_stay_text(shown):
    bad = "<img src=x onerror=window.hit=1>"
    layer = (
        f'layer {{ name: "{bad}" type: "ReLU" bottom: "data" top: "</script><script>window.hit=1</script>" }}'
    )
    shape = "dim: 1 dim: 1 dim: 8 dim: 8"
    data = f'layer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ {shape} }} }} }}'
    page = shown("hostile", Net(f'name: "{bad}"\n{data}\n{layer}'))
    page.one("#graph [data-row='1'] .box").click()
    assert page.text("#layer h3") == bad
    assert page.text("h1") == bad
    assert page.run("return window.hit") is None
    assert page.complaints() == []
