"""Where `detect.py` writes: no file of somebody else is replaced or deleted."""

import json
import shlex
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import picture, write
from streaming import folder, refused, results, run, same, video

from detect import main
from ismallnet.detection.records import Names
from ismallnet.detection.sources import Source
from ismallnet.files import lock
from visualization import main as report

pytestmark = pytest.mark.usefixtures("network_file")


def everything() -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in Path().rglob("*") if path.is_file()}


def never(*argv, capsys) -> str:
    """The message of a call that must be refused; nothing may have been written or deleted."""
    before = everything()
    message = refused(*argv, capsys=capsys)
    assert everything() == before
    return message


# --- files of somebody else ------------------------------------------------------------------------


def test_results_beside_the_input_and_below_it_are_written_and_among_it_not(capsys):
    folder(1)
    assert "f: found files" in never("f", "--results", ".", "--name", "f", capsys=capsys)
    assert run("f/frame_0.png", "--results", ".") == 0  # frame_0/ is another folder
    assert run("f", "--results", "f/out", "--name", "n") == 0


@pytest.mark.parametrize(
    "name", ["maps/X.png", "detections.csv", "about.json", "unfinished.json", "v.mp4", "notes.txt"]
)
def test_files_that_no_run_wrote_are_not_replaced(name, capsys):
    write(Path("X.png"), picture(1))
    write(Path("scene") / name, '{"weights": "w.pt", "images": ["a"]}')
    message = never("X.png", "--results", ".", "--name", "scene", capsys=capsys)
    assert f"scene: found files that detect.py did not write: {name.split('/')[0]}" in message


def test_two_calls_never_write_to_one_folder(monkeypatch, capsys):
    monkeypatch.setattr("ismallnet.files.LOCK_SECONDS", 0.1)
    folder(2)
    run("f")
    before = everything()
    with lock(Path("results/f"), "another detect.py is at work"):
        assert "results/f" in refused("f", "--resume", capsys=capsys)
    assert everything() == before


def test_what_a_killed_run_left_is_swept():
    video("v.avi", 2)
    run("v.avi")
    left = write(Path("results/v/.v.tmp.mp4"), b"half a video")
    assert run("v.avi", "--resume") == 0 and not left.exists()


# --- annotated videos ------------------------------------------------------------------------------


def test_each_video_has_an_annotated_video_of_its_own_name():
    for place, count in (("a", 2), ("b", 3)):
        Path(place).mkdir()
        video(f"{place}/VID_20240101_123456.avi", count)
    assert run("a", "b") == 0
    videos = {path.name: cv2.VideoCapture(str(path)) for path in Path("results/frames").glob("*.mp4")}
    counts = {name: int(shown.get(cv2.CAP_PROP_FRAME_COUNT)) for name, shown in videos.items()}
    assert counts == {"VID_20240101_123456.mp4": 2, "VID_20240101_123456_2.mp4": 3}
    mine = write(Path("results/frames/VID_20240101.mp4"), b"mine")  # what both once were
    assert run("a", "b", "--resume") == 0  # under the same names
    assert {path.name for path in Path("results/frames").glob("*.mp4")} == {*counts, mine.name}


# --- an earlier run --------------------------------------------------------------------------------


def test_the_results_of_another_run_stay(capsys):
    for name in ("one", "two"):
        write(Path(name) / "f/x.png", picture(1))
    run("one/f")
    message = never("two/f", capsys=capsys)
    assert "one/f" in message and "--resume" in message and "--name" in message


@pytest.mark.parametrize(
    "line", ['{"a": 1}', '{"position": 0, "frame": 1, "file": "f", "index": 0}', "[1]", '{"frame":']
)
def test_a_line_that_is_no_record(line, capsys):
    folder(2)
    run("f")
    records = Path("results/f/records-0.jsonl")
    lines = records.read_text().splitlines(keepends=True)
    records.write_text(f"{lines[0]}{line}\n{lines[1]}")
    message = refused("f", "--resume", capsys=capsys)
    assert "records-0.jsonl, line 2" in message and "--name" in message


# --- resume ----------------------------------------------------------------------------------------


def test_resume_does_only_what_is_missing_and_gives_the_same_files():
    folder(5)
    Path("f/frame_0.png").rename("0.png")
    run("f")
    records = Path("results/f/records-0.jsonl")
    lines = records.read_bytes().splitlines(keepends=True)
    records.write_bytes(b"".join(lines[:2]) + lines[2][:40])  # cut off within the third
    touched = Path("results/f/maps/frame_1.png").stat().st_mtime_ns
    Path("0.png").rename("f/frame_0.png")  # a new one before all others
    assert run("f", "--resume") == 0
    assert Path("results/f/maps/frame_1.png").stat().st_mtime_ns == touched
    run("f", "--name", "whole")
    same("f", "whole")


def test_resume_keeps_the_names_of_what_is_done():
    write(Path("f/b/x.png"), picture(1))
    run("f/*/x.png")
    write(Path("f/a/x.png"), picture(2))  # comes first, and would be x
    run("f/*/x.png", "--resume")
    images = results("frames")[1]["images"]
    assert {i["file_name"]: i["frame"] for i in images} == {"f/b/x.png": "x", "f/a/x.png": "x_2"}


def test_resume_with_other_settings_is_refused(capsys):
    folder(2)
    run("f")
    for flags, named in (
        (["--threshold", "0.7"], "threshold 0.5, found 0.7"),
        (["--flips"], "flips False, found True"),
    ):
        assert f"this run has {named}" in refused("f", "--resume", *flags, capsys=capsys)


def test_a_run_with_a_setting_that_went_is_not_resumed(capsys):
    folder(2)
    run("f")
    about = Path("results/f/about.json")
    about.write_text(json.dumps(json.loads(about.read_text()) | {"limits": "first"}))
    message = refused("f", "--resume", capsys=capsys)
    assert "limits first" in message and "--name" in message


def test_a_file_that_changed_since_it_was_done_is_not_resumed(capsys):
    folder(3)
    run("f")
    assert run("f", "--resume") == 0 and len(results()[1]["images"]) == 3
    write(Path("f/frame_1.png"), picture(7))
    before = everything()
    message = refused("f", "--resume", capsys=capsys)
    assert "f/frame_1.png" in message and "--name" in message
    assert everything() == before


def test_a_stack_that_grew_while_it_was_watched_is_resumed_without_watching():
    np.save("s.npy", np.stack([picture(k) for k in range(2)]))
    run("s.npy")
    records = Path("results/s/records-0.jsonl")
    first, last = records.read_text().splitlines()
    before = json.loads(first) | {"state": [1, 2]}  # as it was when the first page was done
    records.write_text(f"{json.dumps(before)}\n{last}\n")
    assert run("s.npy", "--resume") == 0


# --- names -----------------------------------------------------------------------------------------


def test_the_command_for_a_report_can_be_typed(capsys):
    write(Path("my frames/a.png"), picture(1))
    assert run("my frames", "--results", "my results") == 0
    line = capsys.readouterr().out.split("type: python visualization.py ")[1].splitlines()[0]
    assert shlex.split(line) == ["--results", "my results", "--name", "my frames"]
    report(shlex.split(line))
    assert Path("my results/my frames/report/index.html").exists()


def test_the_folder_above_is_no_name_for_results(monkeypatch):
    write(Path("x.png"), picture(1))
    Path("sub").mkdir()
    monkeypatch.chdir("sub")
    main(["--weights", "../w.pt", "--device", "cpu", ".."])
    assert Path("results/frames/maps/x.png").exists()


def test_frames_of_a_video_and_a_picture_of_their_name_are_kept_apart():
    files = [("clip.avi", "video"), ("clip_000001.png", "image"), ("x/clip.avi", "video")]
    names = Names([])
    sources = [Source(Path(path), kind) for path, kind in files]
    found = [names.of(source, 1) for source in sources]
    assert found == ["clip_000001", "clip_000001_2", "clip_000001_3"]
