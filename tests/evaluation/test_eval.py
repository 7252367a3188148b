import csv
import json
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import GOLDEN, box, fails, make_set, target_mask, write

import eval as script
from eval import main
from ismallnet.evaluation.protocols import PROTOCOLS
from ismallnet.files import lock, write_json


def golden_set(case: str, root: Path, maps: Path) -> None:
    """A golden case as a data set on disk and a folder of maps."""
    names = []
    for path in sorted((GOLDEN / "metrics" / case).glob("*_mask.png")):
        name = path.name.removesuffix("_mask.png")
        names.append(name)
        write(root / f"masks/{name}.png", path.read_bytes())
        write(root / f"images/{name}.png", path.read_bytes())
        write(maps / f"{name}.png", path.with_name(f"{name}_pred.png").read_bytes())
    write(root / "test.txt", "\n".join(names))


def read_csv(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def written(path) -> dict:
    return json.loads(Path(path).read_text())


def test_golden_figures_from_disk(tmp_path):
    golden_set("mixed", tmp_path / "data/g", tmp_path / "maps")
    main(["--dataset", "g", "--maps", "maps", "--protocol", "all", "--output", "out/f.json"])
    found, expected = written("out/f.json"), written(GOLDEN / "metrics/mixed/expected.json")
    assert list(found) == list(PROTOCOLS)
    for protocol, figures in expected.items():
        for name, value in figures.items():
            assert found[protocol][name] == pytest.approx(value, abs=1e-9), (protocol, name)


def test_one_protocol_default_places_and_curves(tmp_path, capsys):
    golden_set("grey", tmp_path / "data/g", tmp_path / "results/g")
    main(["--dataset", "g", "--protocol", "dnanet", "--workers", "2"])
    assert list(written("results/g/metrics.json")) == ["dnanet"]
    main(["--dataset", "g"])
    found = written("results/g/metrics.json")["standard"]
    points = read_csv("results/g/metrics_roc_pr.csv")
    assert [int(p["threshold"]) for p in points] == list(range(1, 256))
    at = points[127]
    assert float(at["precision"]) == found["precision"] and float(at["recall"]) == found["recall"]
    assert 0 < found["auc"] < 1
    curve = read_csv("results/g/metrics_pd_fa.csv")
    assert [int(p["threshold"]) for p in curve] == [1, *range(8, 249, 8), 255]
    assert (float(curve[16]["pd"]), float(curve[16]["fa"])) == (found["pd"], found["fa"])
    assert f"{100 * found['iou']:.2f}" in capsys.readouterr().out


def test_metrics_do_not_depend_on_the_number_of_processes(tmp_path):
    names = [f"{i:02}" for i in range(40)]
    make_set(tmp_path / "data/tiny", names=names, train=0)
    rng = np.random.default_rng(0)
    for name in names:
        noise = rng.integers(0, 256, (40, 48)).astype(np.uint8)
        write(tmp_path / f"maps/{name}.png", cv2.blur(noise, (3, 3)))
    argv = ["--dataset", "tiny", "--maps", "maps", "--protocol", "all"]
    for workers in "13":
        main([*argv, "--workers", workers, "--output", f"{workers}.json"])
    for name in (".json", "_roc_pr.csv", "_pd_fa.csv"):
        assert Path(f"1{name}").read_bytes() == Path(f"3{name}").read_bytes()


def test_maps_of_several_sets_and_undefined_figures(tmp_path, capsys):
    for name in ("one", "two"):
        make_set(tmp_path / "data" / name, train=0)
        for image in "abcd":
            pixels = target_mask() if name == "one" else np.zeros((40, 48), np.uint8)
            write(tmp_path / "data" / name / f"masks/{image}.png", pixels)
            write(tmp_path / "maps" / name / f"{image}.png", pixels)
    main(["--dataset", "one", "two", "--maps", "maps", "--protocol", "all"])
    one, two = (written(f"results/maps/{name}/metrics.json") for name in ("one", "two"))
    assert one["standard"]["iou"] == one["standard"]["pd"] == 1.0
    assert two["standard"]["iou"] == 1.0 and two["standard"]["pd"] is None
    assert two["basicirstd"]["pd"] is None and two["authors"]["f1"] == 0
    assert "n/a" in capsys.readouterr().out
    assert "--output" in fails(main, "--dataset", "one", "two", "--output", "x.json", capsys=capsys)


def test_mask_threshold_and_resized_masks(tmp_path):
    root = make_set(tmp_path / "data/tiny", train=0)
    for name in "abcd":
        write(root / f"masks/{name}.png", target_mask((80, 96)) // 4)
        write(tmp_path / f"maps/{name}.png", np.zeros((40, 48), np.uint8))
    write(root / "masks/a.png", target_mask((80, 96)))  # so that 63 is a grey, not a class
    for threshold, targets in (("128", 1), ("60", 4)):
        argv = ["--dataset", "tiny", "--maps", "maps", "--output", "o.json"]
        main([*argv, "--mask-threshold", threshold])
        assert written("o.json")["standard"]["targets"] == targets


def test_wrong_and_missing_maps_are_all_named(data, tmp_path, capsys):
    assert "python test.py --dataset tiny" in fails(main, "--dataset", "tiny", capsys=capsys)
    write(tmp_path / "results/tiny/c.png", np.zeros((40, 40), np.uint8))
    before = write(tmp_path / "results/tiny/metrics.json", "{}")
    assert "1 of the 2 images: d;" in fails(main, "--dataset", "tiny", capsys=capsys)
    write(tmp_path / "results/tiny/d.png", np.zeros((40, 44), np.uint8))
    message = fails(main, "--dataset", "tiny", capsys=capsys)
    assert "c.png: found 40x40 (width x height), expected 48x40" in message
    assert "d.png: found 44x40" in message and before.read_text() == "{}"
    write(tmp_path / "results/tiny/c.png", "text")
    assert "c.png: not a readable image" in fails(main, "--dataset", "tiny", capsys=capsys)


def test_several_runs_give_mean_and_standard_deviation(data, capsys):
    for seed, (left, right) in enumerate([(12, 16), (12, 15), (12, 14)]):  # 12, 9, 6 of 12 pixels
        for name in "cd":
            write(Path(f"r{seed}/tiny/{name}.png"), box(10, left, 3, right - left, (40, 48)))
    main(["--dataset", "tiny", "--workers", "1", "--results", "r0", "r1", "r2"])
    rows = [row.strip() for row in capsys.readouterr().out.splitlines()]
    ious = [row.split()[2] for row in rows if row.startswith("standard, r")]
    assert ious == ["100.00", "75.00", "50.00"]
    assert "75.00 ± 25.00" in rows[-1] and rows[-1].startswith("standard, 3 runs")
    assert written("r2/tiny/metrics.json")["standard"]["iou"] == 0.5
    assert not any(" - r0" in row or "*" in row for row in rows)  # seeds of one network
    message = fails(main, "--dataset", "tiny", "--results", "r0", "--maps", "x", capsys=capsys)
    assert "--results" in message and "--maps" in message


# --- test.py at work, twins --------------------------------------------------------------------------


@pytest.fixture
def ours(data) -> Path:
    """Finished maps of test.py."""
    for name in "cd":
        write(Path(f"results/tiny/{name}.png"), target_mask())
    says(Path("results/tiny"), "a.pt")
    return Path("results/tiny")


def says(folder: Path, weights: str) -> None:
    write_json(folder / "about.json", {"weights": weights, "images": ["c", "d"]})


def begins(folder: Path) -> None:
    write_json(folder / "unfinished.json", {})  # before about.json goes


OTHER, SAME = (partial(says, weights=f"{name}.pt") for name in "ba")


@pytest.mark.parametrize("happens", [begins, OTHER, SAME])
def test_maps_that_are_written_while_they_are_read_are_refused(ours, happens, monkeypatch, capsys):
    """The metrics of a mix of two networks' maps were written, with exit code 0."""

    def count_image(*arguments):
        if not (ours / "read").exists():
            (ours / "read").touch()
            happens(ours)
        return original(*arguments)

    original = script.count_image
    monkeypatch.setattr(script, "count_image", count_image)
    argv = ("--dataset", "tiny", "--workers", "1")
    assert "results/tiny: test.py wrote there" in fails(main, *argv, capsys=capsys)
    assert not (ours / "metrics.json").exists()
    if happens is not begins:
        main(argv)
        assert (ours / "metrics.json").exists()


def test_nothing_is_written_where_another_program_is_at_work(ours, monkeypatch, capsys):
    monkeypatch.setattr("ismallnet.files.LOCK_SECONDS", 0.1)
    with lock(ours, "test"):
        assert "results/tiny: test.py or eval.py" in fails(main, "--dataset", "tiny", capsys=capsys)
    assert not (ours / "metrics.json").exists()


def test_near_twins_of_training_images_are_left_out(ours, data, capsys):
    """Image d is a training image, a little brighter; it is found, and c is not."""
    write(data / "images/d.png", np.minimum(cv2.imread(str(data / "images/a.png"), 0) + 5, 250))
    write(ours / "c.png", np.zeros((40, 48), np.uint8))
    argv = ["--dataset", "tiny", "--workers", "1"]
    for flags, iou, images in (([], 0.5, 2), (["--without-twins"], 0, 1)):
        main(argv + flags)
        found = written(ours / "metrics.json")
        assert (found["standard"]["iou"], found["standard"]["images"]) == (iou, images)
    assert found["without_twins"] == 1
    assert "1 test images with a near twin" in capsys.readouterr().out
