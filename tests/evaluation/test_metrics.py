import itertools
import json
from fractions import Fraction

import cv2
import numpy as np
import pytest
from conftest import GOLDEN, canvas

from ismallnet.evaluation.metrics import (
    PD_FA_THRESHOLDS,
    Components,
    auc,
    components,
    count_levels,
    count_pd_fa,
    count_standard,
    distances,
    match,
    pd_fa_curve,
    pixel_curves,
    quantise,
    total,
)
from ismallnet.evaluation.protocols import PROTOCOLS, evaluate
from ismallnet.evaluation.tables import lay_out

CASES = {
    path.parent.name: json.loads(path.read_text()) for path in GOLDEN.glob("metrics/*/expected.json")
}


def golden_pairs(case):
    folder = GOLDEN / "metrics" / case
    paths = sorted(folder.glob("*_pred.png"))
    return [(cv2.imread(str(p), 0), cv2.imread(str(p).replace("_pred", "_mask"), 0)) for p in paths]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("case", CASES)
def test_golden(case, protocol):
    found = evaluate(golden_pairs(case), protocol)
    for name, value in CASES[case].get(protocol, {}).items():
        assert found[name] == pytest.approx(value, abs=1e-9), name


# --- matching, the worked examples -----------------------------------------------------------------


@pytest.mark.parametrize(
    "pred, mask, matched, false_pixels",
    [
        ([(100, 101), (102, 99)], [(100, 100), (100, 103)], 2, 0),  # the most matches, not the nearest
        ([(97, 99), (97, 100), (97, 101), (98, 100), (100, 101)], [(100, 100)], 1, 4),  # the nearest
        ([(98, 100), (102, 99), (102, 100), (102, 101)], [(100, 100)], 1, 1),  # as near: the larger
    ],
)
def test_matching_by_hand(pred, mask, matched, false_pixels):
    n = count_standard(canvas(*pred), canvas(*mask))
    assert (n["matched"], n["false_pixels"]) == (matched, false_pixels)


@pytest.mark.parametrize(
    "offset, matched", [((0, 3), 0), ((0, 2), 1), ((2, 2), 1), ((3, 0), 0), ((2, 3), 0)]
)
def test_exactly_three_pixels_are_not_less_than_three(offset, matched):
    pred = canvas((100 + offset[0], 100 + offset[1]))
    assert count_standard(pred, canvas((100, 100)))["matched"] == matched


def test_three_pixels_between_thirds():
    """Centroids (10 1/3, y) and (13 1/3, y): 3 px apart whatever rounding does to the thirds."""
    mask = canvas((10, 50), (10, 51), (11, 51))
    pred = canvas((13, 50), (13, 51), (14, 51))
    for shift in range(60):
        n = count_standard(np.roll(pred, shift, 0), np.roll(mask, shift, 0))
        assert n["matched"] == 0


@pytest.mark.parametrize("further, matched", [(5e-10, 0), (2e-9, 1), (2e-7, 1)])
def test_distances_that_differ_by_less_than_a_billionth_of_a_pixel_are_equal(further, matched):
    targets = Components(np.array([1]), np.array([[0.0, 0.0]]))
    predicted = Components(np.array([5, 1]), np.array([[0.0, 1 + further], [1.0, 0.0]]))
    assert match(targets, predicted) == [(0, matched)]


@pytest.mark.parametrize("step", [0.3, 0.7, 1.1, 1.3])
@pytest.mark.parametrize("areas, pairs", [([9, 1, 4], [(0, 0), (1, 1)]), ([4, 1, 9], [(0, 1), (1, 2)])])
def test_equal_totals_of_unequal_distances_are_decided_by_area(step, areas, pairs):
    """On a diagonal, in steps: targets at 0 and 1, components at -0.4, 0.2 and 2. The second is
    matched, and the first (0.4 + 0.8) or the third (0.2 + 1): the larger, whatever rounding does."""
    diagonal = step * np.array([[1.0, 1.0]])
    targets = Components(np.ones(2, int), np.array([[0.0], [1.0]]) * diagonal)
    predicted = Components(np.array(areas), np.array([[-0.4], [0.2], [2.0]]) * diagonal)
    assert match(targets, predicted) == pairs


def test_a_large_prediction_does_not_outweigh_a_distance_or_a_pair():
    """Areas up to a whole 4096x4096 frame."""
    targets = Components(np.ones(2, int), np.array([[0.0, 0.0], [0.0, 4.0]]))
    predicted = Components(np.array([2**24, 1, 1]), np.array([[0.0, 2.0], [0.0, 1.9], [0.0, 6.9]]))
    assert match(targets, predicted) == [(0, 1), (1, 0)]  # 1.9 + 2, not 2 + 2.1 or 2 alone
    two = Components(predicted.area[:2], predicted.centroid[[0, 2]])
    assert match(targets, two) == [(0, 0), (1, 1)]


def best_by_brute_force(targets, predicted):
    distance, best = distances(targets, predicted), None
    options = range(-1, len(predicted))
    for choice in itertools.product(options, repeat=len(targets)):
        used = [p for p in choice if p >= 0]
        if len(set(used)) < len(used):
            continue
        pairs = [(t, p) for t, p in enumerate(choice) if p >= 0]
        if any(distance[t, p] >= 3 for t, p in pairs):
            continue
        key = (-len(pairs), round(sum(distance[t, p] for t, p in pairs), 7), -sum(predicted.area[used]))
        best = min(best, key) if best else key
    return best


def test_matching_equals_brute_force():
    rng = np.random.default_rng(0)
    for _ in range(400):
        t, p = rng.integers(1, 5, 2)
        grid = rng.integers(1, 3)
        targets = Components(np.ones(t, int), rng.integers(0, 7, (t, 2)) / grid)
        predicted = Components(rng.integers(1, 5, p), rng.integers(0, 7, (p, 2)) / grid)
        pairs = match(targets, predicted)
        distance = distances(targets, predicted)
        total = round(sum(distance[pair] for pair in pairs), 7)
        area = sum(predicted.area[p] for _, p in pairs)
        assert (-len(pairs), total, -area) == best_by_brute_force(targets, predicted)
        assert len({t for t, _ in pairs}) == len({p for _, p in pairs}) == len(pairs)


def test_components_are_eight_connected_and_in_row_major_order():
    found = components(canvas((5, 9), (6, 8), (7, 7), (6, 20), (5, 40), (5, 41)) > 0)
    assert found.area.tolist() == [3, 2, 1]
    assert found.centroid.tolist() == [[6, 8], [5, 40.5], [6, 20]]


# --- figures ---------------------------------------------------------------------------------------


def test_standard_metrics_by_hand():
    """Image 1: target of 4 px, 3 found, 1 beside: IoU 3/5. Image 2: empty, and nothing found. Image
    3: target missed, a false alarm of 2 px."""
    mask1 = canvas((10, 10), (10, 11), (11, 10), (11, 11), shape=(20, 30))
    pred1 = canvas((10, 10), (10, 11), (11, 10), (9, 10), shape=(20, 30))
    empty = np.zeros((20, 30), np.uint8)
    mask3, pred3 = canvas((5, 5), shape=(20, 30)), canvas((15, 25), (15, 26), shape=(20, 30))
    f = evaluate([(pred1, mask1), (empty, empty), (pred3, mask3)])
    assert f["iou"] == 3 / 8  # 3 over 5 + 0 + 3
    assert f["niou"] == pytest.approx((3 / 5 + 1 + 0) / 3, abs=1e-15)
    assert (f["pd"], f["fa"]) == (1 / 2, 2 / 1800)
    assert (f["precision"], f["recall"], f["f1"]) == (3 / 6, 3 / 5, 6 / 11)
    assert (f["target_precision"], f["target_f1"]) == (1 / 2, 2 / 4)


def test_undefined_metrics_are_none():
    empty = np.zeros((8, 8), np.uint8)
    f = evaluate([(empty, empty)])
    assert (f["iou"], f["niou"], f["fa"]) == (1.0, 1.0, 0.0)
    assert f["pd"] is f["precision"] is f["recall"] is f["f1"] is f["target_f1"] is None
    peer = evaluate([(empty, empty)], "basicirstd")
    assert peer["iou"] is None and peer["pd"] is None and peer["fa"] == 0
    assert evaluate([(empty, empty)], "sctransnet")["niou"] == 0
    assert evaluate([(empty, empty)], "authors")["f1"] == 0
    for protocol in PROTOCOLS:
        none = 0 if protocol in ("hiou", "pyirstdmetrics") else None  # there 0 / 0 is 0
        assert evaluate([], protocol)["fa"] == none


def test_metrics_do_not_depend_on_order_flips_or_how_the_set_is_cut():
    pairs = golden_pairs("mixed")
    whole = evaluate(pairs)
    assert evaluate(pairs[::-1]) == whole
    assert evaluate([(p[::-1].T, m[::-1].T) for p, m in pairs]) == whole
    halves = [[count_standard(pred, mask) for pred, mask in pairs[k::2]] for k in (0, 1)]
    assert PROTOCOLS["standard"].metrics(total(halves[0] + halves[1])) == whole


def test_images_of_any_size_and_thresholds_of_masks():
    assert evaluate([(np.full((1, 1), 255, np.uint8),) * 2])["iou"] == 1.0
    assert evaluate([(np.full((7, 4000), 255, np.uint8),) * 2])["pd"] == 1.0
    pred, mask = canvas((50, 50)), canvas((50, 50)) // 4
    assert count_standard(pred, mask)["targets"] == 0
    assert count_standard(pred, mask, threshold=60)["matched"] == 1


def test_bad_arguments_of_evaluate():
    with pytest.raises(ValueError, match="protocol"):
        evaluate([], "ours")
    with pytest.raises(ValueError, match="shape"):
        evaluate([(np.zeros((2, 2), np.uint8), np.zeros((2, 3), np.uint8))])


def test_quantise_rounds_float32_values_once_and_half_to_even():
    assert quantise(np.array([0, 0.5, 1.5, 2.5, 127.5, 255]) / 255).tolist() == [0, 0, 2, 2, 128, 255]
    middles = (np.arange(255) + 0.5).astype(np.float32) / np.float32(255)
    for near in (middles, np.nextafter(middles, np.float32(0)), np.nextafter(middles, np.float32(1))):
        exact = [round(255 * Fraction(float(p))) for p in near]  # half to even
        assert quantise(near).tolist() == exact


# --- curves ----------------------------------------------------------------------------------------


def test_pixel_curves_by_hand():
    pred, mask = np.array([[200, 100, 50, 0]], np.uint8), np.array([[255, 0, 255, 0]], np.uint8)
    points = pixel_curves(count_levels(pred, mask))
    assert [p["threshold"] for p in points] == list(range(1, 256))
    at = {p["threshold"]: p for p in points}
    assert (at[50]["tpr"], at[50]["fpr"], at[50]["precision"]) == (1.0, 0.5, 2 / 3)
    assert (at[128]["tpr"], at[128]["fpr"], at[128]["precision"]) == (0.5, 0.0, 1.0)
    assert (at[255]["tpr"], at[255]["precision"]) == (0.0, None)
    assert auc(points) == 0.5 * 0.5 + 0.5 * 1.0  # steps (0, .5), (.5, .5), (.5, 1), (1, 1)
    points = pixel_curves(count_levels(*np.zeros((2, 4, 4), np.uint8)))  # without targets
    assert points[0]["tpr"] is None and auc(points) is None


def test_pd_fa_curve_agrees_with_the_standard_protocol_at_128():
    pairs = golden_pairs("grey")
    curve = pd_fa_curve(sum(count_pd_fa(pred, mask) for pred, mask in pairs))
    assert [p["threshold"] for p in curve] == list(PD_FA_THRESHOLDS) and len(curve) == 33
    at_128 = next(p for p in curve if p["threshold"] == 128)
    f = evaluate(pairs)
    assert (at_128["pd"], at_128["fa"]) == (f["pd"], f["fa"])
    slow = [evaluate([((p >= t).astype(np.uint8) * 255, m) for p, m in pairs]) for t in (8, 248)]
    fast = [next(p for p in curve if p["threshold"] == t) for t in (8, 248)]
    assert [(f["pd"], f["fa"]) for f in slow] == [(p["pd"], p["fa"]) for p in fast]


def test_a_table_fits_the_terminal():
    """Columns that do not fit follow below, with the first one again."""
    cells = [["", "one", "two", "three"], ["row", "1", "2", "3"]]
    assert lay_out(cells, 40) == "     one  two  three\nrow    1    2      3"
    assert lay_out(cells, 14) == "     one  two\nrow    1    2\n\n     three\nrow      3"
