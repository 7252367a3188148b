"""docs/curves.py: the learning curves of runs."""

import os
from pathlib import Path
from types import SimpleNamespace

import curves
import cv2
import pytest

from ismallnet.training.run import Run
from net import OUTPUTS


def log(folder: Path, start: int, stop: int, value: float) -> None:
    """One session of a run, from its step `start` on."""
    folder.mkdir(parents=True, exist_ok=True)
    run = Run(folder, {"args": {"batch_size": 1}, "environment": {}, "images": 1}, {}, 0.0)
    with run.session(SimpleNamespace(step=start - 1, steps=stop)):
        for step in range(start, stop):
            for name in OUTPUTS:
                run.scalars({f"loss/{name}": value, f"outputs/{name}_IoU": 0.5}, step)


def test_a_resumed_run_is_one_curve(tmp_path):
    """What was logged after the last checkpoint is there once: as the second session gave it."""
    log(tmp_path / "runs/x", 1, 8, 1.0)
    log(tmp_path / "runs/x", 5, 11, 0.5)
    first, second = sorted((tmp_path / "runs/x").glob("events*"), key=curves.begun)
    second = second.rename(second.with_name("events.out.tfevents.9999999999.vm.1"))
    os.utime(first)  # in a copy the first one may be the newer file
    os.utime(second, (1, 1))
    steps, values = curves.read_curve(tmp_path / "runs/x", "loss/mask")
    assert steps.tolist() == list(range(1, 11))
    assert values.tolist() == [1.0] * 4 + [0.5] * 6


def test_the_figure_has_a_row_for_each_run(tmp_path):
    for name in "ab":
        log(tmp_path / "runs" / name, 1, 9, 0.5)
    heights = []
    for names in ("a", "ab"):
        curves.main([*(f"runs/{name}" for name in names), "--output", "curves.png"])
        heights.append(cv2.imread("curves.png").shape[0])
    assert heights[1] == 2 * heights[0]


def test_a_folder_without_a_run(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit, match="2"):
        curves.main(["empty", "--output", "curves.png"])
    assert "empty: found no values of loss/" in capsys.readouterr().err
    assert not Path("curves.png").exists()
