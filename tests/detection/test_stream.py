"""`detect.py` and `--watch`, as a person uses them."""

import os
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import picture, write
from streaming import folder, refused, results, run, video

from ismallnet.detection.detector import find_targets
from ismallnet.detection.records import ordered, write_video
from ismallnet.images.grey import to_units, value_limits
from ismallnet.images.picture import decode
from ismallnet.inference.predict import NotFiniteError, predict, prepared
from net import load_weights

pytestmark = pytest.mark.usefixtures("network_file")


def test_csv_and_pictures_hold_the_same_targets():
    folder(3)
    assert run("f") == 0
    rows, companion = results()
    model = prepared(load_weights("w.pt"))
    images = {image["frame"]: image for image in companion["images"]}
    assert list(images) == ["frame_0", "frame_1", "frame_2"]
    at = 0
    for k, name in enumerate(images):
        image = picture(k)
        probability = predict(model, [np.repeat(image[..., None], 3, 2)])[0]
        expected = find_targets(probability, image)
        assert len(expected) > 0
        saved = cv2.imread(f"results/f/maps/{name}.png", cv2.IMREAD_UNCHANGED)
        assert np.array_equal(saved, np.rint(255 * probability))
        for number, target in enumerate(expected, start=1):
            row = rows[at]
            at += 1
            assert (row["frame"], row["target"]) == (name, str(number))
            assert float(row["x"]) == pytest.approx(target.x, abs=1e-3)
            assert float(row["score"]) == pytest.approx(target.score, abs=1e-6)
            assert [int(row[key]) for key in ("left", "top", "width", "height")] == list(target.box)
        drawn = cv2.imread(f"results/f/overlays/{name}.png")
        assert drawn.shape == (*image.shape, 3) and (drawn != drawn[..., :1]).any()
    assert at == len(rows)


def test_records_are_in_the_order_of_the_files_that_are_named_each_once():
    """A run that was killed while it put the records of all processes into one file has some twice."""
    entries = [{"file": file, "index": k} for file, k in (("b", 0), ("a", 1), ("a", 0), ("b", 0))]
    assert ordered(entries, ["a"]) == [entries[2], entries[1], entries[0]]


@pytest.mark.parametrize("flags", [("--min-area", 10000), ("--threshold", 0.001, "--max-area", 1)])
def test_no_targets_are_empty_files_that_are_still_valid(flags):
    write(Path("f/a.png"), np.zeros((20, 20), np.uint8))
    assert run("f", *flags) == 0
    rows, companion = results()
    assert rows == [] and len(companion["images"]) == 1


def test_depth_range_and_percentiles(capsys):
    deep = picture().astype(np.uint16) * 100
    deep[0, 0] = 60000  # a hot pixel
    write(Path("deep.tif"), deep)
    model, maps = prepared(load_weights("w.pt")), {}
    for name, argv, limits in (
        ("own", [], (deep.min(), 60000)),
        ("range", ["--range", 6000, 23000], (6000, 23000)),
        ("percentiles", ["--percentiles", 1, 99], value_limits(deep, (1, 99))),
    ):
        assert run("deep.tif", "--name", name, *argv) == 0
        shown = capsys.readouterr()
        low, high = (f"{float(v):g}" for v in limits)
        assert f"uint16, {low} to {high} become 0 to 255" in shown.out + shown.err
        maps[name] = cv2.imread(f"results/{name}/maps/deep.png", cv2.IMREAD_UNCHANGED)
        expected = predict(model, [to_units(deep, limits)])[0]
        assert np.array_equal(maps[name], np.rint(255 * expected))
    assert (maps["own"] != maps["range"]).any()


def sky(k: int) -> np.ndarray:
    """36x128, 16 bits, about 29000, noise of 40."""
    x = np.mgrid[:36, :128][1]
    noise = np.random.default_rng(k).normal(0, 40, x.shape)
    return (29000 + 500 * np.sin(x / 30) + noise).astype(np.uint16)


@pytest.mark.parametrize(
    ("argv", "place", "value", "note"),
    [
        ([], np.s_[:1, :1], 65535, "few pixels"),
        (["--range", 28000, 31000], np.s_[:], 34000, "more than half of their pixels outside"),
    ],
)
def test_the_frame_whose_grey_values_are_doubtful_is_named(argv, place, value, note, capsys):
    """A hot pixel sets a frame's own limits; a frame lies outside of the limits of all."""
    frames = [sky(k) for k in range(3)]
    frames[1][place] = value
    frames[1][20, 20] += 400  # none is flat
    for k, frame in enumerate(frames):
        write(Path("f") / f"{k}.png", frame)
    assert run("f", *argv) == 0
    said = capsys.readouterr().err
    assert f"note: 1 frame has {note}" in said and ": 1\n" in said


def test_batches_change_nothing():
    folder(5)
    write(Path("f/frame_9.png"), picture(9, (33, 48)))
    for size in (1, 4):
        run("f", "--batch-size", size, "--name", f"b{size}")
    one, four = results("b1"), results("b4")
    assert [r["frame"] for r in one[0]] == [r["frame"] for r in four[0]]
    for a, b in zip(one[0], four[0], strict=True):
        assert all(a[key] == b[key] for key in ("left", "top", "width", "height"))
        assert float(a["score"]) == pytest.approx(float(b["score"]), abs=1e-4)


def test_pixels_without_a_number_do_not_hide_the_rest():
    frame = picture(0).astype(np.float32)
    np.save("clean.npy", frame)
    frame[35, 3:6] = np.nan, np.inf, -np.inf
    np.save("bad.npy", frame)
    maps, ranges = {}, {}
    for name in ("clean", "bad"):
        assert run(f"{name}.npy") == 0
        maps[name] = decode(Path(f"results/{name}/maps/{name}_000000.png")) / 255
        ranges[name] = results(name)[1]["images"][0]["range"]
    assert ranges["bad"] == ranges["clean"] and np.abs(maps["bad"] - maps["clean"]).max() < 0.3
    assert "inf" not in Path("results/bad/detections.csv").read_text()
    records = Path("results/bad/records-0.jsonl").read_text()
    assert "Infinity" not in records and "NaN" not in records


def test_a_video_gives_times_and_an_annotated_video():
    video("v.avi", 6)
    assert run("v.avi", "--every", 2) == 0
    rows, companion = results("v")
    assert [i["seconds"] for i in companion["images"]] == [0, 0.2, 0.4]
    assert {r["frame"] for r in rows} <= {"v_000000", "v_000002", "v_000004"} and rows
    shown = cv2.VideoCapture("results/v/v.mp4")
    assert shown.get(cv2.CAP_PROP_FRAME_COUNT) == 3 and shown.get(cv2.CAP_PROP_FPS) == 5
    assert not list(Path("results/v").glob(".*.tmp.mp4"))


def test_an_annotated_video_has_all_rows_and_columns():
    """MPEG-4 has even sides alone: those of an odd frame grow."""
    write(Path("r/overlays/v_000000.png"), np.dstack([picture(0, (49, 65))] * 3))
    for fps in (29.97, 66.6667, 1e6):  # rates that it cannot hold, too
        write_video(Path("r"), "v", [{"frame": "v_000000", "fps": fps}])
        whole, shown = cv2.VideoCapture("r/v.mp4").read()
        assert whole and shown.shape == (50, 66, 3)


def test_main_in_a_thread():
    folder(1)
    codes = []
    thread = threading.Thread(target=lambda: codes.append(run("f")))
    thread.start()
    thread.join()
    assert codes == [0] and len(results()[1]["images"]) == 1


def test_names_that_are_not_utf8_are_written_and_resumed(capsys):
    folder(1)
    name = os.fsdecode(b"f/\xc4\xe9\xb1.png")
    write(Path("f/x.png"), picture(3))
    os.rename("f/x.png", name)
    assert run("f") == 0 and run("f", "--resume") == 0
    rows, companion = results()
    assert len(companion["images"]) == 2
    assert {row["frame"] for row in rows} == {"frame_0", "\\udcc4\\udce9\\udcb1"}
    write(Path("f/y.png"), b"nothing")
    os.rename("f/y.png", os.fsdecode(b"f/caf\xe9.png"))
    assert run("f", "--resume") == 1
    assert "caf\\udce9.png: not a readable image" in capsys.readouterr().err


# --- what goes wrong -------------------------------------------------------------------------------


def test_a_bad_frame_is_named_and_skipped_and_the_end_says_so(capsys):
    folder(3)
    write(Path("f/frame_1.png"), b"nothing")
    assert run("f") == 1
    assert "frame_1.png: not a readable image" in capsys.readouterr().err
    assert [i["frame"] for i in results()[1]["images"]] == ["frame_0", "frame_2"]
    write(Path("f/frame_1.png"), picture(1))
    assert run("f", "--resume") == 0
    assert [i["frame"] for i in results()[1]["images"]] == ["frame_0", "frame_1", "frame_2"]


def test_the_frame_whose_logits_are_not_finite_is_named(monkeypatch, capsys):
    def overflow(*_) -> None:
        raise NotFiniteError("frame 1 of 2", 1)

    folder(2)
    monkeypatch.setattr("ismallnet.detection.detector.Detector.maps", overflow)
    assert "frame_1: " in refused("f", "--batch-size", "2", capsys=capsys)


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        ("none", "none"),
        ("f --watch f", "--watch"),
        ("", "--watch"),
        ("--watch none", "--watch"),
        ("--watch f --confirm 2:1", "--confirm"),
        ("f --name ../q", "--name"),
        ("f --name ..", "--name"),
        ("f --resume", "--resume"),
        ("f --range 0 9 --percentiles 1 99", "--percentiles"),
        ("f --limits first", "--range"),
        ("f --raw 48x40:uint16", ".npy"),
        ("f --strict", "exit code"),
        ("f --overwrite", "--name"),
        ("f --recursive", "**"),
        ("f --save-npy", "Detector"),
        ("f --polarity both", "once with each"),
        ("f --range 0 inf", "--range"),
        ("f --range nan 9", "--range"),
        ("f --percentiles 9 2", "--percentiles"),
        ("f --min-area 0", "--min-area"),
        ("f --min-area 9 --max-area 8", "--max-area"),
        ("f --threshold 0", "--threshold"),
        ("f --overlap 400", "--overlap"),
        ("f --every 2", "--every"),
        ("f --confirm 5:3", "--confirm"),
        ("f --confirm-distance 3", "5 px"),
    ],
)
def test_bad_arguments(argv, named, capsys):
    folder(1)
    assert named in refused(*argv.split(), capsys=capsys) and not Path("results").exists()
