"""Where `detect.py` writes: no file of somebody else is replaced or deleted."""

import json
import os
import shlex
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from conftest import fails, picture, write
from streaming import folder, results, run, video

from detect import main
from ismallnet.detection.folder import Names
from ismallnet.files import lock
from ismallnet.inference.predict import NotFiniteError
from visualization import main as report

pytestmark = pytest.mark.usefixtures("network_file")


def everything() -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in Path().rglob("*") if path.is_file()}


def refused(*argv, capsys) -> str:
    """The message of a call that must be refused; nothing may have been written or deleted."""
    for more in ([], ["--overwrite"], ["--resume"]):
        before = everything()
        message = fails(main, "--weights", "w.pt", "--device", "cpu", *argv, *more, capsys=capsys)
        assert everything() == before
        assert "nothing was written. Type another --name or --results" in message
    return message


# --- the folder of the input -----------------------------------------------------------------------


def test_the_folder_of_the_input_is_no_folder_for_results(capsys):
    Path("flight").mkdir()
    video("flight/clip.mp4.avi", 2)
    os.rename("flight/clip.mp4.avi", "flight/clip.avi")
    message = refused("flight", "--results", ".", capsys=capsys)
    assert "flight: found the input flight there" in message
    for path in ("flight/clip.avi", "flight/*.avi", "../flight/clip.avi"):
        path = path.replace("..", str(Path.cwd()))
        assert "flight: found the input" in refused(
            path, "--results", ".", "--name", "flight", capsys=capsys
        )
    write(Path("list.txt"), "flight/clip.avi\n")
    assert "found the input" in refused("list.txt", "--results=.", "--name=flight", capsys=capsys)
    os.symlink("flight", "link")
    assert "found the input" in refused("link", "--results=.", "--name=flight", capsys=capsys)
    assert run("flight/clip.avi", "--results", ".") == 0  # clip/ is another folder


def test_a_folder_above_the_input_is_no_folder_for_results(capsys):
    write(Path("trip/day/a.png"), picture(1))
    assert "trip: found the input trip/day there" in refused(
        "trip/day", "--results=.", "--name=trip", capsys=capsys
    )
    message = refused("--watch", "trip/day", "--results=.", "--name=trip", capsys=capsys)
    assert "trip: found the input trip/day there" in message


def test_results_in_a_folder_that_is_searched_are_refused(capsys):
    write(Path("f/a.png"), picture(1))
    write(Path("f/sub/b.png"), picture(2))
    message = refused("f", "--recursive", "--results", "f/out", "--name", "n", capsys=capsys)
    assert "f/out/n: found it in the input f" in message
    assert run("f", "--results", "f/out", "--name", "n") == 0
    assert run("f", "--recursive") == 0  # results/f is beside it


# --- files of somebody else ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["maps/X.png", "overlays/X.png", "detections.csv", "frames.json", "about.json", "v.mp4"]
)
def test_files_that_no_run_wrote_are_not_replaced(name, capsys):
    write(Path("X.png"), picture(1))
    write(Path("scene") / name, "mine")
    message = refused("X.png", "--results", ".", "--name", "scene", capsys=capsys)
    assert f"scene: found files that detect.py did not write: {name}" in message


def test_a_folder_with_other_things_takes_results():
    write(Path("X.png"), picture(1))
    write(Path("scene/notes.txt"), "mine")
    assert run("X.png", "--results", ".", "--name", "scene") == 0
    assert run("X.png", "--results", ".", "--name", "scene", "--overwrite") == 0
    assert Path("scene/notes.txt").read_text() == "mine"


def test_two_calls_never_write_to_one_folder(capsys):
    folder(2)
    run("f")
    before = everything()
    with lock(Path("results/f"), "another detect.py is at work"):
        argv = ["--weights", "w.pt", "--device", "cpu", "f", "--overwrite"]
        assert "results/f: another detect.py is at work" in fails(main, *argv, capsys=capsys)
    assert everything() == before


def test_a_call_that_fails_leaves_no_folder(monkeypatch, capsys):
    folder(2)
    argv = ["--weights", "w.pt", "--device", "cpu", "f"]
    assert "--confirm" in fails(main, *argv, "--confirm", "3:4", capsys=capsys)
    assert not Path("results").exists()

    def overflow(*_) -> None:
        raise NotFiniteError("f", 0)

    monkeypatch.setattr("ismallnet.detection.detector.predict_frame", overflow)
    assert "frame_0: the network's logits are not finite" in fails(main, *argv, capsys=capsys)
    assert not Path("results/f").exists()


def test_what_a_killed_run_left_is_swept():
    video("v.avi", 2)
    run("v.avi")
    left = write(Path("results/v/.v.tmp.mp4"), b"half a video")
    assert run("v.avi", "--resume") == 0 and not left.exists()


# --- annotated videos ------------------------------------------------------------------------------

STAMPED = ("VID_20240101_123456", "VID_20240101_123501")


def frames_in(path: str) -> int:
    return int(cv2.VideoCapture(path).get(cv2.CAP_PROP_FRAME_COUNT))


def test_each_video_has_an_annotated_video_of_its_own_name():
    for k, stem in enumerate(STAMPED):
        Path("ab"[k]).mkdir()
        video(f"{'ab'[k]}/{stem}.avi", 2 + k)
    Path("c").mkdir()
    video(f"c/{STAMPED[0]}.avi", 4)
    assert run("a", "b", "c") == 0
    names = {path.name for path in Path("results/frames").glob("*.mp4")}
    assert names == {f"{STAMPED[0]}.mp4", f"{STAMPED[1]}.mp4", f"{STAMPED[0]}_2.mp4"}
    counts = [frames_in(f"results/frames/{name}.mp4") for name in (*STAMPED, f"{STAMPED[0]}_2")]
    assert counts == [2, 3, 4]
    mine = write(Path("results/frames/VID_20240101.mp4"), b"mine")  # what all three once were
    write(Path("x/y.png"), picture(1))
    assert run("a", "b", "c", "--resume") == 0  # under the same names
    assert {path.name for path in Path("results/frames").glob("*.mp4")} == names | {mine.name}
    assert run("x/*.png", "--overwrite") == 0
    assert [path.name for path in Path("results/frames").glob("*.mp4")] == [mine.name]


# --- what --overwrite deletes ----------------------------------------------------------------------


def test_overwrite_deletes_the_report_and_nothing_else():
    folder(2)
    run("f")
    report(["--name", "f"])
    assert len(list(Path("results/f/report/images").iterdir())) > 2
    mine = [write(Path("results/f/report") / name, "mine") for name in ("a.txt", "images/shot.png")]
    run("f", "--overwrite")
    left = {path for path in Path("results/f/report").rglob("*") if path.is_file()}
    assert left == set(mine)
    write(Path("results/f/report/index.html"), "<html>my own report</html>")
    write(Path("results/f/report/images/00000_image.png"), "mine")
    run("f", "--overwrite")
    assert Path("results/f/report/index.html").exists()
    assert Path("results/f/report/images/00000_image.png").exists()


DAMAGED = (
    '{"a": 1}',
    '{"position": 0, "frame": 1, "file": "f/a.png", "index": 0}',
    "[1]",
    "7",
    "null",
    '{"frame":',
)


@pytest.mark.parametrize("line", DAMAGED)
def test_a_line_that_is_no_record(line, capsys):
    folder(2)
    run("f")
    records = Path("results/f/records-0.jsonl")
    lines = records.read_text().splitlines(keepends=True)
    records.write_text(f"{lines[0]}{line}\n{lines[1]}")
    message = fails(main, "--weights", "w.pt", "--device", "cpu", "f", "--resume", capsys=capsys)
    assert "records-0.jsonl, line 2: damaged" in message and "--overwrite" in message
    for path in Path("f").iterdir():
        path.unlink()
    write(Path("f/new.png"), picture(5))
    assert run("f", "--overwrite") == 0
    assert [path.name for path in Path("results/f/maps").iterdir()] == ["new.png"]


@pytest.mark.parametrize("key, value", [("frame", "../../mine"), ("video", "../mine")])
def test_a_record_never_leads_to_a_file_elsewhere(key, value):
    folder(1)
    run("f")
    mine = write(Path("results/mine.png" if key == "frame" else "results/mine.mp4"), b"mine")
    records = Path("results/f/records-0.jsonl")
    entry = json.loads(records.read_text())
    records.write_text(json.dumps(entry | {key: value}) + "\n")
    assert run("f", "--overwrite") == 0 and mine.exists()


# --- inputs that changed ---------------------------------------------------------------------------


def test_a_file_that_changed_since_it_was_done_is_not_resumed(capsys):
    folder(3)
    run("f")
    before = everything()
    assert run("f", "--resume") == 0 and len(results()[2]["images"]) == 3
    write(Path("f/frame_1.png"), picture(7))
    argv = ["--weights", "w.pt", "--device", "cpu", "f", "--resume"]
    message = fails(main, *argv, capsys=capsys)
    assert "f/frame_1.png: found another size or time" in message and "--overwrite" in message
    assert {p: raw for p, raw in everything().items() if p != "f/frame_1.png"} == {
        p: raw for p, raw in before.items() if p != "f/frame_1.png"
    }
    assert run("f", "--overwrite") == 0


def test_a_stack_that_grew_while_it_was_watched_is_resumed_without_watching():
    np.save("s.npy", np.stack([picture(k) for k in range(2)]))
    run("s.npy")
    records = Path("results/s/records-0.jsonl")
    first, last = records.read_text().splitlines()
    before = json.loads(first) | {"state": [1, 2]}  # as it was when the first page was done
    records.write_text(f"{json.dumps(before)}\n{last}\n")
    assert run("s.npy", "--resume") == 0


# --- the rest --------------------------------------------------------------------------------------


def test_the_command_for_a_report_can_be_typed(capsys):
    write(Path("my frames/a.png"), picture(1))
    assert run("my frames", "--results", "my results") == 0
    line = capsys.readouterr().out.split("type: python visualization.py ")[1].splitlines()[0]
    assert shlex.split(line) == ["--results", "my results", "--name", "my frames"]
    report(shlex.split(line))
    assert Path("my results/my frames/report/index.html").exists()


# --- names ------------------------------------------------------------------------------------------


def test_a_name_is_tried_once_however_many_files_have_it(monkeypatch):
    tried = []
    claim = Names.claim
    monkeypatch.setattr(Names, "claim", lambda self, *name: tried.append(name) or claim(self, *name))
    names = Names([])
    files = [SimpleNamespace(path=Path(f"{i}/a.png"), kind="image") for i in range(300)]
    assert [names.of(file, 0) for file in files] == ["a", *(f"a_{k}" for k in range(2, 301))]
    assert len(tried) == 300
