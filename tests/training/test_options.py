"""The command line of a training: values and flags that it refuses."""

from pathlib import Path

import pytest
import torch
from conftest import fails, make_set
from runs import RUN, TINY, run

from ismallnet.training import options
from train import build_parser, main


@pytest.fixture(autouse=True)
def data(tmp_path) -> Path:
    return make_set(tmp_path / "data" / "tiny", names="abcdefgh", train=6)


@pytest.mark.parametrize(
    "argv, message",
    [
        (["--crop", "16"], "--crop: found 16, expected 32"),
        (["--batch-size", "0"], "--batch-size"),
        (["--lr", "nan"], "--lr"),
        (["--last-crop", "16"], "--last-crop: found 16, expected 32"),
        (["--last-share", "1.5"], "--last-share: found 1.5, expected 0 to 1"),
        (["--device", "cuda"], "--device cuda: not available here"),
    ],
)
def test_bad_arguments(argv, message, capsys):
    if argv[0] == "--device" and torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    assert message in fails(main, *TINY, *argv, capsys=capsys)


@pytest.mark.parametrize(
    "argv, message",
    [
        ("--last-share 0.1", "--last-share: has no effect without --last-crop; leave it out"),
        ("--schedule triangle --warmup 0.1", "--warmup: has no effect beside --schedule triangle"),
        ("--init w.pt --prior 0.1", "--prior: has no effect beside --init"),
        (
            "--recipe authors --contrast 0 --last-crop 64",
            "--last-crop, --contrast: has no effect",
        ),
    ],
)
def test_a_flag_that_has_no_effect_is_refused(argv, message, capsys):
    assert message in fails(main, *TINY, *argv.split(), capsys=capsys)


def test_a_config_may_hold_what_has_no_effect():
    """It holds all arguments, also those that the run did not use."""
    run("--epochs", 1, "--max-minutes", 0, "--last-crop", 64, "--last-share", 0.3)
    args = options.parse(build_parser(), ["--config", str(RUN / "config.json"), "--recipe", "authors"])
    assert args.augment == "authors" and (args.last_crop, args.last_share) == (64, 0.3)


def test_a_data_set_that_is_not_there_leaves_no_folder(capsys):
    message = fails(main, "--dataset", "tinny", capsys=capsys)
    assert "data/tinny: no such data set" in message and not Path("runs/tinny").exists()
    run("--epochs", 1, "--max-minutes", 0)
    fails(main, *TINY, "--device", "nothing", capsys=capsys)
    assert [path.name for path in Path("runs/tiny").iterdir()] == ["x"]
