"""The command line of a training: recipes, values and flags that it refuses, --config."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import fails, make_set, write
from runs import RUN, TINY, equal, run, weights

from ismallnet.training import options
from ismallnet.training.muon import Muon
from ismallnet.training.recipes import learning_rate, make_optimizer
from net import iSmallNet
from train import build_parser, main


@pytest.fixture(autouse=True)
def data(tmp_path) -> Path:
    return make_set(tmp_path / "data" / "tiny", names="abcdefgh", train=6)


def parse(*argv: str):
    return options.parse(build_parser(), list(argv))


@pytest.mark.parametrize(
    "argv",
    [
        "--crop 16",
        "--batch-size 0",
        "--lr nan",
        "--last-crop 16",
        "--last-share 1.5",
        "--rec authors",  # flags are not abbreviated
        "--distill w.pt",  # is gone
        "--compile",
        "--device cuda:99",
        "--last-share 0.1",  # has no effect: without --last-crop
        "--warmup 0.1 --schedule triangle",
        "--prior 0.1 --init w.pt",
        "--contrast 0 --recipe authors",
        "--balance",  # of one data set
        "--run-name ..",
        "--run-name a/b",
        "--run-name=",
    ],
)
def test_values_that_cannot_be_and_flags_without_effect_are_refused(argv, capsys):
    assert argv.split()[0].rstrip("=") in fails(main, *TINY, *argv.split(), capsys=capsys)
    assert not Path("runs/tiny").exists()


def test_learning_rates_by_hand():
    rates = [learning_rate(step, 10, 1.0, "cosine", 0.2) for step in range(10)]
    assert rates[:3] == [0.5, 1.0, 1.0] and rates[6] == pytest.approx(0.5)
    assert rates[9] == pytest.approx(0.5 * (1 + np.cos(np.pi * 7 / 8)))
    rates = [learning_rate(step, 9, 0.05, "triangle", 0.05) for step in range(9)]
    assert rates == pytest.approx([0.05 * k / 5 for k in (1, 2, 3, 4, 5, 4, 3, 2, 1)])


def test_recipes():
    args = parse("--dataset", "x", "--recipe", "authors", "--epochs", "3")
    assert (args.optimizer, args.lr, args.weight_decay, args.batch_size) == ("sgd", 0.05, 5e-4, 16)
    assert (args.epochs, args.augment, args.ema, args.loss) == (3, "authors", 0.0, "authors")
    optimizer = make_optimizer(torch.nn.Linear(1, 1), args.optimizer, args.lr, args.weight_decay)
    assert optimizer.defaults["nesterov"] and optimizer.defaults["momentum"] == 0.9
    args = parse("--dataset", "x")
    assert (args.loss, args.optimizer, args.lr, args.epochs) == ("jaccard", "muon", 5e-3, 400)
    optimizer = make_optimizer(iSmallNet(2), args.optimizer, args.lr, args.weight_decay)
    assert isinstance(optimizer, Muon)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [1e-2, 1e-2, 0.0]
    assert type(make_optimizer(iSmallNet(2), "adamw", 1e-3, 0.0)) is torch.optim.AdamW


# --- --config --------------------------------------------------------------------------------------


def kept(**changes) -> str:
    """c.json, the config.json of a run with other arguments; None takes one out."""
    if not RUN.exists():
        run("--epochs", 1, "--max-minutes", 0)
    config = json.loads((RUN / "config.json").read_text())
    args = {k: v for k, v in (config["args"] | changes).items() if v is not None or k not in changes}
    write(Path("c.json"), json.dumps(config | {"args": args}))
    return "c.json"


def test_a_run_is_repeated_from_its_config():
    run("--epochs", 1, "--seed", 3, "--ema", 0, "--deterministic", folder="first")
    main(["--config", "runs/tiny/first/config.json", "--run-name", "again"])
    assert equal(weights("runs/tiny/first"), weights("runs/tiny/again"))
    files = [Path(f"runs/tiny/{name}/config.json") for name in ("first", "again")]
    first, again = (json.loads(path.read_text())["args"] for path in files)
    assert {key for key in first if first[key] != again[key]} == {"run_name", "config"}
    assert torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(False)


def test_a_config_is_repeated_as_it_was():
    """argparse takes -1e-05 for a flag where it is typed after --range; some arguments are a session's
    alone; others have no effect beside the recipe that is typed."""
    session = {"max_minutes": 0, "run_name": "old", "distill": None}
    config = kept(**session, loss="authors", range=[-1e-05, 1.0], mask_threshold=9, deterministic=True)
    args = parse("--config", config, "--mask-threshold", "128")
    assert (
        args.loss == "authors"
        and args.range == [-1e-05, 1.0]
        and args.mask_threshold == 128
        and args.deterministic
    )
    assert args.max_minutes is None and args.run_name is None
    assert parse("--config", config, "--loss", "jaccard").loss == "jaccard"
    config = kept(ema=0, last_crop=64, last_share=0.3)
    args = parse("--config", config, "--recipe", "authors", "--epochs", "1")
    assert (args.recipe, args.augment, args.optimizer) == ("authors", "authors", "sgd")
    assert (args.ema, args.epochs, args.crop, args.width) == (0, 1, 32, 4)
    assert (args.last_crop, args.last_share) == (64, 0.3)


@pytest.mark.parametrize("content", [None, "{", '{"args": 3}', '{"args": {"speed": 3}}'])
def test_a_config_that_is_none(content, capsys):
    if content:
        write(Path("c.json"), content)
    assert "--config c.json" in fails(main, "--config", "c.json", capsys=capsys)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("width", 4.5), ("width", True), ("hold_out", 2.5), ("range", [1]), ("balance", "false")),
        *(("percentiles", ["a", "b"]), ("mirror", "up"), ("recipe", "ours"), ("epochs", 0)),
        *(("optimizer", "adam"), ("distill", "w.pt")),
    ],
)
def test_values_of_a_config_are_checked_as_typed_ones_are(key, value, capsys):
    args = {"dataset": ["tiny"], "crop": 32, "width": 4} | {key: value}
    write(Path("c.json"), json.dumps({"args": args}))
    message = fails(main, "--config", "c.json", capsys=capsys)
    assert "c.json" in message and f"--{key.replace('_', '-')}" in message
