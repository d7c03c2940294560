"""The page in a real browser: served, from a static server, and by a double-click."""

import csv
import json

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from tests.deploy.page.chromium import widths
from tests.deploy.page.conftest import serving, static_server, write_phantom

pytestmark = [pytest.mark.browser, pytest.mark.onnx]
WAYS = ("served", "static", "double-click")


@pytest.fixture(params=WAYS)
def page(request, browser, addresses):
    """The page, empty; whatever a test does, its console stays clean."""
    browser.forget_downloads()
    browser.open(addresses[request.param])
    browser.way = request.param
    yield browser
    assert browser.console() == []


@pytest.fixture
def served(browser, addresses):
    """One of them, for what has nothing to do with where the model runs."""
    browser.forget_downloads()
    browser.open(addresses["served"])
    yield browser
    assert browser.console() == []


@pytest.fixture
def picture(tmp_path):
    return write_phantom(tmp_path / "lesion.png")


def test_a_dropped_picture_gets_the_mask_of_predict_and_its_numbers(page, predictor, picture):
    [found] = page.segment(picture)
    expected = predictor(picture)
    assert found["state"] == "done"
    assert 0.05 < (expected.mask > 0).mean() < 0.95  # a mask that could differ
    # the network's sums are in another order; nothing else differs
    assert (page.mask() == expected.mask).mean() >= 0.999
    for row, known in zip(found["rows"], expected.measurements, strict=True):
        assert row["class"] == known["class"]
        assert row["area_px"] == pytest.approx(known["area_px"], rel=2e-3)
        assert row["diameter_px"] == pytest.approx(known["diameter_px"], rel=2e-3)
    assert f"{found['rows'][0]['area_px']:,}" in page.text("results")


def test_what_is_drawn_is_the_mask(served, picture):
    """Tint at 100 %, no outline: the class's colour inside, the picture outside."""
    served.segment(picture)
    drawn = served.driver.execute_async_script(
        "const [done] = arguments, {app, results} = hymunet, item = app.items[0];"
        "results.overlayPng(item, {opacity: 1, outline: false})"
        ".then((blob) => createImageBitmap(blob))"
        ".then((bitmap) => done(Array.from(hymunet.pictures.pixels(bitmap, 3))))"
    )
    drawn = np.array(drawn).reshape(96, 128, 3)
    mask = served.mask()
    assert (drawn[mask == 1] == (86, 180, 233)).all()
    assert (drawn[mask == 2] == (230, 159, 0)).all()
    original = np.asarray(Image.open(picture))
    assert (drawn[mask == 0] == original[mask == 0]).all()


def test_the_threshold_moves_the_mask_and_what_is_read_out(page, predictor, picture):
    [before] = page.segment(picture)
    page.run(
        "const slider = document.getElementById('threshold'); slider.value = 0.3;"
        "slider.dispatchEvent(new Event('input')); slider.dispatchEvent(new Event('change'))"
    )
    page.wait(lambda: page.run("return hymunet.app.current.cut") == 0.3)
    [after] = page.items()
    assert after["rows"][0]["area_px"] > before["rows"][0]["area_px"]
    expected = type(predictor)(predictor.network, info=predictor.info, threshold=0.3)(picture)
    # the server sends probabilities in 8 bits: only pixels within 1/255 of the threshold may differ
    near = np.abs(expected.probability - 0.3).min(axis=0) < 1 / 255
    differ = page.mask() != expected.mask
    assert not differ[~near].any() or differ.mean() < 1e-3
    assert page.text("threshold-value") == "0.30"
    page.click("threshold-reset")
    page.wait(lambda: page.run("return hymunet.app.current.cut") == 0.437)
    assert page.items() == [before]


def test_downloads_hold_what_predict_writes(page, predictor, picture):
    page.segment(picture)
    expected = predictor(picture)
    for button in ("save-mask", "save-json", "save-csv", "save-overlay"):
        page.click(button)
    mask = Image.open(page.saved("lesion_mask.png"))
    assert mask.mode == "L"
    assert (np.asarray(mask) == expected.mask).mean() >= 0.999
    told = json.loads(page.saved("measurements.json").read_text())
    assert [row["class"] for row in told["measurements"]] == ["lesion", "core"]
    assert told["threshold"] == 0.437
    assert told["postprocess"] == predictor.postprocess.to_dict()
    with open(page.saved("measurements.csv"), newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["area_px"]) for row in rows] == [m["area_px"] for m in told["measurements"]]
    overlay = Image.open(page.saved("lesion_overlay.png"))
    assert overlay.size == (128, 96)


def test_photos_are_turned_upright_as_predict_turns_them(page, predictor, tmp_path):
    turned = Image.Exif()
    turned[0x0112] = 6  # the camera was held upright: a quarter turn to the right
    path = write_phantom(tmp_path / "photo.png", exif=turned)
    [found] = page.segment(path)
    expected = predictor(path)
    assert (found["width"], found["height"]) == (96, 128)
    assert page.run("return hymunet.app.current.bitmap?.width") == 96  # what is shown, too
    assert expected.mask.shape == (128, 96)
    assert (page.mask() == expected.mask).mean() >= 0.999


def test_transparent_and_grey_pictures_are_read_as_predict_reads_them(page, predictor, tmp_path):
    base = Image.open(write_phantom(tmp_path / "colour.png"))
    base.convert("L").save(tmp_path / "grey.png")
    clear = base.convert("RGBA")
    clear.putalpha(Image.fromarray(np.tile(np.arange(128, dtype=np.uint8) * 2, (96, 1))))
    clear.save(tmp_path / "clear.png")
    paths = [tmp_path / "grey.png", tmp_path / "clear.png"]
    page.segment(*paths)
    for i, path in enumerate(paths):
        assert (page.mask(i) == predictor(path).mask).mean() >= 0.999


def test_several_pictures_one_of_them_broken(page, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    one = write_phantom(tmp_path / "one.png")
    two = write_phantom(tmp_path / "two.png", seed=2)
    found = page.segment(one, tmp_path / "broken.png", two)
    assert [item["state"] for item in found] == ["done", "failed", "done"]
    assert "expected PNG" in found[1]["error"]
    if page.way == "served":
        page.console()  # Chromium itself notes each answer that is an error
    page.keys("\ue014")  # the right arrow: the next picture
    assert page.text("title") == "broken.png"
    assert "expected PNG" in page.text("stage-message")
    page.keys("\ue014")
    assert page.text("title") == "two.png"
    page.click("save-json")
    told = json.loads(page.saved("measurements.json").read_text())
    assert {row["image"] for row in told["measurements"]} == {"one.png", "two.png"}
    assert list(told["failed"]) == ["broken.png"]


def test_a_known_length_gives_millimetres(served, picture):
    [before] = served.segment(picture)
    served.keys("r")
    scale, left, top = served.run("const v = hymunet.app.view; return [v.scale, v.left, v.top]")
    box = served.run("return document.getElementById('canvas').getBoundingClientRect().toJSON()")
    for kind, x in (("mousePressed", 20), ("mouseMoved", 60), ("mouseReleased", 60)):
        served.command(
            "Input.dispatchMouseEvent",
            type=kind,
            x=box["left"] + left + x * scale,
            y=box["top"] + top + 40 * scale,
            button="left",
            buttons=1,
            clickCount=1,
        )
    # 40 pixels are 10 mm; the form has the focus
    served.driver.switch_to.active_element.send_keys("10\n")
    [after] = served.items()
    area = before["rows"][0]["area_px"]
    assert after["rows"][0]["area_mm2"] == pytest.approx(area / 16, rel=0.02)
    assert "mm²" in served.text("results")


def test_ones_own_mask_is_compared(served, picture, tmp_path):
    served.segment(picture)
    mask = served.mask()
    own = np.where(ndimage.binary_dilation(mask > 0), np.maximum(mask, 1), 0).astype(np.uint8)
    Image.fromarray(own).save(tmp_path / "own.png")
    served.driver.find_element("id", "mask-file").send_keys(str(tmp_path / "own.png"))
    served.wait(lambda: served.items()[0]["dice"])
    a, b = mask > 0, own > 0
    expected = [2 * (a & b).sum() / (a.sum() + b.sum()), 1.0]
    assert served.items()[0]["dice"] == pytest.approx(expected)
    assert f"{expected[0]:.3f}" in served.text("results")
    Image.fromarray(own[:50]).save(tmp_path / "small.png")
    served.driver.find_element("id", "mask-file").send_keys(str(tmp_path / "small.png"))
    served.wait(lambda: "same size" in served.text("compare-state"))


def test_keys_do_what_the_help_says_and_can_be_switched_off(served, picture):
    served.segment(picture)
    served.keys("c")
    assert not served.run("return hymunet.app.view.shown.outline")
    served.keys("]")
    served.wait(lambda: served.run("return hymunet.app.current.cut") == 0.45)
    served.keys("+")
    assert not served.run("return hymunet.app.view.fitted")
    served.keys("0")
    assert served.run("return hymunet.app.view.fitted")
    served.keys("?")
    assert served.run("return document.getElementById('help').open")
    served.click("keys-on")
    served.keys("\ue00c")  # escape
    served.keys("c")
    assert not served.run("return hymunet.app.view.shown.outline")


def test_results_are_read_out(served, picture):
    [found] = served.segment(picture)
    said = served.run("return document.getElementById('live').textContent")
    assert said.startswith(f"lesion.png: lesion: area {found['rows'][0]['area_px']:,} pixels")
    assert served.run("return document.getElementById('canvas').getAttribute('aria-label')") == said


def test_nothing_is_wider_than_a_phone(served, picture):
    try:
        for _, width, height, mobile in widths():
            served.size(width, height, mobile)
            if not served.items():
                served.segment(picture)
            assert served.run("return document.documentElement.scrollWidth") <= width
    finally:
        served.size(1280, 800)


def test_two_fingers_zoom(served, picture):
    served.size(390, 844, mobile=True)
    try:
        served.segment(picture)
        before = served.run("return hymunet.app.view.scale")
        for kind, apart in (("touchStart", 40), ("touchMove", 60), ("touchMove", 80)):
            points = [{"x": 195 - apart, "y": 300, "id": 0}, {"x": 195 + apart, "y": 300, "id": 1}]
            served.command("Input.dispatchTouchEvent", type=kind, touchPoints=points)
        served.command("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
        assert served.run("return hymunet.app.view.scale") == pytest.approx(2 * before, rel=0.05)
    finally:
        served.size(1280, 800)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize(("name", "width", "height", "mobile"), widths(), ids=lambda v: str(v))
def test_axe_finds_nothing_serious(served, axe, picture, name, width, height, mobile, dark):
    served.size(width, height, mobile, dark)
    try:
        for prepare in (lambda: None, lambda: served.segment(picture), lambda: served.keys("?")):
            prepare()
            served.command("Runtime.evaluate", expression=axe)  # as a tester's extension would
            found = served.driver.execute_async_script(
                "const [done] = arguments; axe.run().then((all) => done(all.violations.map("
                "({id, impact, nodes}) => [id, impact, nodes.map(({html}) => html)])))"
            )
            assert [one for one in found if one[1] in ("serious", "critical")] == []
    finally:
        served.size(1280, 800)


def test_the_static_page_works_with_the_network_cut(browser, site, predictor, picture):
    with static_server(site) as (address, _):
        browser.open(address)
    # the server is gone, and the browser is told that there is no network at all
    network = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    browser.command("Network.enable")
    browser.command("Network.emulateNetworkConditions", offline=True, **network)
    try:
        [found] = browser.segment(picture)
        assert found["state"] == "done"
        assert (browser.mask() == predictor(picture).mask).mean() >= 0.999
    finally:
        browser.command("Network.emulateNetworkConditions", offline=False, **network)
        browser.command("Network.disable")


def test_the_static_page_may_fetch_nothing(browser, addresses):
    """Its policy refuses even its own server: no picture can leave the browser."""
    browser.open(addresses["static"])
    refused = browser.driver.execute_async_script(
        "fetch('index.html').then(() => arguments[0](false), () => arguments[0](true))"
    )
    assert refused
    assert any("Content Security Policy" in message for message in browser.console())


def test_a_server_that_asks_for_a_token_gets_it(browser, model_file, picture):
    from selenium.common.exceptions import NoAlertPresentException

    def question():
        try:
            return browser.driver.switch_to.alert
        except NoAlertPresentException:
            return None

    with serving(model_file, token="let me in") as address:
        browser.driver.get(address)
        asked = browser.wait(question)
        asked.send_keys("let me in")
        asked.accept()
        browser.wait(lambda: browser.run("return document.body.dataset.ready === 'yes'"))
        [found] = browser.segment(picture)
    assert found["state"] == "done"


def test_a_server_that_is_gone_is_said(browser, model_file, picture):
    with serving(model_file) as address:
        browser.open(address)
    [found] = browser.segment(picture)
    assert "hymunet serve" in found["error"]


def test_a_folder_copied_in_part_is_said(browser, site, tmp_path):
    import shutil

    folder = shutil.copytree(site, tmp_path / "part")
    (folder / "page" / "model.js").unlink()
    browser.driver.get((folder / "index.html").as_uri())
    browser.wait(lambda: "copy the whole folder" in browser.text("engine-state"))


def test_structures_that_exclude_each_other_have_no_threshold(browser, tmp_path):
    import torch

    from hymunet import HyMUNet, Predictor
    from hymunet.network.model_file import save_model
    from tests.deploy.page.conftest import TOY

    torch.manual_seed(0)
    network = HyMUNet(3, 3, activation="softmax", **TOY).eval()
    with torch.no_grad():
        network.head.logits.bias.zero_()
    info = {"classes": ["liver", "spleen"], "postprocess": {"spleen": ["fill_holes"]}}
    path = save_model(tmp_path / "organs.safetensors", network, info)
    predictor = Predictor(path)
    picture = write_phantom(tmp_path / "organs.png")
    with serving(path) as address:
        browser.open(address)
        [found] = browser.segment(picture)
    expected = predictor(picture)
    assert len(np.unique(expected.mask)) > 1
    assert np.array_equal(browser.mask(), expected.mask)
    assert [row["area_px"] for row in found["rows"]] == [
        row["area_px"] for row in expected.measurements
    ]
    assert browser.run("return document.getElementById('threshold-row').hidden")
    browser.keys("]")
    assert np.array_equal(browser.mask(), expected.mask)
