"""The report, as data and in a real browser."""

import base64
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import make_set, names_of, picture, report_data, target_mask, wide, write

from eval import main as evaluate_main
from ismallnet.evaluation.metrics import PD_FA_THRESHOLDS
from ismallnet.evaluation.protocols import evaluate
from ismallnet.report import page as pages
from ismallnet.report.outcome import Layers, outcome
from ismallnet.report.page import common, difference, thresholds
from visualization import main

HOSTILE = "x'><img src=q onerror=alert(1)> %%TABLE%%"


def entry(order: int, name: str, layers: Layers) -> pages.Entry:
    return pages.entry_of(order, name, layers, outcome(layers.prediction, layers.mask))


def scene(seed: int, hits: bool = True, false: bool = False) -> Layers:
    """Probabilities of all sizes."""
    rng = np.random.default_rng(seed)
    mask = target_mask()
    pred = rng.integers(0, 100, mask.shape).astype(np.uint8)
    if hits:
        pred[10:13, 12:16] = rng.integers(128, 256, (3, 4))
    if false:
        pred[30:32, 40:43] = 200
    image = np.repeat(picture(seed)[..., None], 3, 2)
    return Layers(image, mask, mask // 2, mask // 3, pred)


SCENES = [scene(0), scene(1, hits=False), scene(2, false=True), scene(3, hits=False, false=True)]


def test_thresholds_are_the_figures_of_the_maps_at_these_thresholds():
    points = thresholds([entry(0, "x", layers).counts for layers in SCENES])
    assert [point["threshold"] for point in points] == list(PD_FA_THRESHOLDS)
    for point in points:
        pairs = [(np.where(s[4] >= point["threshold"], 255, 0).astype(np.uint8), s[1]) for s in SCENES]
        expected = evaluate(pairs)
        for key in ("iou", "niou", "pd", "fa"):
            assert point[key] == pytest.approx(expected[key], abs=1e-12), (point["threshold"], key)


def test_an_entry_by_hand():
    page = entry(7, "name", SCENES[2]).page
    assert (page["id"], page["miss"], page["false"]) == ("00007", 0, 1)
    (target,) = page["targets"]
    assert target["area"] == 12 and target["hit"] and target["snr"] > 5
    assert page["iou"] == pytest.approx(12 / (12 + 6))


def test_difference_by_hand():
    image, mask, _, _, pred = scene(0, false=True)
    pred[10, 12] = 0
    shown = difference(image, pred, mask)
    assert shown[10, 12].tolist() == [255, 70, 70] and shown[11, 13].tolist() == [60, 220, 90]
    assert shown[30, 40].tolist() == [255, 215, 0]
    assert np.array_equal(shown[20, 20], image[20, 20] // 2)


def test_the_window_lies_on_the_region_and_inside_the_image():
    rng = np.random.default_rng(0)
    grey, pred = rng.integers(0, 255, (2, 90, 100)).astype(np.uint8)
    for y, x in ((0, 0), (50, 60), (89, 99)):
        found = common(0, "x", (y, x), image=grey, prediction=pred)["window"]
        side = found["side"]
        pixels = np.frombuffer(base64.b64decode(found["image"]), np.uint8).reshape(-1, side)
        assert pixels.shape == (40, 40)
        top, left = min(max(y - 20, 0), 50), min(max(x - 20, 0), 60)
        assert np.array_equal(pixels, grey[top : top + 40, left : left + 40])
    small = np.zeros((5, 7), np.uint8)
    assert common(0, "x", (2, 3), prediction=small)["window"]["side"] == 7


# --- the page --------------------------------------------------------------------------------------


@pytest.fixture
def page(tmp_path) -> Path:
    names = ["t0", "t1", "both", "miss", "false", HOSTILE.replace("/", "")]
    root = make_set(tmp_path / "data" / "tiny", names=names, train=2)
    maps = Path("results/tiny")
    for name, layers in zip(names[2:], (SCENES[3], SCENES[1], SCENES[2], SCENES[0])):
        for kind, pixels in zip(("mask", "interior", "boundary"), layers[1:4]):
            write(root / kind / f"{name}.png", pixels)
        write(maps / f"{name}.png", layers[4])
    from utils import main as decouple_main

    decouple_main(["--dataset", "tiny", "--force"])
    evaluate_main(["--dataset", "tiny", "--protocol", "all", "--workers", "1"])
    main(["--dataset", "tiny", "--workers", "1"])
    return maps / "report" / "index.html"


def test_the_page_is_one_folder_without_addresses_elsewhere(page):
    text = page.read_text()
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
    assert len(list((page.parent / "images").glob("*.png"))) == 4 * 6
    names = [image["name"] for image in report_data(page)["images"]]
    assert names == ["both", "miss", "false", HOSTILE] and "<img src=q" not in text
    assert "4 images, 4 targets" in text
    difference_picture = cv2.imread(str(page.parent / "images" / "00000_difference.png"))
    assert difference_picture.shape == (40, 48, 3)


def test_pictures_of_a_longer_list_before_do_not_stay(page):
    write(Path("data/tiny/50_50/test.txt"), "both\nmiss\n")
    main(["--dataset", "tiny", "--workers", "1"])
    assert len(list((page.parent / "images").glob("*.png"))) == 2 * 6


def text_of(browser, selector: str) -> str:
    return browser.find_element("css selector", selector).text


def change(browser, name: str, value) -> None:
    """Sets the slider or what is sorted by."""
    script = "const s = document.getElementById(arguments[0]); s.value = arguments[1];"
    for event in ("input", "change"):
        script += f"s.dispatchEvent(new Event('{event}'));"
    browser.execute_script(script, name, value)


def test_in_a_browser(page, browser):
    browser.get(page.resolve().as_uri())
    assert names_of(browser)[0] in ("both", "miss") and len(names_of(browser)) == 4

    # the slider shows what eval.py gives for that threshold
    figures = json.loads(Path("results/tiny/metrics.json").read_text())["standard"]
    assert text_of(browser, "[data-key=iou]") == f"{100 * figures['iou']:.2f}"
    pairs = [(s[4], s[1]) for s in (SCENES[3], SCENES[1], SCENES[2], SCENES[0])]
    for position in (0, 9, 30):
        level = PD_FA_THRESHOLDS[position]
        change(browser, "threshold", position)
        expected = evaluate([(np.where(p >= level, 255, 0).astype(np.uint8), m) for p, m in pairs])
        shown = [text_of(browser, f"[data-key={key}]") for key in ("iou", "niou", "pd", "fa")]
        values = [100 * expected[key] for key in ("iou", "niou", "pd")] + [1e6 * expected["fa"]]
        assert [float(text) for text in shown] == pytest.approx(values, abs=0.0051)  # two digits

    # sorting and filtering
    change(browser, "sort", "order")
    assert names_of(browser) == ["both", "miss", "false", HOSTILE]
    change(browser, "sort", "-iou")
    assert names_of(browser)[0] == HOSTILE
    browser.find_element("id", "has-miss").click()
    assert set(names_of(browser)) == {"both", "miss"}
    browser.find_element("id", "has-false").click()
    assert names_of(browser) == ["both"]

    # layers, by click and by key; the dialog
    browser.find_elements("css selector", ".layers button")[4].click()
    card = browser.find_element("css selector", ".card")
    assert card.find_element("css selector", "img").get_attribute("alt") == "both, prediction"
    browser.find_element("css selector", "body").send_keys("2")
    assert card.find_element("css selector", "img").get_attribute("src").endswith("00000_mask.png")
    card.find_element("css selector", ".open").click()
    assert text_of(browser, "#zoom-title") == "both" and "1 missed" in text_of(browser, "#zoom-text")
    drawn = "const c = document.getElementById(arguments[0]); return new Set(c.getContext('2d')"
    drawn += ".getImageData(0, 0, c.width, c.height).data).size"
    assert browser.execute_script(drawn, "surface-prediction") > 20
    browser.find_element("id", "close").click()
    for name in ("has-miss", "has-false"):
        browser.find_element("id", name).click()
    change(browser, "sort", "order")
    browser.find_element("css selector", ".card .open").click()
    browser.find_element("id", "after").click()
    assert text_of(browser, "#zoom-title") == "miss"

    # a curve in each of the first plots; no scripts from names, no errors, nothing wider than a narrow
    # window
    plots = browser.find_elements("css selector", "#plots figure")
    assert [len(plot.find_elements("css selector", ".curve")) for plot in plots] == [1, 1, 1, 0, 0]
    assert [line["message"] for line in browser.get_log("browser")] == []
    browser.find_element("id", "close").click()
    wide(browser, 360)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 360
