"""The error split in the report: its figures, and what a click on a part does in a browser."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import box, make_set, names_of, report_data, wide, write

import utils
from eval import main as evaluate
from visualization import main

SHAPE = (40, 48)
TWO = box(10, 13, 2, 2, SHAPE, onto=box(10, 10, 2, 2, SHAPE))  # two targets of 2x2, a column between
ONE = box(20, 20, 2, 2, SHAPE)
EMPTY = np.zeros(SHAPE, np.uint8)
MASKS = {"merged": TWO, "right": ONE, "missed": ONE, "false": EMPTY}
OURS = {
    "merged": box(10, 10, 2, 5, SHAPE),  # over both: IoU 4/10, 4 px on the other, 2 on none
    "right": ONE,
    "missed": EMPTY,
    "false": box(30, 30, 1, 3, SHAPE),
}
# Of 2 pairs: seg IoU (0.4 + 1) / 2. Pairs, false components, missed, sharing targets: 2, 1, 1, 1.
OURS_SPLIT = {
    **{"seg_iou": 0.7, "seg_mrg_err": 0.2, "seg_itf_err": 0.1, "seg_pcp_err": 0.0},
    **{"loc_iou": 0.4, "loc_itf_err": 0.2, "loc_pcp_err": 0.2, "loc_m2s_err": 0.0, "loc_s2m_err": 0.2},
}


@pytest.fixture
def page(tmp_path) -> Path:
    """The report of OURS."""
    root = make_set(tmp_path / "data/tiny", names=["t", *MASKS], train=1, shape=SHAPE)
    for name, mask in MASKS.items():
        write(root / f"masks/{name}.png", mask)
        write(Path(f"results/tiny/{name}.png"), OURS[name])
    utils.main(["--dataset", "tiny", "--workers", "1"])
    evaluate(["--dataset", "tiny", "--protocol", "all", "--workers", "1"])
    main(["--dataset", "tiny", "--workers", "1"])
    return Path("results/tiny/report/index.html")


def test_the_report_has_the_metrics_of_eval(page):
    split = report_data(page)["split"]
    written = json.loads(Path("results/tiny/metrics.json").read_text())["hiou"]
    for key, value in OURS_SPLIT.items():
        assert split[key] == pytest.approx(value, abs=1e-12), key
        assert written[key] == split[key]
    assert split["hiou"] == pytest.approx(0.28) == written["hiou"]
    text = page.read_text()
    assert text.index("<th scope=row>standard</th>") < text.index("<th scope=row>hiou</th>")
    low, high = written["interval"]["hiou"]
    assert f'28.00<br><small class="dim">({100 * low:.2f}–{100 * high:.2f})</small>' in text


def test_the_images_in_which_a_part_occurs(page):
    parts = {image["name"]: image["parts"] for image in report_data(page)["images"]}
    assert parts["merged"] == ["seg_iou", "seg_mrg_err", "seg_itf_err", "loc_iou", "loc_s2m_err"]
    assert parts["right"] == ["seg_iou", "loc_iou"]
    assert parts["missed"] == ["loc_pcp_err"] and parts["false"] == ["loc_itf_err"]


def segment(browser, label: str):
    """The part of a bar."""
    (node,) = browser.find_elements("css selector", f'.stack button[aria-label^="{label}:"]')
    return node


@pytest.mark.parametrize("width", [400, 1400])
def test_a_click_on_a_part_filters_the_gallery(page, browser, width):
    wide(browser, width)
    browser.get(page.resolve().as_uri())
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert bool(browser.find_elements("css selector", ".scrolls")) == (width == 400)
    part = segment(browser, "missed targets")
    assert "20.00 %" in part.get_attribute("aria-label") and len(names_of(browser)) == 4
    part.click()
    assert names_of(browser) == ["missed"] and part.get_attribute("aria-pressed") == "true"
    note = browser.find_element("id", "part-note").text
    assert note.startswith("missed targets: 20.00 %") and "in 1 of 4 images" in note
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    segment(browser, "loc IoU").click()  # another one takes its place
    assert set(names_of(browser)) == {"merged", "right"}
    assert part.get_attribute("aria-pressed") == "false"
    browser.find_element("id", "has-false").click()  # beside the other filters
    assert names_of(browser) == []
    browser.find_element("id", "has-false").click()
    segment(browser, "loc IoU").click()
    assert len(names_of(browser)) == 4 and not browser.find_element("id", "part-note").text
    assert [line["message"] for line in browser.get_log("browser")] == []


def test_bars_lie_as_the_figures_say(page, browser):
    browser.get(page.resolve().as_uri())
    stacks = browser.find_elements("css selector", ".stack")
    assert len(stacks) == 2
    widths = [b.rect["width"] for b in stacks[0].find_elements("css selector", "button")]
    assert [w / sum(widths) for w in widths] == pytest.approx([0.7, 0.2, 0.1], abs=0.01)
    browser.find_element("css selector", ".split td button").click()  # the figure below the bar
    assert segment(browser, "seg IoU").get_attribute("aria-pressed") == "true"
    clear = browser.find_element("id", "part-clear")
    clear.click()
    assert len(names_of(browser)) == 4 and not clear.is_displayed()
