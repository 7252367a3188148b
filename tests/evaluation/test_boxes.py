"""Detections against boxes."""

import csv
import json
from pathlib import Path

import pytest
from conftest import fails

from eval import main
from ismallnet.cli import DataError
from ismallnet.evaluation.boxes import (
    BoxedFrame,
    boxed_frames,
    count_tracks,
    in_box,
    read_boxes,
    recall_at,
    scores_of,
    videos_of,
)

BOX = (10.0, 20.0, 4.0, 2.0)


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [(10, 20, True), (7, 17, True), (6.9, 17, False), (17, 25, True), (17, 25.1, False)],
)
def test_a_centre_counts_up_to_three_pixels_beside_the_box(x, y, expected):
    assert in_box(x, y, BOX) is expected


def test_the_curve_of_two_frames_worked_by_hand():
    frames = [
        BoxedFrame([BOX], [(11, 21, 0.9), (12, 21, 0.6), (50, 50, 0.8)]),  # the 0.6 is neither
        BoxedFrame([BOX], [(70, 70, 0.7)]),
    ]
    scores = scores_of(frames)
    assert scores.curve() == [
        {"score": 0.9, "recall": 0.5, "false_alarms": 0.0, "precision": 1.0},
        {"score": 0.8, "recall": 0.5, "false_alarms": 0.5, "precision": 0.5},
        {"score": 0.7, "recall": 0.5, "false_alarms": 1.0, "precision": 1 / 3},
    ]
    assert recall_at(scores.curve(), 0.4) == 0.5
    assert recall_at(scores_of(frames[1:]).curve(), 0.4) == 0.0
    assert scores.at(0.75)["false_alarms"] == 0.5 and scores.at(0.95)["recall"] == 0.0


def results(frames: list[tuple[str, int]], rows: list[tuple]) -> Path:
    """A folder of detect.py's results."""
    folder = Path("results/clips")
    folder.mkdir(parents=True)
    images = [{"file_name": file, "index": index} for file, index in frames]
    (folder / "frames.json").write_text(json.dumps({"images": images}), encoding="utf-8")
    with open(folder / "detections.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerows([("file", "index", "x", "y", "score"), *rows])
    return folder


def test_frames_of_a_video_meet_their_boxes_by_name_and_number():
    folder = results([("in/a.mp4", 0), ("in/a.mp4", 5)], [("in/a.mp4", 5, 11, 21, 0.9)])
    boxes = Path("boxes.csv")
    boxes.write_text("clip,frame,x,y,width,height\na,0,10,20,4,2\na,5,10,20,4,2\na,9,1,1,2,2\n")
    frames = boxed_frames(folder, boxes)
    assert frames == {("a", 0): BoxedFrame([BOX]), ("a", 5): BoxedFrame([BOX], [(11.0, 21.0, 0.9)])}


def test_coco_boxes_are_those_of_pictures():
    images = [{"id": 7, "file_name": "images/b.png"}]
    content = {"images": images, "annotations": [{"image_id": 7, "bbox": [10, 20, 4, 2]}]}
    Path("boxes.json").write_text(json.dumps(content))
    assert read_boxes(Path("boxes.json")) == {("b", 0): [BOX]}


@pytest.mark.parametrize("text", ["file,x,y\na,1,2\n", "file,x,y,width,height\na,1,2,3,wide\n"])
def test_what_is_no_table_of_boxes_is_named(text):
    Path("boxes.csv").write_text(text)
    with pytest.raises(DataError, match=r"boxes\.csv"):
        read_boxes(Path("boxes.csv"))


def test_boxes_of_other_frames_are_refused():
    folder = results([("a.png", 0)], [])
    Path("boxes.csv").write_text("file,x,y,width,height\nb.png,1,2,3,4\n")
    with pytest.raises(DataError, match=r"boxes\.csv"):
        boxed_frames(folder, Path("boxes.csv"))


def test_the_command_names_frames_and_targets_and_keeps_the_curve(capsys):
    rows = [("a.png", 0, 11, 21, 0.9), ("a.png", 0, 50, 50, 0.4)]
    folder = results([("a.png", 0), ("b.png", 0)], rows)
    Path("boxes.csv").write_text("file,x,y,width,height\na.png,10,20,4,2\n")
    main(["--detections", str(folder), "--boxes", "boxes.csv"])
    assert "2 frames, 1 target" in capsys.readouterr().out
    content = json.loads((folder / "boxes.json").read_text())
    point = {"score": 0.5, "recall": 1.0, "false_alarms": 0.0, "precision": 1.0}
    assert content["thresholds"][2] == point
    assert content["thresholds"][1]["false_alarms"] == 0.5 and content["recall_at"]["0.1"] == 1.0
    with open(folder / "boxes.csv", newline="", encoding="utf-8") as file:
        assert [row["score"] for row in csv.DictReader(file)] == ["0.9", "0.4"]


def test_tracks_of_a_video_worked_by_hand():
    on, off = (11.0, 21.0, 0.9), (50.0, 50.0, 0.8)
    first = [BoxedFrame([BOX], [on, off], ["1", "2"]), BoxedFrame([BOX], [off], ["2"])]
    first += [BoxedFrame([BOX], [on], ["3"]), BoxedFrame([BOX], [on, on], ["4", "3"])]  # 3 goes on
    second = [BoxedFrame([BOX], [on], ["1"])]
    assert count_tracks([first, second]) == {"tracks": 5, "false_tracks": 1, "switches": 1}
    assert videos_of({("a", 0): 1, ("b", 0): 2, ("a", 1): 3, ("c", 0): 4}) == [[1, 3], [2, 4]]


@pytest.mark.parametrize(
    "argv", [[], ["--detections", "x"], ["--boxes", "x"], ["--dataset", "x", "--boxes", "x"]]
)
def test_detections_need_boxes(argv, capsys):
    assert "--boxes" in fails(main, *argv, capsys=capsys)
