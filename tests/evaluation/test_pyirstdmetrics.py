"""Against the public package pyirstdmetrics itself, in an environment of its own: SOAK=1.

It needs NumPy below 2, which this program's packages may not have. What it gives for the golden maps is
in tests/golden.
"""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import SOAK

from ismallnet.evaluation.protocols import evaluate

REQUIRED = ("pyirstdmetrics==1.0.2", "numpy<2")

pytestmark = pytest.mark.skipif(not SOAK, reason="installs a package of others: SOAK=1 (make soak)")

PROGRAM = """
import json, sys
import numpy as np
import py_irstd_metrics as peer

pixels = peer.CMMetrics(num_bins=1, threshold=0.5)
pixels.add_handler("iou", peer.IoUHandler(sample_based=False))
pixels.add_handler("niou", peer.IoUHandler(sample_based=True))
whole = peer.MatchingBasedMetrics(num_bins=1, matching_method=peer.OPDCMatching())
split = peer.HierarchicalIoUBasedErrorAnalysis(num_bins=1)
with np.load(sys.argv[1]) as file:
    for k in range(len(file.files) // 2):
        prob, mask = file[f"map{k}"] / 255.0, file[f"mask{k}"] >= 128
        for part in (pixels, whole, split):
            part.update(prob, mask)
one = lambda found, key: float(np.ravel(found[key])[0])
found = {"split": {key: one(split.get(), key) for key in split.get()}, "pixels": {}}
keys = {"pd": "probability_detection", "fa": "false_alarm", "hiou": "hiou"}
found["whole"] = {key: one(whole.get(), theirs) for key, theirs in keys.items()}
for key, value in pixels.get().items():
    found["pixels"][key] = float(value["binary"])
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def peer(tmp_path_factory):
    """Gives the package's metrics of (map, mask) pairs; skips where it cannot be installed."""
    folder = tmp_path_factory.mktemp("peer")
    python = folder / "environment" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    subprocess.run([sys.executable, "-m", "venv", str(folder / "environment")], check=True)
    install = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", *REQUIRED]
    if (done := subprocess.run(install, capture_output=True, text=True)).returncode:
        pytest.skip(f"{' and '.join(REQUIRED)} cannot be installed here: {done.stderr[-200:]}")

    def metrics(pairs: list[tuple[np.ndarray, np.ndarray]]) -> dict:
        arrays = {f"map{k}": pred for k, (pred, _) in enumerate(pairs)}
        arrays |= {f"mask{k}": mask for k, (_, mask) in enumerate(pairs)}
        np.savez(folder / "pairs.npz", **arrays)
        command = [str(python), "-c", PROGRAM, str(folder / "pairs.npz")]
        return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    return metrics


def agree(pairs: list, theirs: dict) -> str:
    """All metrics of the package and ours are the same to 1e-9; returns what they are. Not Pd and Fa of
    `standard`, which finds the most matches: the package takes the first that will do."""
    ours, expected = evaluate(pairs, "pyirstdmetrics"), theirs["split"] | theirs["whole"]
    assert ours == pytest.approx(expected, abs=1e-9)
    standard = evaluate(pairs)
    empty = sum(not (pred >= 128).any() and not (mask >= 128).any() for pred, mask in pairs)
    standard["niou"] -= empty / len(pairs)  # an image without anything counts 1 with us, 0 there
    expected = theirs["pixels"]
    assert {key: standard[key] for key in expected} == pytest.approx(expected, abs=1e-9)
    return f"all metrics the same; hIoU {100 * ours['hiou']:.2f}, IoU {100 * standard['iou']:.2f}"


def random_pair(rng: np.random.Generator, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Rectangles on a coarse grid, so that many distances are equal and many are 3 px."""
    side, step = (int(rng.integers(low, high)) for low, high in ((8, 40), (1, 4)))

    def rectangles() -> np.ndarray:
        scene = np.zeros((side, side), bool)
        for y, x in rng.integers(0, side // step, (rng.integers(0, 8), 2)) * step:
            height, width = rng.integers(1, 4, 2)
            scene[y : y + height, x : x + width] = True
        return scene

    mask, pred = rectangles(), rectangles()
    if k % 3 == 0:
        pred = mask ^ (rng.random(mask.shape) < 0.1)
    if k % 5 == 0:
        pred = np.roll(mask, (int(rng.integers(0, 4)), int(rng.integers(0, 3))), (0, 1))
    return pred.astype(np.uint8) * 255, mask.astype(np.uint8) * 255


def test_random_scenes(peer, tell):
    """Ties and all, together and in groups, so that nothing hides in a mean."""
    rng = np.random.default_rng(0)
    pairs = [random_pair(rng, k) for k in range(1000)]
    for group in (pairs, *(pairs[k : k + 50] for k in range(0, 1000, 50))):
        tell(f"pyirstdmetrics 1.0.2, {len(group)} random scenes", agree(group, peer(group)))
