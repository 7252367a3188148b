"""hIoU and its error split: hand-worked scenes, properties."""

import numpy as np
import pytest
from conftest import box, canvas

from ismallnet.evaluation.protocols import count_hiou, count_image, evaluate
from ismallnet.evaluation.tables import LOCALISATION, SEGMENTATION

EMPTY = np.zeros((40, 40), np.uint8)


def close(figures: dict, **expected: float) -> None:
    """All figures of the split; those that are not given are 0."""
    for key in (*SEGMENTATION, *LOCALISATION, "hiou", "pd", "fa"):
        assert figures[key] == pytest.approx(float(expected.get(key, 0)), abs=1e-15), key


# --- scenes by hand --------------------------------------------------------------------------------


def test_two_close_targets_predicted_as_one_component():
    """Targets of 2x2 with a column between, a component of 2x5 over both: overlap 4 of 10, distance
    1.5 px to each. One is paired; 4 of the component's pixels lie on the other."""
    mask = box(10, 13, 2, 2, onto=box(10, 10, 2, 2))
    f = evaluate([(box(10, 10, 2, 5), mask)], "hiou")
    close(
        f, hiou=0.2, seg_iou=0.4, seg_mrg_err=0.4, seg_itf_err=0.2, loc_iou=0.5, loc_s2m_err=0.5, pd=0.5
    )


def test_an_overlap_of_exactly_one_half_is_a_pair_however_far():
    """12 px in a row, 6 of them predicted: IoU 1/2, centroids 3 px apart; with 5 of them 5/12."""
    mask = box(5, 0, 1, 12)
    f = evaluate([(box(5, 0, 1, 6), mask)], "hiou")
    close(f, hiou=0.5, seg_iou=0.5, seg_pcp_err=0.5, loc_iou=1, pd=1)
    f = evaluate([(box(5, 0, 1, 5), mask)], "hiou")
    close(f, loc_itf_err=0.5, loc_pcp_err=0.5, fa=5 / 1600)


@pytest.mark.parametrize("offset, paired", [(3, 0), (2, 1)])
def test_exactly_three_pixels_are_not_near(offset, paired):
    f = evaluate([(canvas((10, 10 + offset)), canvas((10, 10)))], "hiou")
    if paired:  # without a common pixel: half of the union is each one's
        close(f, seg_itf_err=0.5, seg_pcp_err=0.5, loc_iou=1, pd=1)
    else:
        close(f, loc_itf_err=0.5, loc_pcp_err=0.5, fa=1 / 40000)


def test_a_second_component_at_a_target():
    """A target of 3x3, 6 of its pixels predicted, and a pixel beside them, 2 px from its centre."""
    pred = canvas((11, 13), onto=box(10, 10, 3, 2))
    f = evaluate([(pred, box(10, 10, 3, 3))], "hiou")
    close(
        f, hiou=1 / 3, seg_iou=2 / 3, seg_pcp_err=1 / 3, loc_iou=0.5, loc_m2s_err=0.5, pd=1, fa=1 / 1600
    )


def test_the_smallest_total_distance_decides_before_the_overlap_does():
    """In one row, 1x3 px each: targets A and B with their centres at 11 and 15, components X and Y at
    13 and 19. A-X and B-Y cost 2 + 4 px, A-Y and B-X 8 + 2. No pair overlaps by a half; of the first
    two A-X is near and is kept, with IoU 1/5. B and Y are left: B is near X, Y near none."""
    mask = box(5, 14, 1, 3, onto=box(5, 10, 1, 3))
    pred = box(5, 18, 1, 3, onto=box(5, 12, 1, 3))
    f = evaluate([(pred, mask)], "hiou")
    third = 1 / 3
    close(
        f,
        **{"hiou": third / 5, "seg_iou": 0.2, "seg_mrg_err": 0.2, "seg_itf_err": 0.2},
        **{"seg_pcp_err": 0.4, "loc_iou": third, "loc_itf_err": third, "loc_s2m_err": third},
        **{"pd": 0.5, "fa": 3 / 1600},
    )


def test_empty_images():
    """Nothing to find and nothing found changes nothing under hiou. The other program counts a false
    component and a missed target for it."""
    perfect = (box(10, 10, 3, 3),) * 2
    close(evaluate([(EMPTY, EMPTY)], "hiou"))
    close(evaluate([], "hiou"))
    close(evaluate([perfect, (EMPTY, EMPTY)], "hiou"), hiou=1, seg_iou=1, loc_iou=1, pd=1)
    close(evaluate([(EMPTY, EMPTY)], "pyirstdmetrics"), loc_itf_err=0.5, loc_pcp_err=0.5)
    third = 1 / 3
    f = evaluate([perfect, (EMPTY, EMPTY)], "pyirstdmetrics")
    close(f, hiou=third, seg_iou=1, loc_iou=third, loc_itf_err=third, loc_pcp_err=third, pd=0.5)


def test_images_without_components_or_without_targets():
    """Under hiou a missed target; the other program adds a false component. And the other way."""
    target = box(10, 10, 3, 3)
    close(evaluate([(EMPTY, target)], "hiou"), loc_pcp_err=1)
    close(evaluate([(EMPTY, target)], "pyirstdmetrics"), loc_pcp_err=0.5, loc_itf_err=0.5)
    close(evaluate([(target, EMPTY)], "hiou"), loc_itf_err=1, fa=9 / 1600)
    f = evaluate([(target, EMPTY)], "pyirstdmetrics")
    close(f, loc_itf_err=0.5, loc_pcp_err=0.5, fa=9 / 1600)


def test_the_mask_threshold():
    pred, mask = box(10, 10, 3, 3), box(10, 10, 3, 3) // 4  # 63
    assert count_hiou(pred, mask)["pairs"] == 0
    names = ("hiou", "pyirstdmetrics", "basicirstd")
    counts = count_image(pred, mask, names, threshold=60)
    assert [counts[name].get("pairs") for name in names] == [1, 1, None]
    assert counts["basicirstd"]["targets"] == 0  # a program of others, with its own threshold


# --- properties -------------------------------------------------------------------------------------


def blobs(rng: np.random.Generator) -> np.ndarray:
    scene = np.zeros((20, 20), np.uint8)
    for y, x in rng.integers(0, 20, (rng.integers(0, 6), 2)):
        height, width = rng.integers(1, 4, 2)
        scene[y : y + height, x : x + width] = 255
    return scene


def test_splits_add_up_to_one_and_order_does_not_matter():
    rng = np.random.default_rng(1)
    pairs = [(blobs(rng), blobs(rng)) for _ in range(30)]
    for mask in [blobs(rng) for _ in range(30)]:  # moved and damaged
        moved = np.roll(mask, rng.integers(0, 3, 2), (0, 1))
        pairs.append((moved * (rng.random(mask.shape) < 0.9), mask))
    for protocol in ("hiou", "pyirstdmetrics"):
        assert evaluate(pairs[::-1], protocol) == evaluate(pairs, protocol)
        for some in (pairs, *(pairs[k : k + 6] for k in range(0, 60, 6))):
            f = evaluate(some, protocol)
            for split in (SEGMENTATION, LOCALISATION):
                assert sum(f[key] for key in split) == pytest.approx(1, abs=1e-12)
            assert f["hiou"] == f["seg_iou"] * f["loc_iou"]
    assert evaluate(pairs, "hiou")["hiou"] > evaluate(pairs, "pyirstdmetrics")["hiou"] > 0
