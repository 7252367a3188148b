"""The report of frames of one's own."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import fails, names_of, picture, report_data, target_mask, write

from ismallnet.report import page
from visualization import main

LAYERS = page.FRAME_LAYERS
HOSTILE = "<img src=q onerror=alert(1)>"
NAMES = (f"{HOSTILE}_0", "a_1", "stack_2", "stack_3")


def target(score: float) -> dict:
    return {"x": 9.0, "y": 5.0, "box": [8, 4, 3, 3], "area": 9, "score": score, "snr": 4.0}


@pytest.fixture
def results() -> Path:
    """What `detect.py` leaves of four frames, one with a hostile name."""
    folder, lines = Path("results/mine"), []
    for k, (name, score) in enumerate(zip(NAMES, (0.6, 0.9, None, 0.7))):
        entry = {"frame": name, "file": f"{name}.png", "index": 0, "height": 40, "width": 48}
        lines.append(json.dumps(entry | {"targets": [target(score)] if score else []}))
        for kind, pixels in (("maps", target_mask()), ("overlays", picture(k))):
            write(folder / kind / f"{name}.png", pixels)
    write(folder / "records-0.jsonl", "\n".join([*lines, ""]))
    (folder / "about.json").write_text(json.dumps({"weights": "w.safetensors", "threshold": 0.5}))
    return folder


def test_every_frame_is_shown_with_its_map_and_its_overlay(results):
    main(["--name", "mine"])
    images = report_data(results / "report/index.html")["images"]
    assert [len(image["targets"]) for image in images] == [1, 1, 0, 1]
    folder = results / "report" / "images"
    for k in range(4):
        shown = [cv2.imread(str(folder / f"{k:05d}_{kind}.png"), 0) for kind in LAYERS]
        assert np.array_equal(shown[0], picture(k)) and np.array_equal(shown[1], target_mask())
    assert len(list(folder.glob("*.png"))) == 4 * 2
    assert "<img src=q" not in (results / "report" / "index.html").read_text()


def test_of_many_those_with_the_highest_scores(results):
    page.write_gallery(results, workers=1, most=2)
    scores = [i["targets"][0]["score"] for i in report_data(results / "report/index.html")["images"]]
    assert scores == [0.9, 0.7] and "2 of 4 frames" in (results / "report/index.html").read_text()


def test_pictures_that_are_gone_are_named(results, capsys):
    for name in ("maps/a_1.png", "overlays/stack_2.png"):
        (results / name).unlink()
    message = fails(main, "--name", "mine", capsys=capsys)
    assert "2 frames cannot be shown" in message
    assert "maps/a_1.png: " in message and "overlays/stack_2.png: " in message


@pytest.mark.parametrize(
    "argv, named",
    [
        (["--name", "none"], "results/none: "),
        (["--dataset", "x", "--name", "y"], "--dataset NAME, or after detect.py: --name NAME"),
        (["--name", "mine", "--figure", "paper", "--images", "a"], "--figure, --images: "),
        (["--dataset", "x", "--images", "a", "--compare", "."], "--images, --compare: "),
        (["--dataset", "x", "--figure", "curves", "--images", "a"], "--images: "),
        (["--dataset", "x", "--figure", "curves", "--compare", "gone"], "--compare gone: "),
        (["--dataset", "x", "--labels", "a"], "--labels"),
        (["--dataset", "x", "--each", "2"], "IoU"),
        (["--input", "f"], "--name"),
        (["--name", "mine", "--workers", "0"], "--workers: "),
    ],
)
def test_bad_arguments(argv, named, capsys):
    assert named in fails(main, *argv, capsys=capsys)


def test_in_a_browser(results, browser):
    main(["--name", "mine"])
    browser.get((results / "report" / "index.html").resolve().as_uri())
    assert names_of(browser) == [*NAMES]  # in the order of time
    assert "4 images, 3 targets" in browser.find_element("css selector", "body").text
    assert not browser.find_element("id", "labelled").is_displayed()
    browser.find_element("css selector", "#sort option[value='-score']").click()
    assert names_of(browser) == ["a_1", "stack_3", f"{HOSTILE}_0", "stack_2"]
    browser.find_element("id", "has-target").click()
    assert "stack_2" not in names_of(browser) and len(names_of(browser)) == 3
    browser.find_element("css selector", ".card .open").click()
    text = browser.find_element("id", "zoom-text").text
    assert "1 target, highest score 0.900" in text and "9 px, SNR 4.0, score 0.900" in text
    assert [line["message"] for line in browser.get_log("browser")] == []
