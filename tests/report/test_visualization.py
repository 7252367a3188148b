import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import box, fails, make_set, picture, target_mask, write

import eval as evaluation
import utils
from ismallnet.files import lock
from ismallnet.report.outcome import COLOURS, Layers, Region, outcome
from ismallnet.report.panels import CAPTION, draw_outcome, panel
from visualization import main

GREEN, RED, YELLOW = (COLOURS[kind] for kind in ("hit", "miss", "false alarm"))


@pytest.fixture
def results(data, tmp_path) -> Path:
    """data/tiny decoupled, its maps: image c found, image d missed with a false alarm."""
    utils.main(["--dataset", "tiny"])
    write(tmp_path / "results/tiny/c.png", target_mask())
    write(tmp_path / "results/tiny/d.png", box(30, 40, 2, 2, (40, 48)))
    return tmp_path / "results/tiny"


def colours(path) -> set:
    """The outcome colours in a panel, its legend left out."""
    pixels = cv2.imread(str(path))[:-CAPTION, :, ::-1].reshape(-1, 3)
    return {colour for colour in (GREEN, RED, YELLOW) if (pixels == colour).all(1).sum() > 20}


def test_panels_and_curves(results):
    evaluation.main(["--dataset", "tiny"])
    main(["--dataset", "tiny"])
    assert colours(results / "figures/c.png") == {GREEN}
    assert colours(results / "figures/d.png") == {RED, YELLOW}
    assert cv2.imread(str(results / "curves.png")).std() > 5


def test_metrics_of_other_maps_are_left_out(results, capsys):
    for weights in ("a.pt", "b.pt"):
        write(results / "about.json", json.dumps({"weights": weights, "selected_on": "nothing"}))
        if weights == "a.pt":
            evaluation.main(["--dataset", "tiny"])
            capsys.readouterr()
        main(["--dataset", "tiny"])
        out = capsys.readouterr().out
        assert ("metrics.json: of another weights, left out" in out) == (weights == "b.pt")
        assert (results / "curves.png").exists() == ("standard" in out) == (weights == "a.pt")
    assert "type python eval.py --dataset tiny" in out


def test_unfinished_maps_are_refused(results, capsys):
    write(results / "unfinished.json", "{}")
    for script in (main, evaluation.main):
        assert "test.py was interrupted there" in fails(script, "--dataset", "tiny", capsys=capsys)


def test_outcome_by_component():
    mask, pred = target_mask(), np.zeros((40, 48), np.uint8)
    pred[30, 30] = 128
    missed = outcome(pred, mask)  # the worst comes first
    assert [region.kind for region in missed.regions] == ["miss", "false alarm"]
    assert missed.centre == (11, 13.5) and [missed.count(kind) for kind in COLOURS] == [1, 1, 0]
    pred[11:13, 13:15] = 255
    found = outcome(pred, mask)
    false, hit = found.regions
    assert (false.kind, hit.kind) == ("false alarm", "hit")
    assert hit.box == (slice(11, 13), slice(13, 15)) and hit.pixels.all() and false.pixels.sum() == 1
    assert [target.kind for target in found.targets] == ["hit"]
    assert found.iou == 4 / 13


def test_a_single_pixel_is_visible():
    """One pixel in 388x456 is tinted, and framed in at least 2 px lines."""
    image = np.full((388, 456, 3), 100, np.uint8)
    region = Region("miss", np.s_[200:201, 300:301], np.ones((1, 1), bool), (200, 300))
    picture = draw_outcome(image, [region], 320 / 456)
    assert (picture == RED).all(2).sum() >= 30


@pytest.mark.parametrize("shape", [(40, 48), (1, 1), (7, 4000), (4000, 2), (388, 456)])
def test_panels_of_any_shape(shape):
    image = np.repeat(picture(0, shape)[..., None], 3, 2)
    empty = np.zeros(shape, np.uint8)
    drawn = panel("x", Layers(image, *[empty] * 4), outcome(empty, empty))
    assert drawn.dtype == np.uint8 and drawn.ndim == 3


def test_missing_stages_name_the_next_command(data, results, tmp_path, capsys):
    (data / "maps.json").unlink()
    assert "python utils.py --dataset tiny" in fails(main, "--dataset", "tiny", capsys=capsys)
    make_set(tmp_path / "data/other")
    assert "python test.py --dataset other" in fails(main, "--dataset", "other", capsys=capsys)


def test_figures_for_papers_are_vectors_and_repeat(tmp_path, capsys):
    shape = (16, 16)  # surfaces take long to write
    make_set(tmp_path / "data" / "tiny", names="abc", train=1, shape=shape)
    for name in "bc":
        write(Path("results/run/tiny") / f"{name}.png", target_mask(shape))
        write(Path("other/tiny") / f"{name}.png", np.zeros(shape, np.uint8))
    argv = ["--dataset", "tiny", "--results", "results/run", "--figure", "paper"]
    folder = Path("results/run/tiny/paper")
    files = [folder / f"{name}.{kind}" for name in ("panels", "surfaces") for kind in ("pdf", "svg")]
    drawn = []
    for chosen in ([], ["--images", "b", "c"]):
        main([*argv, *chosen, "--compare", "other/tiny"])
        drawn.append([path.read_bytes() for path in files])
    assert drawn[0] == drawn[1] and drawn[0][0].startswith(b"%PDF")
    for word in (b">image<", b">mask<", b">run<", b">other<", b">b<", b">c<"):
        assert word in drawn[0][1], word
    assert "found no zz in the test list" in fails(main, *argv, "--images", "zz", capsys=capsys)
    assert not (folder.parent / "report").exists()


def test_metrics_and_label_maps_of_another_threshold_are_not_shown(data, capsys):
    for name in "abcd":
        soft = target_mask()
        soft[9, 12:16] = 150
        write(data / f"masks/{name}.png", soft)
        write(Path(f"results/tiny/{name}.png"), target_mask())
    higher = ["--dataset", "tiny", "--mask-threshold", "200"]
    utils.main(higher)
    evaluation.main(["--dataset", "tiny"])
    assert "mask threshold 200, expected" in fails(main, "--dataset", "tiny", capsys=capsys)
    main(higher)
    said = capsys.readouterr().out
    assert "metrics.json: of another mask_threshold, left out" in said and "standard" not in said
    evaluation.main(higher)
    main(higher)
    said = capsys.readouterr().out
    assert "left out" not in said and "standard" in said and Path("results/tiny/curves.png").exists()


def test_curves_of_several_runs_in_one_figure(results, tmp_path, capsys):
    for name in "cd":
        write(Path(f"theirs/{name}.png"), target_mask())
    argv = ["--dataset", "tiny", "--figure", "curves", "--compare"]
    evaluation.main(["--dataset", "tiny"])
    assert "theirs: found no curves" in fails(main, *argv, "theirs", capsys=capsys)
    evaluation.main(["--dataset", "tiny", "--maps", "theirs"])
    main([*argv, "theirs"])
    drawn = (results / "paper/curves.svg").read_text()
    assert ">results<" in drawn and ">theirs<" in drawn and (results / "paper/curves.pdf").exists()
    (tmp_path / "old/theirs").mkdir(parents=True)
    assert "one name" in fails(main, *argv, "theirs", "old/theirs", capsys=capsys)


def test_maps_that_are_written_while_they_are_drawn_are_refused(results, monkeypatch, capsys):
    def slow(*arguments):
        write(results / "about.json", "{}")
        return outcome(*arguments)

    monkeypatch.setattr("visualization.outcome", slow)
    error = fails(main, "--dataset", "tiny", "--workers", "1", capsys=capsys)
    assert "results/tiny: test.py wrote there" in error
    assert not (results / "report/index.html").exists()


def test_nothing_is_drawn_where_another_program_is_at_work(results, monkeypatch, capsys):
    monkeypatch.setattr("ismallnet.files.LOCK_SECONDS", 0.1)
    with lock(results, "test.py writes maps"):
        assert "results/tiny: test.py, eval.py" in fails(main, "--dataset", "tiny", capsys=capsys)
    assert not (results / "figures").exists()
