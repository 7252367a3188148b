"""95 % intervals and paired differences: values that can be worked out, and what eval.py says."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import box, fails, make_set, target_mask, write

from eval import main
from ismallnet.evaluation.intervals import bootstrap, differences, interval, intervals
from ismallnet.evaluation.metrics import metrics_standard, total
from ismallnet.evaluation.protocols import PROTOCOLS, count_image
from ismallnet.evaluation.tables import difference_table

NORMAL = 1.959964  # 95 % of a normal distribution lie within so many standard deviations


def image(iou: float = 0.5, targets: int = 1, matched: int = 1, false_pixels: int = 0) -> dict:
    """Counts of an image of 1000 px with this IoU, of `standard`; its target has 100 px."""
    tp = round(100 * iou)
    counts = {"images": 1, "tp": tp, "fp": 0, "fn": 100 - tp, "image_iou": iou}
    targets = {"targets": targets, "matched": matched, "components": matched}
    return counts | targets | {"false_pixels": false_pixels, "pixels": 1000}


def drawn(images: list[dict], seed: int = 0) -> dict[str, np.ndarray]:
    return bootstrap(images, "standard", seed=seed)


def ends(images: list[dict], key: str, seed: int = 0) -> list[float] | None:
    return interval(drawn(images, seed)[key], len(images))


# --- intervals ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("images", [2, 37, 3000])
def test_constant_images_have_intervals_of_width_0(images):
    found = intervals(drawn([image(1 / 3, 3, 2, 7)] * images), images)
    for key, value in {"iou": 33 / 100, "niou": 1 / 3, "pd": 2 / 3, "fa": 7 / 1000}.items():
        low, high = found[key]
        assert (low, high) == pytest.approx((value, value), abs=1e-12), key


def test_pd_has_the_binomial_interval():
    """400 images of one target, 300 found: 0.75 ± 1.96 sqrt(0.75 · 0.25 / 400) = 0.75 ± 0.0424. The
    ends of 1,000 draws scatter by about 0.001."""
    images = [image(matched=int(k < 300)) for k in range(400)]
    half = NORMAL * np.sqrt(0.75 * 0.25 / 400)
    off = np.array([ends(images, "pd", seed=seed) for seed in range(10)]) - (0.75 - half, 0.75 + half)
    assert np.abs(off).max() < 0.006 and np.abs(off.mean(axis=0)).max() < 0.003


def test_the_draws_are_those_of_the_published_intervals():
    """The first of 5 images, with seed 0, as they were when RESULTS.md was written."""
    values = drawn([image(k / 4) for k in range(5)])["niou"]
    assert values[:8] == pytest.approx([0.6, 0.5, 0.75, 0.25, 0.2, 0.3, 0.6, 0.55])


def test_undefined_figures_have_no_interval():
    found = intervals(drawn([image(targets=0, matched=0)] * 4), 4)
    assert found["pd"] is None and found["fa"] == [0, 0]
    assert set(intervals(drawn([image()]), 1).values()) == {None}  # one image says nothing of others


def test_draws_without_a_target_are_left_out():
    """One of two images has a target, which is found: Pd is 1 wherever it is defined."""
    values = drawn([image(), image(targets=0, matched=0)])["pd"]
    assert 150 < np.isnan(values).sum() < 350 and interval(values, 2) == [1, 1]  # a quarter


def test_all_protocols_have_intervals_around_their_figures():
    rng, counts = np.random.default_rng(0), []
    for _ in range(60):
        pred = np.where(rng.random((40, 48)) < 0.01, 255, target_mask() * (rng.random() < 0.8))
        counts.append(count_image(pred.astype(np.uint8), target_mask(), PROTOCOLS))
    for name, protocol in PROTOCOLS.items():
        rows = [n[name] for n in counts]
        metrics, values = protocol.metrics(total(rows)), bootstrap(rows, name)
        assert set(values) == {"iou", "niou", "pd", "fa", "hiou"} & set(metrics)
        for key, (low, high) in intervals(values, 60).items():
            assert low < metrics[key] < high and len(values[key]) == 1000, (name, key)


# --- differences ------------------------------------------------------------------------------------


def compare(first: list[dict], second: list[dict]) -> dict:
    both = ((metrics_standard(total(images)), drawn(images)) for images in (first, second))
    return differences(*both, len(first))


def test_a_constant_difference_is_certain_although_the_intervals_overlap():
    rng = np.random.default_rng(0)
    values = rng.integers(10, 80, 50) / 100
    first, second = [image(v) for v in values], [image(v + 0.02) for v in values]
    one, two = (ends(images, "niou") for images in (first, second))
    assert two[0] < one[1] - 0.05  # they overlap by much more than the difference
    found = compare(first, second)
    for key in ("niou", "iou"):
        assert found[key].value == pytest.approx(0.02) and found[key].certain
        assert (found[key].low, found[key].high) == pytest.approx((0.02, 0.02), abs=1e-8)
    assert not found["fa"].certain and found["fa"].value == 0


def test_a_difference_that_changes_its_sign_is_not_certain():
    first = [image(0.5)] * 40
    second = [image(0.7 if k % 2 else 0.32) for k in range(40)]
    found = compare(first, second)["niou"]
    assert found.value == pytest.approx(0.01) and found.low < 0 < found.high and not found.certain


def test_undefined_differences():
    none = [image(targets=0, matched=0)] * 5
    assert compare(none, none)["pd"] is None and compare([image()], [image(0.7)])["niou"] is None
    row = difference_table({"b - a": compare(none, none)}).split("\n")[-1]
    assert "n/a" in row and "*" not in row


# --- eval.py ----------------------------------------------------------------------------------------


ARGV = ["--dataset", "tiny", "--workers", "1"]


@pytest.fixture
def two_runs(tmp_path):
    """Of the 3x4 px of each target run a finds 9, run b 10 and run c, by turns, 6 and 12."""
    names = [f"i{k:02d}" for k in range(12)]
    make_set(tmp_path / "data/tiny", names=["t", *names], train=1)
    nine, six = box(10, 12, 3, 3, (40, 48)), box(10, 12, 3, 2, (40, 48))
    ten = box(10, 15, 1, 1, (40, 48), onto=nine)
    for k, name in enumerate(names):
        for run, pred in (("a", nine), ("b", ten), ("c", target_mask() if k % 2 else six)):
            write(Path(run) / "tiny" / f"{name}.png", pred)


def test_eval_writes_and_shows_intervals(two_runs, capsys):
    main([*ARGV, "--results", "c", "--protocol", "all"])
    plain = capsys.readouterr().out
    assert "(" not in plain.split("metrics.json\n")[1].split("\n\n")[0]
    found = json.loads(Path("c/tiny/metrics.json").read_text())
    assert list(found["standard"]["interval"]) == ["iou", "niou", "pd", "fa"]
    low, high = found["standard"]["interval"]["iou"]
    half = NORMAL * 0.25 / np.sqrt(12)  # of the mean of 0.5 and 1; the intervals end between draws
    assert low == pytest.approx(0.75 - half, abs=0.03) and high == pytest.approx(0.75 + half, abs=0.03)
    assert found["hiou"]["interval"]["hiou"] == pytest.approx([low, high])
    assert found["standard"]["interval"]["pd"] == [1, 1] and "niou" not in found["hiou"]["interval"]
    main([*ARGV, "--results", "c", "--interval"])
    shown = capsys.readouterr().out.splitlines()[-1]
    assert f"75.00 ({100 * low:.2f}–{100 * high:.2f})" in shown and "100.00 (100.00–100.00)" in shown


def test_eval_says_which_differences_are_certain(two_runs, capsys):
    main([*ARGV, "--results", "a", "b", "c"])
    lines = capsys.readouterr().out.splitlines()
    b, c = (next(line for line in lines if f"{run} - a, standard" in line) for run in "bc")
    assert b.count("+8.33 (+8.33 to +8.33) *") == 2  # IoU and nIoU: 10/12 - 9/12
    assert "+0.00 (-" in c and "*" not in c
    assert not any("±" in line for line in lines)  # three networks, not seeds of one


def test_several_folders_of_maps(two_runs, capsys):
    main([*ARGV, "--maps", "a", "b/tiny", "--protocol", "hiou"])
    out = capsys.readouterr().out
    assert "b/tiny - a, hiou" in out and "±" not in out  # no mean over other people's methods
    assert all(Path(f"results/{run}/tiny/metrics.json").exists() for run in "ab")
    message = fails(main, *ARGV, "--maps", "a", "a/", capsys=capsys)
    assert "results/a/tiny/metrics.json" in message
    assert "--output" in fails(main, *ARGV, "--maps", "a", "b", "--output", "x.json", capsys=capsys)


def test_runs_of_different_images_are_not_compared(two_runs, capsys):
    Path("b/tiny/i03.png").unlink()
    assert "b/tiny: " in fails(main, *ARGV, "--results", "a", "b", capsys=capsys)
    assert not Path("a/tiny/metrics.json").exists()
    message = fails(main, *ARGV, "--results", "a", "ghost", capsys=capsys)
    assert "ghost/tiny: " in message and "python test.py --dataset tiny" in message
