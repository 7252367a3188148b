"""Frames that belong together, and targets that have to be confirmed."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import fails, write
from streaming import bright_pixels, results, run, same, video

from detect import main
from ismallnet.detection.sources import Source
from net import iSmallNet
from visualization import main as report


def records_of(name: str) -> Path:
    return Path("results", name, "records-0.jsonl")


def test_videos_and_stacks_are_sequences_of_their_own():
    kinds = (("a/1.png", "image", 1), ("a/s.npy", "stack", 3), ("a/o.npy", "stack", 1))
    sequences = [Source(Path(name), *kind).sequence for name, *kind in (*kinds, ("a/v.avi", "video"))]
    assert sequences == ["a", str(Path("a/s.npy")), "a", str(Path("a/v.avi"))]


# --- confirmed targets -----------------------------------------------------------------------------

TARGETS = {0: [(40, 70)], 1: [(40, 71), (20, 20)], 2: [(41, 72)], 3: [], 4: [(42, 75)], 5: [(60, 100)]}


def blobs(*places) -> np.ndarray:
    """A sky of 8 bits with targets at (y, x)."""
    y, x = np.mgrid[:96, :128]
    frame = np.random.default_rng(0).normal(100, 2, x.shape)
    for at_y, at_x in places:
        frame += 120 * np.exp(-((y - at_y) ** 2 + (x - at_x) ** 2) / 4.5)
    return frame.clip(0, 255).astype(np.uint8)


@pytest.fixture
def moving(network_file, monkeypatch) -> list[str]:
    """A target that moves in f/6 to f/10 and is hidden in 9; false ones in 7 and 11."""
    monkeypatch.setattr(iSmallNet, "forward", bright_pixels)
    for k, places in TARGETS.items():
        write(Path("f") / f"{k + 6}.png", blobs(*places))
    return ["f", "--weights", "w.pt", "--device", "cpu", "--name"]


def test_a_target_is_reported_where_it_was_seen_often_enough(moving, capsys):
    assert main([*moving, "all"]) == 0
    assert len(results("all")[0]) == 6
    assert main([*moving, "f", "--confirm", "3:5"]) == 0
    out = capsys.readouterr().out
    assert "sequences: f (6 frames)" in out and "1 tracks, seen in 3 of 5 frames" in out
    rows, companion = results()
    assert [row["frame"] for row in rows] == ["6", "7", "8", "10"] and len(companion["images"]) == 6
    for row in rows:
        ((y, x),) = TARGETS[int(row["frame"]) - 6][:1]
        assert abs(float(row["x"]) - x) < 1 and abs(float(row["y"]) - y) < 1
        assert (row["track"], row["target"]) == ("1", "1")
    drawn = [cv2.imread(f"results/f/overlays/{k + 6}.png") for k in range(6)]
    coloured = [bool((shown != shown[..., :1]).any()) for shown in drawn]
    assert coloured == [True, True, True, False, True, False]
    report(["--name", "f"])
    text = Path("results/f/report/index.html").read_text()
    images = json.loads(text.split('id="data">')[1].split("</script>")[0])["images"]
    assert [len(image["targets"]) for image in images] == [1, 1, 1, 0, 1, 0]


def test_confirmation_later_or_after_an_interruption_is_that_of_the_whole(moving, capsys):
    """Frames that are typed one by one come in the order of their names: 6, 10, 11, 7 as a shell
    writes them."""
    rule = ["--confirm", "3:5"]
    main([*sorted(map(str, Path("f").iterdir())), *moving[1:], "whole", *rule])
    main([*moving, "later"])
    touched = Path("results/later/maps/6.png").stat().st_mtime_ns
    for again in ("2:2", "3:5"):
        assert main([*moving, "later", "--resume", "--confirm", again]) == 0
    assert Path("results/later/maps/6.png").stat().st_mtime_ns == touched
    message = fails(main, *moving, "later", "--resume", capsys=capsys)
    assert "this run has" in message
    main([*moving, "cut", *rule])
    lines = records_of("cut").read_bytes().splitlines(keepends=True)
    records_of("cut").write_bytes(lines[1] + lines[2] + lines[5])  # as if another process did others
    main([*moving, "cut", *rule, "--resume"])
    for name in ("later", "cut"):
        same("whole", name)
        for k in range(6):
            pictures = [Path("results", folder, f"overlays/{k + 6}.png") for folder in ("whole", name)]
            assert pictures[0].read_bytes() == pictures[1].read_bytes()


def test_tracks_of_several_videos_have_numbers_of_their_own(network_file):
    for name in "ab":
        Path(name).mkdir()
        video(f"{name}/v.avi", 3)
    assert run("a", "b", "--confirm", "2:3", "--format", "mot") == 0
    tracks = {"a": set(), "b": set()}
    for row in results("frames")[0]:
        tracks[row["file"][0]].add(int(row["track"]))
    assert tracks["a"] and tracks["b"] and not tracks["a"] & tracks["b"]
    assert cv2.VideoCapture("results/frames/v_2.mp4").get(cv2.CAP_PROP_FRAME_COUNT) == 3
    for name, numbers in (("v", tracks["a"]), ("v_2", tracks["b"])):  # no file holds two sequences
        lines = Path(f"results/frames/mot/{name}.txt").read_text().splitlines()
        assert {int(line.split(",")[1]) for line in lines} == numbers
