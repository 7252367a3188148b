"""The flags of data sets, and the hints that repeat them."""

import json
import shlex
from argparse import ArgumentParser, Namespace

import pytest
import torch
from conftest import fails, make_set

from ismallnet.arguments import add_data_arguments, grey_range, typed_flags
from ismallnet.datasets.find import find_dataset
from ismallnet.images.grey import GreyRange
from net import iSmallNet
from test import main as infer
from visualization import main as visualization


@pytest.fixture
def weights(tmp_path) -> str:
    torch.manual_seed(0)
    torch.save({"state_dict": iSmallNet(4).state_dict()}, "w.pt")
    return "w.pt"


def test_wrong_percentiles_and_ranges(data, capsys):
    for flags, named in (
        (["--percentiles", 5, 5], "--percentiles: found 5 5"),
        (["--percentiles", 0, 101], "--percentiles: found 0 101"),
        (["--range", 9, 3], "--range: found 9 3"),
        (["--range", 0, 3, "--percentiles", 0, 100], "--range and --percentiles"),
    ):
        assert named in fails(infer, "--dataset", "tiny", *flags, capsys=capsys)


def test_a_training_keeps_them():
    from train import build_parser

    args = build_parser().parse_args(["--dataset", "x", "--percentiles", "0.5", "99.5"])
    assert json.loads(json.dumps(vars(args)))["percentiles"] == [0.5, 99.5]
    assert grey_range(args) == GreyRange(percentiles=(0.5, 99.5))
    assert grey_range(build_parser().parse_args(["--range", "3", "4"])) == GreyRange(limits=(3, 4))


def test_hints_repeat_what_was_typed(tmp_path):
    parser = ArgumentParser()
    add_data_arguments(parser, maps=True)
    parser.add_argument("--results", default="results")
    typed = ["--dataset", "s", "--data-root", "sets", "--maps-root", "m", "--results", "out"]
    typed += ["--range", "3", "4", "--follow-links"]
    args = parser.parse_args([*typed, "--split", "a list.txt", "b.txt"])
    data = find_dataset(make_set(tmp_path / "sets" / "s").name, "sets")
    data.typed = typed_flags(args)
    common = "--dataset s --data-root sets --split 'a list.txt' b.txt --follow-links"
    assert data.command("utils") == f"python utils.py {common} --maps-root m"
    assert data.command("eval") == f"python eval.py {common} --results out"
    assert data.command("test") == f"python test.py {common} --range 3 4 --results out"
    assert data.command("train") == f"python train.py {common} --range 3 4 --maps-root m"
    assert data.command("test", results="") == f"python test.py {common} --range 3 4"
    assert typed_flags(Namespace(data_root="data", mask_threshold=128)) == {}


def test_a_hint_can_be_typed_as_it_is(tmp_path, weights, capsys):
    """Each stage says what to type before it, with the roots that were typed."""
    from eval import main as evaluate
    from utils import main as utils

    make_set(tmp_path / "sets" / "s")
    roots = ["--dataset", "s", "--data-root", "sets"]
    for main, other in ((evaluate, []), (visualization, ["--maps-root", "m"])):
        error = fails(main, *roots, "--results", "out", *other, capsys=capsys)
        assert "python test.py --dataset s --data-root sets --results out" in error
    infer([*roots, "--weights", weights, "--device", "cpu", "--results", "out"])
    error = fails(visualization, *roots, "--results", "out", "--maps-root", "m", capsys=capsys)
    hint = error.split("make them: ")[1].strip()
    assert hint == "python utils.py --dataset s --data-root sets --maps-root m"
    utils(shlex.split(hint)[2:])
    visualization([*roots, "--results", "out", "--maps-root", "m", "--workers", "1"])
    assert "python eval.py --dataset s --data-root sets --results out" in capsys.readouterr().out
    page = (tmp_path / "out/s/report/index.html").read_text(encoding="utf-8")
    assert "python eval.py --dataset s --data-root sets --results out --protocol all" in page
