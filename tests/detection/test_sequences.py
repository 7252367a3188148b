"""Frames that belong together: grey limits of a sequence, and targets that have to be confirmed."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import fails, picture, write
from streaming import bright_pixels, refused, results, run, same, video

from detect import Detector, main
from ismallnet.cli import DataError
from ismallnet.detection.sequences import RUNNING, SequenceLimits
from ismallnet.detection.sources import Frame, Source
from net import iSmallNet
from visualization import main as report


def sky(k: int, hot: int = 0) -> np.ndarray:
    """96x128, 16 bits, about 6000, noise of 40; an object at (x 12, y 82)."""
    x = np.mgrid[:96, :128][1]
    frame = 6000 + 500 * np.sin(x / 30) + np.random.default_rng(k).normal(0, 40, x.shape)
    frame[80:84, 10:14] += hot
    return frame.astype(np.uint16)


def records_of(name: str) -> Path:
    return Path("results", name, "records-0.jsonl")


# --- grey limits -----------------------------------------------------------------------------------


def limits(mode: str, sequence: list[tuple[str, np.ndarray]]) -> list:
    limits_of = SequenceLimits(mode, Detector(None, percentiles=(0, 100)), [], {}).of
    frames = [Frame(Source(Path(name), "image"), 0, pixels) for name, pixels in sequence]
    return [limits_of(frame)[0]["bright"] for frame in frames]


def test_the_limits_of_a_sequence_by_hand():
    def frame(low, high, kind=np.uint16):
        return np.array([[low, high]], kind)

    frames = [("a/1.png", frame(10, 20)), ("a/2.png", frame(20, 40)), ("b/1.png", frame(5, 6))]
    frames += [("a/3.png", frame(7, 7)), ("a/4.png", frame(0, 1, np.uint8)), ("a/5.png", frame(30, 60))]
    assert limits("first", frames) == [(10, 20), (10, 20), (5, 6), (10, 20), None, (10, 20)]
    assert RUNNING == 0.1
    second, third = (11, 22), (0.1 * 30 + 0.9 * 11, 0.1 * 60 + 0.9 * 22)
    expected = [(10, 20), second, (5, 6), second, None, third]
    for found, right in zip(limits("running", frames), expected, strict=True):
        assert found == (right and pytest.approx(right))
    # a flat first frame has no limits that others could have; floats beside integers have their own
    frames = [("a/0.png", frame(7, 7)), ("a/1.png", frame(1, 2))]
    frames += [("a/2.png", frame(0.5, 3, np.float32))]
    assert limits("first", frames) == [(7, 7), (1, 2), (0.5, 3)]
    # resumed, the folder is watched: a file that comes later is no file before that one
    done = [{"file": "a/9.png", "index": 0, "sequence": "a", "dtype": "uint16", "range": [1, 2]}]
    late = Frame(Source(Path("a/1.png"), "image"), 0, frame(5, 9))
    assert SequenceLimits("first", Detector(None), done, {}).of(late) == ({"bright": (1, 2)}, True)
    with pytest.raises(DataError, match=r"a/1\.png"):
        SequenceLimits("first", Detector(None), done, {"a/1.png": 0, "a/9.png": 1}).of(late)


def test_videos_and_stacks_are_sequences_of_their_own():
    kinds = (("a/1.png", "image", 1), ("a/s.npy", "stack", 3), ("a/o.npy", "stack", 1))
    sequences = [Source(Path(name), *kind).sequence for name, *kind in (*kinds, ("a/v.avi", "video"))]
    assert sequences == ["a", str(Path("a/s.npy")), "a", str(Path("a/v.avi"))]


@pytest.fixture
def frames(network_file) -> Path:
    """Four frames of 16 bits, whose limits differ, in f; and in g."""
    for k in range(4):
        write(Path("f") / f"{k}.png", sky(k, hot=1000 * k)[60:])
        write(Path("g") / f"{k}.png", sky(k, hot=2000 * k)[60:])
    return Path("f")


@pytest.mark.parametrize("mode, polarity", [("first", "bright"), ("running", "both")])
def test_resume_gives_what_an_uninterrupted_run_gives(frames, mode, polarity, capsys):
    argv = ["f", "g", "--limits", mode, "--polarity", polarity]
    run(*argv, "--name", "whole")
    assert "sequences: f (4 frames), g (4 frames)" in capsys.readouterr().out
    run(*argv, "--name", "cut", "--batch-size", 3)
    lines = records_of("cut").read_bytes().splitlines(keepends=True)
    records_of("cut").write_bytes(b"".join(lines[:6]))
    assert run(*argv, "--name", "cut", "--batch-size", 3, "--resume") == 0
    entries = [json.loads(line) for line in records_of("cut").read_bytes().splitlines()]
    assert [e["range"] for e in entries] == [json.loads(line)["range"] for line in lines]
    assert results("whole")[2] == results("cut")[2]
    message = refused(*argv[:2], "--name", "cut", "--resume", capsys=capsys)
    assert f"this run has limits {mode}, found each" in message or "polarity both" in message


def test_a_frame_before_those_that_depend_on_it_is_refused(frames, capsys):
    (frames / "0.png").rename("0.png")
    run("f", "--limits", "running")
    Path("0.png").rename(frames / "0.png")
    message = refused("f", "--resume", "--limits", "running", capsys=capsys)
    assert "f/0.png" in message and "--overwrite" in message
    assert len(results()[2]["images"]) == 3
    write(frames / "9.png", sky(9)[60:])
    (frames / "0.png").unlink()
    assert run("f", "--resume", "--limits", "running") == 0 and len(results()[2]["images"]) == 4


def test_what_the_limits_do_to_8_bits_and_to_frames_outside_of_them(network_file, capsys):
    write(Path("f/a.png"), picture(1))
    run("f", "--limits", "first")
    assert "a: uint8, used as it is" in capsys.readouterr().err
    for k, level in enumerate((0, 0, 5000)):
        write(Path("g") / f"{k}.png", sky(k) + np.uint16(level))
    run("g", "--limits", "first")
    said = capsys.readouterr().err
    assert "note: 1 frame has more than half of their pixels outside" in said and ": 2\n" in said


@pytest.mark.parametrize("mode", ["each", "first"])
def test_the_frame_whose_hot_pixel_sets_the_limits_is_named(network_file, mode, capsys):
    for k in range(2):
        frame = (sky(k) + np.uint16(23000)).clip(0, 30000)
        if k == 0:
            frame[50, 50] = 65535
        write(Path("f") / f"{k}.png", frame)
    assert run("f", "--limits", mode) == 0
    said = capsys.readouterr().err
    assert "note: 1 frame has few pixels" in said and ": 0\n" in said


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
    assert "sequences: f (6 frames)" in out and "1 tracks, seen in 3 of 5 frames within 5 px" in out
    rows, found, companion = results()
    assert [row["frame"] for row in rows] == ["6", "7", "8", "10"] and len(companion["images"]) == 6
    for row, entry in zip(rows, found, strict=True):
        ((y, x),) = TARGETS[int(row["frame"]) - 6][:1]
        assert abs(float(row["x"]) - x) < 1 and abs(float(row["y"]) - y) < 1
        assert (row["track"], row["target"], entry["track"]) == ("1", "1", 1)
    drawn = [cv2.imread(f"results/f/overlays/{k + 6}.png") for k in range(6)]
    coloured = [bool((shown != shown[..., :1]).any()) for shown in drawn]
    assert coloured == [True, True, True, False, True, False]
    report(["--name", "f"])
    text = Path("results/f/report/index.html").read_text()
    images = json.loads(text.split('id="data">')[1].split("</script>")[0])["images"]
    assert [len(image["targets"]) for image in images] == [1, 1, 1, 0, 1, 0]
    assert main([*moving, "all", "--resume", "--confirm", "3:5", "--confirm-distance", "0.5"]) == 0
    assert not results("all")[0]  # it moves more than 1 px a frame at first


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
