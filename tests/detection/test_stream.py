"""`detect.py` and `--watch`, as a person uses them."""

import os
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import fails, picture, write
from streaming import folder, results, run, video

from detect import main
from ismallnet.detection.detector import find_targets
from ismallnet.detection.records import run_length
from ismallnet.detection.run import write_video, written_rate
from ismallnet.images.grey import to_units, value_limits
from ismallnet.inference.predict import predict, prepared
from net import load_weights

pytestmark = pytest.mark.usefixtures("network_file")


def decoded(segmentation: dict) -> np.ndarray:
    """COCO's compressed run lengths, by hand."""
    runs, text = [], segmentation["counts"]
    at = 0
    while at < len(text):
        value = shift = 0
        while True:
            code = ord(text[at]) - 48
            at += 1
            value |= (code & 31) << shift
            shift += 5
            if not code & 32:
                break
        if code & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
    height, width = segmentation["size"]
    assert sum(runs) == height * width
    flat = np.repeat(np.arange(len(runs)) % 2, runs)
    return flat.reshape(width, height).T


def test_csv_json_and_pictures_hold_the_same_targets():
    folder(3)
    assert run("f") == 0
    rows, found, companion = results()
    model = prepared(load_weights("w.pt"))
    images = {image["frame"]: image for image in companion["images"]}
    assert list(images) == ["frame_0", "frame_1", "frame_2"]
    assert companion["categories"] == [{"id": 1, "name": "target"}]
    at = 0
    for k, name in enumerate(images):
        image = picture(k)
        probability = predict(model, [np.repeat(image[..., None], 3, 2)])[0]
        expected = find_targets(probability, image)
        assert len(expected) > 0
        saved = cv2.imread(f"results/f/maps/{name}.png", cv2.IMREAD_UNCHANGED)
        assert np.array_equal(saved, np.rint(255 * probability))
        for number, target in enumerate(expected, start=1):
            row, entry = rows[at], found[at]
            at += 1
            assert (row["frame"], row["target"]) == (name, str(number))
            assert float(row["x"]) == pytest.approx(target.x, abs=1e-3)
            assert float(row["score"]) == pytest.approx(target.score, abs=1e-6)
            assert [int(row[key]) for key in ("left", "top", "width", "height")] == list(target.box)
            assert entry["bbox"] == list(target.box) and entry["category_id"] == 1
            assert entry["image_id"] == images[name]["id"]
            mask = np.zeros(image.shape, int)
            mask[tuple(target.pixels.T)] = 1
            assert np.array_equal(decoded(entry["segmentation"]), mask)
        drawn = cv2.imread(f"results/f/overlays/{name}.png")
        assert drawn.shape == (*image.shape, 3) and (drawn != drawn[..., :1]).any()
    assert at == len(rows) == len(found)


def test_run_lengths_by_hand():
    """A 3x4 mask with pixels (1, 0), (2, 0), (0, 1): down the columns 0 11 1 00 000 000."""
    assert run_length(np.array([[1, 0], [2, 0], [0, 1]]), 3, 4) == "138"
    # lengths of 1 0, 3 1, 8 0; 100 px of 1 from the first: runs 0 and 100, the latter as 4 + 3·32
    assert run_length(np.array([[y, 0] for y in range(100)]), 100, 1) == "0T3"


def test_run_lengths_are_those_of_pycocotools():
    mask_tools = pytest.importorskip("pycocotools.mask", reason="pycocotools is not installed")
    rng = np.random.default_rng(0)
    for _ in range(200):
        mask = (rng.random(rng.integers(1, 50, 2)) < rng.choice([0.05, 0.5, 1])).astype(np.uint8)
        if mask.any():
            expected = mask_tools.encode(np.asfortranarray(mask))["counts"].decode()
            assert run_length(np.argwhere(mask), *mask.shape) == expected


def test_no_targets_are_empty_files_that_are_still_valid():
    write(Path("f/a.png"), np.zeros((20, 20), np.uint8))
    assert run("f", "--min-area", 10000) == 0
    rows, found, companion = results()
    assert rows == [] and found == [] and len(companion["images"]) == 1


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


def test_batches_change_nothing():
    folder(5)
    write(Path("f/frame_9.png"), picture(9, (33, 48)))
    for size in (1, 4):
        run("f", "--batch-size", size, "--name", f"b{size}")
    one, four = results("b1"), results("b4")
    assert [r["frame"] for r in one[0]] == [r["frame"] for r in four[0]]
    for a, b in zip(one[1], four[1], strict=True):
        assert a["bbox"] == b["bbox"] and a["score"] == pytest.approx(b["score"], abs=1e-4)


def test_pixels_without_a_number_do_not_hide_the_rest(tmp_path):
    frame = picture(0).astype(np.float32)
    np.save("clean.npy", frame)
    run("clean.npy", "--save-npy")
    clean = np.load("results/clean/maps/clean_000000.npy")
    for k, value in enumerate((np.nan, np.inf, -np.inf)):
        frame[35, 3] = value
        np.save(f"bad{k}.npy", frame)
        assert run(f"bad{k}.npy", "--save-npy") == 0
        companion = results(f"bad{k}")[2]
        assert companion["images"][0]["range"] == results("clean")[2]["images"][0]["range"]
        assert np.abs(np.load(f"results/bad{k}/maps/bad{k}_000000.npy") - clean).max() < 0.2
        assert "inf" not in Path(f"results/bad{k}/detections.csv").read_text()
        records = Path(f"results/bad{k}/records-0.jsonl").read_text()
        assert "Infinity" not in records and "NaN" not in records


def test_two_files_of_one_name_keep_their_results_apart():
    write(Path("a/x.png"), picture(1))
    write(Path("b/x.png"), picture(2))
    run("a", "b", "a/x.png")
    _, _, companion = results("frames")
    names = [(image["frame"], image["file_name"]) for image in companion["images"]]
    assert names == [("x", "a/x.png"), ("x_2", "b/x.png")]


def test_a_video_gives_times_and_an_annotated_video():
    video("v.avi", 6)
    assert run("v.avi", "--every", 2) == 0
    rows, _, companion = results("v")
    assert [i["seconds"] for i in companion["images"]] == [0, 0.2, 0.4]
    assert {r["frame"] for r in rows} <= {"v_000000", "v_000002", "v_000004"} and rows
    shown = cv2.VideoCapture("results/v/v.mp4")
    assert shown.get(cv2.CAP_PROP_FRAME_COUNT) == 3 and shown.get(cv2.CAP_PROP_FPS) == 5
    assert not list(Path("results/v").glob(".*.tmp.mp4"))


def test_an_annotated_video_has_all_rows_and_columns():
    """MPEG-4 has even sides alone: those of an odd frame grow."""
    write(Path("r/overlays/v_000000.png"), np.dstack([picture(0, (49, 65))] * 3))
    write_video(Path("r"), "v", [{"frame": "v_000000", "fps": 10.0}])
    whole, shown = cv2.VideoCapture("r/v.mp4").read()
    assert whole and shown.shape == (50, 66, 3)


@pytest.mark.parametrize(
    ("fps", "written"),
    [(25, 25), (29.97, 29.97), (66.6667, 66.67), (142.857, 142.86), (1000, 1000), (1e6, 65535)],
)
def test_the_rate_of_an_annotated_video_is_one_that_can_be_written(fps, written):
    assert written_rate(fps) == written
    writer = cv2.VideoWriter("v.mp4", cv2.VideoWriter_fourcc(*"mp4v"), written_rate(fps), (48, 40))
    assert writer.isOpened()
    writer.release()


def test_a_name_that_a_spreadsheet_would_compute_is_a_path_in_the_table():
    write(Path("=1+cmd.png"), picture(1))
    assert run("=1+cmd.png", "--name", "f") == 0 and run("=1+cmd.png", "--name", "f", "--resume") == 0
    rows, _, companion = results()
    assert {(row["frame"], row["file"]) for row in rows} == {("./=1+cmd", "./=1+cmd.png")}
    assert companion["images"][0]["frame"] == "=1+cmd" and len(companion["images"]) == 1
    assert (
        Path("results/f/overlays", f"{rows[0]['frame']}.png").is_file()
        and Path(rows[0]["file"]).is_file()
    )


def test_main_in_a_thread():
    folder(1)
    codes = []
    thread = threading.Thread(target=lambda: codes.append(run("f")))
    thread.start()
    thread.join()
    assert codes == [0] and len(results()[2]["images"]) == 1


# --- results that are there already ----------------------------------------------------------------


def test_a_second_call_deletes_nothing(capsys):
    folder(2)
    run("f")
    before = {path: path.read_bytes() for path in Path("results/f").rglob("*") if path.is_file()}
    message = fails(main, "--weights", "w.pt", "f", capsys=capsys)
    assert "--resume to continue" in message and "--overwrite to delete" in message
    assert {path: path.read_bytes() for path in before} == before
    run("f", "--overwrite", "--threshold", 0.9)
    assert (Path("results/f/about.json").read_bytes()) != before[Path("results/f/about.json")]


@pytest.mark.parametrize("left", ["about.json", "unfinished.json"])
def test_a_data_sets_results_are_never_touched(left, capsys):
    folder(1)
    write(Path("results/f") / left, '{"weights": "w.pt", "images": ["a"]}')
    for argv in ([], ["--overwrite"], ["--resume"]):
        message = fails(main, "--weights", "w.pt", "f", *argv, capsys=capsys)
        assert "holds the maps of a data set; type another --name" in message
    assert [path.name for path in Path("results/f").iterdir()] == [left]


def test_names_that_are_not_utf8_are_written_and_resumed(capsys):
    folder(1)
    name = os.fsdecode(b"f/\xc4\xe9\xb1.png")
    write(Path("f/x.png"), picture(3))
    os.rename("f/x.png", name)
    assert run("f") == 0 and run("f", "--resume") == 0
    rows, _, companion = results()
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
    assert [i["frame"] for i in results()[2]["images"]] == ["frame_0", "frame_2"]
    assert run("f", "--strict", "--name", "s") == 2
    assert [i["frame"] for i in results("s")[2]["images"]] == ["frame_0"]
    write(Path("f/frame_1.png"), picture(1))
    assert run("f", "--resume") == 0
    assert [i["frame"] for i in results()[2]["images"]] == ["frame_0", "frame_1", "frame_2"]


def test_resume_does_only_what_is_missing_and_gives_the_same_files():
    folder(6)
    run("f", "--name", "whole")
    run("f")
    records = Path("results/f/records-0.jsonl")
    lines = records.read_bytes().splitlines(keepends=True)
    records.write_bytes(b"".join(lines[:2]) + lines[2][:40])  # cut off within the third
    touched = Path("results/f/maps/frame_0.png").stat().st_mtime_ns
    assert run("f", "--resume") == 0
    assert Path("results/f/maps/frame_0.png").stat().st_mtime_ns == touched
    for name in ("detections.csv", "detections.json", "frames.json"):
        assert Path("results/f", name).read_bytes() == Path("results/whole", name).read_bytes()


def test_resume_of_a_folder_that_grew_keeps_its_order():
    for k in (1, 3):
        write(Path(f"f/frame_{k}.png"), picture(k))
    run("f")
    for k in (0, 2, 4):
        write(Path(f"f/frame_{k}.png"), picture(k))
    run("f", "--resume")
    run("f", "--name", "whole")
    for name in ("detections.csv", "detections.json", "frames.json"):
        assert Path("results/f", name).read_bytes() == Path("results/whole", name).read_bytes()


def test_another_input_of_one_name_is_refused_or_leaves_nothing_of_the_first(capsys):
    write(Path("one/f/x.png"), picture(1))
    write(Path("two/f/y.png"), picture(2))
    run("one/f", "--save-npy")
    message = fails(main, "--weights", "w.pt", "two/f", capsys=capsys)
    assert "results/f: holds results of one/f already" in message and "--overwrite" in message
    assert len(results("f")[2]["images"]) == 1 and Path("results/f/maps/x.npy").exists()
    run("two/f", "--overwrite")
    found = {path.name for kind in ("maps", "overlays") for path in Path("results/f", kind).iterdir()}
    assert found == {"y.png"}


def test_the_folder_above_is_no_name_for_results(monkeypatch):
    write(Path("x.png"), picture(1))
    Path("sub").mkdir()
    monkeypatch.chdir("sub")
    main(["--weights", "../w.pt", "--device", "cpu", ".."])
    assert [path.name for path in Path().iterdir()] == ["results"]
    assert (Path("results/frames/maps/x.png")).exists()


def test_resume_keeps_the_names_of_what_is_done():
    write(Path("f/b/x.png"), picture(1))
    run("f/*/x.png")
    write(Path("f/a/x.png"), picture(2))  # comes first, and would be x
    run("f/*/x.png", "--resume")
    images = results("frames")[2]["images"]
    assert {i["file_name"]: i["frame"] for i in images} == {"f/b/x.png": "x", "f/a/x.png": "x_2"}


def test_resume_with_other_settings_is_refused(capsys):
    folder(2)
    run("f")
    message = fails(main, "--weights", "w.pt", "f", "--resume", "--threshold", "0.7", capsys=capsys)
    assert "this run has threshold 0.5, found 0.7" in message
    message = fails(main, "--weights", "w.pt", "f", "--resume", "--flips", capsys=capsys)
    assert "this run has flips False, found True" in message
    message = fails(main, "--weights", "w.pt", "f", "--resume", "--name", "n", capsys=capsys)
    assert "no run to resume" in message


@pytest.mark.parametrize(
    "argv, message",
    [
        (["none"], "none: no such file"),
        (["f", "--watch", "f"], "expected one of PATH and --watch"),
        ([], "expected one of PATH and --watch"),
        (["f", "--name", "../q"], "--name without a folder in it"),
        (["f", "--name", ".."], "--name without a folder in it"),
        (["f", "--name", "."], "--name without a folder in it"),
        (["f", "--range", "0", "inf"], "--range: found (0.0, inf), expected two finite numbers"),
        (["f", "--range", "nan", "9"], "--range: found (nan, 9.0), expected two finite numbers"),
        (["f", "--min-area", "0"], "--min-area: found 0, expected 1 or more"),
        ([""], "found an empty PATH"),
        (["f", "--resume", "--overwrite"], "one of --resume and --overwrite"),
        (["f", "--range", "0", "9", "--percentiles", "1", "99"], "one of --range and --percentiles"),
        (["f", "--baseline", "lcm"], "unrecognized arguments: --baseline"),
        (["f", "--threshold", "0"], "--threshold: found 0.0, expected above 0"),
        (["f", "--overlap", "400"], "--overlap: found 400, expected 0 to half"),
        (["f", "--percentiles", "9", "2"], "--percentiles: found (9.0, 2.0), expected 0 <= LOW"),
        (["--watch", "none"], "a folder after --watch"),
    ],
)
def test_bad_arguments(argv, message, capsys):
    folder(1)
    assert message in fails(main, *argv, capsys=capsys)
