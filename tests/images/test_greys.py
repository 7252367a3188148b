"""Grey range of a data set's images of more than 8 bits: what is used, what is said, what is kept."""

import json
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import fails, make_set, target_mask, write
from PIL import Image

from dataset import Frames
from ismallnet.arguments import add_data_arguments, grey_range, typed_flags
from ismallnet.cli import DataError
from ismallnet.datasets.find import find_dataset
from ismallnet.detection.contrast import doubts
from ismallnet.images.grey import GreyRange, no_scene, stands_alone, to_units, value_limits
from net import iSmallNet
from test import main as infer
from visualization import main as visualization


def deep(seed: int = 0, shape=(40, 48)) -> np.ndarray:
    """A 14-bit image, 7000 to 7399, with a target of 8000."""
    image = np.random.default_rng(seed).integers(7001, 7399, shape).astype(np.uint16)
    image[0, :2] = 7000, 7399
    image[10:13, 12:16] = 8000
    return image


def read(pixels: np.ndarray, grey: GreyRange = GreyRange()):  # noqa: B008
    Image.fromarray(pixels).save("x.tif")
    return grey.read(Path("x.tif"), "x")


@pytest.fixture
def deep_set(tmp_path):
    """data/tiny of 16 bits: a and b to train, c and d to test."""
    root = make_set(tmp_path / "data" / "tiny")
    for k, name in enumerate("abcd"):
        write(root / f"images/{name}.png", deep(k))
    return root


@pytest.fixture
def weights(tmp_path) -> str:
    torch.manual_seed(0)
    torch.save({"state_dict": iSmallNet(4).state_dict()}, "w.pt")
    return "w.pt"


# --- which values ----------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [1, 60, 900])  # of 1920 pixels
@pytest.mark.parametrize("value", [0, 3, -9999, -3.4e38])
def test_a_dark_value_that_stands_alone_does_not_spoil_the_contrast(share, value):
    image = deep().astype(np.float32)
    clean, _ = read(image)
    image.ravel()[-share:] = value
    damaged, facts = read(image)
    assert facts.cut and facts.limits[0] >= 7000 and facts.limits[1] == 8000
    kept = np.s_[: (1920 - share) // 48]
    assert np.abs(damaged[kept] - clean[kept]).max() < 2  # of 255
    assert damaged.ravel()[-1] == 0


def test_a_background_of_one_value_is_no_border():
    flat = np.full((40, 48), 100, np.uint16)
    flat[10:13, 12:16] = 5000
    assert not stands_alone(flat) and value_limits(flat) == (100, 5000)
    image, facts = read(flat)
    assert image.min() == 0 and image.max() == 255 and not facts.cut
    assert not stands_alone(np.full((3, 3), 7, np.uint16))
    assert not stands_alone(np.array([[0, 1, 2, 3]], np.uint16))  # a gap of 1 and 2 between others
    assert stands_alone(np.array([[0, 9, 10, 11]], np.uint16))
    border = deep()
    border[:, :6] = 0
    assert value_limits(border, (0, 100)) == (0, 8000)  # asked for


def test_what_is_said_of_single_images():
    image = deep()
    assert read(image)[1][3:] == (0, False, False, False, False, False, ())
    hot = image.copy()
    hot[0, 0] = 60000
    assert read(hot)[1].bright and not read(hot)[1].cut
    assert read(hot, GreyRange(percentiles=(0.1, 99.9)))[1].cut
    border = image.copy()
    border[:4] = 65535  # more than 0.1 %
    assert read(border)[1].edge
    dead = image.copy()
    dead[3, 3] = 0
    facts = read(dead, GreyRange(percentiles=(0, 100)))[1]
    assert facts.dark and not facts.cut and facts.limits == (0, 8000)
    assert read(dead)[1].cut and not read(dead)[1].dark
    holes = image.astype(np.float32)
    holes[1, :3] = np.nan, np.inf, -np.inf
    pixels, facts = read(holes)
    assert facts.missing == 3 and np.isfinite(pixels).all() and not facts.bright
    assert read(image, GreyRange(limits=(7000, 8000)))[1].outside is False
    assert read(image, GreyRange(limits=(7390, 8000)))[1].outside is True


DISTURBED = {  # what lies in a frame that is no part of the scene
    "border": lambda x: x.__setitem__(np.s_[:4], 65535),
    "frame": lambda x: [x.__setitem__(s, 65535) for s in (np.s_[:3], np.s_[-3:], np.s_[:, :3])],
    "telemetry": lambda x: x.__setitem__(0, np.random.default_rng(1).integers(0, 65535, 96)),
    "dim telemetry": lambda x: x.__setitem__(0, np.random.default_rng(1).integers(0, 255, 96)),
    "first column": lambda x: x.__setitem__(np.s_[:, 0], 16383),
    "column": lambda x: x.__setitem__(np.s_[:, 50], 16383),
    "text": lambda x: x.__setitem__(np.s_[10:18, 20:90:2], 16383),
}


@pytest.mark.parametrize("depth", [np.uint16, np.float32])
@pytest.mark.parametrize("kind", DISTURBED)
def test_borders_telemetry_and_broken_lines_are_said(kind, depth, capsys):
    image = deep(shape=(80, 96)).astype(depth)
    image[30:33, 70:75] = 7900  # targets: of the brightest 0.1 % are 7 pixels
    assert not read(image)[1].edge and not no_scene(image, value_limits(image))
    DISTURBED[kind](image)
    facts = read(image)[1]
    assert facts.edge and not facts.bright
    note = next(line for line in GreyRange().report("s", [facts], 1) if "rows, columns" in line)
    assert note.endswith(": x.") or note.endswith(": x")
    assert doubts(image, {"bright": value_limits(image)}, True) == ["edge"]


def test_parts_of_the_scene_are_no_edge():
    image = deep(shape=(80, 96))
    image[:30] += 4000  # a bright sky
    assert not read(image)[1].edge
    image = deep(shape=(80, 96))
    image[:4, 40:46] = 12000  # a target at the edge
    assert not read(image)[1].edge
    image = deep(shape=(80, 96))
    image[5, 5:9] = 16383  # hot pixels, fewer than 0.1 %
    assert read(image)[1].bright and not read(image)[1].edge


def test_an_image_without_a_number_is_refused():
    with pytest.raises(DataError, match=r"x\.tif: no pixel holds a number"):
        read(np.full((4, 4), np.nan, np.float32))


# --- what is printed -------------------------------------------------------------------------------


def test_the_range_of_a_list_is_one_line(deep_set, capsys):
    for name, high in (("c", 7400), ("d", 7500)):
        image = deep()
        image[10:13, 12:16] = high
        image[0, :2] = 7000, 7000  # two darkest pixels of 1920
        write(deep_set / f"images/{name}.png", image)
    Frames(find_dataset("tiny"), "test")
    assert capsys.readouterr().out.splitlines() == [
        "tiny test: uint16 in 2 of 2 images: percentiles 0.1 and 100 of each become 0 and 255: "
        "7000 / 7000 / 7000 and 7400 / 7450 / 7500 (smallest / median / largest)"
    ]
    write(deep_set / "images/d.png", deep().astype(np.uint8))
    Frames(find_dataset("tiny"), "test", grey=GreyRange(limits=(7000, 9000)))
    assert (
        capsys.readouterr().out
        == "tiny test: uint16 in 1 of 2 images: 7000 and 9000 become 0 and 255 (--range)\n"
    )


def test_eight_bits_are_not_mentioned_unless_asked(data, capsys):
    Frames(find_dataset("tiny"), "test")
    assert capsys.readouterr().out == ""
    Frames(find_dataset("tiny"), "test", grey=GreyRange(percentiles=(1.0, 99.0)))
    assert "all images have 8 bits; --range and --percentiles change nothing" in capsys.readouterr().out


def test_few_names_and_a_count(tmp_path, capsys):
    names = [f"i{k}" for k in range(8)]
    root = make_set(tmp_path / "data" / "s", names, train=0)
    for k, name in enumerate(names):
        image = deep(k).astype(np.float32)
        image[3, 3] = np.nan if k else 7100
        (root / f"images/{name}.png").unlink()
        Image.fromarray(image).save(root / f"images/{name}.tif")
    Frames(find_dataset("s"), "test")
    out = capsys.readouterr().out
    assert "note: s test: 7 images hold pixels without a number" in out
    assert "do not count: i1, i2, i3, i4, i5 and 2 more\n" in out


# --- flags -----------------------------------------------------------------------------------------


def test_wrong_percentiles_and_ranges(deep_set, capsys):
    test_set = ["--dataset", "tiny"]
    for flags, expected in (
        (["--percentiles", 5, 5], "found 5 5, expected 0 <= LOW < HIGH <= 100"),
        (["--percentiles", 0, 101], "found 0 101, expected 0 <= LOW < HIGH <= 100"),
        (["--range", 9, 3], "--range: found 9 3, expected MIN < MAX"),
        (["--range", 0, 3, "--percentiles", 0, 100], "expected one of them"),
    ):
        assert expected in fails(infer, *test_set, *flags, capsys=capsys)
        assert expected in fails(visualization, *test_set, *flags, capsys=capsys)


def test_maps_differ_and_their_folder_says_why(deep_set, weights):
    maps = {}
    for name, flags in {"own": [], "cut": ["--percentiles", "1", "99"]}.items():
        infer(["--dataset", "tiny", "--weights", weights, "--device", "cpu", "--results", name, *flags])
        maps[name] = np.array(Image.open(f"{name}/tiny/c.png"))
        about = json.loads((deep_set.parents[1] / f"{name}/tiny/about.json").read_text())
        assert about["range"] is None
        assert about["percentiles"] == ([1, 99] if flags else [0.1, 100])
    assert (maps["own"] != maps["cut"]).any()
    image = deep(2)
    low, high = (np.percentile(image, p, method=m) for p, m in ((1, "lower"), (99, "higher")))
    assert GreyRange(percentiles=(1, 99)).read(deep_set / "images/c.png")[1].limits == (low, high)


def test_the_weights_training_is_compared(deep_set, capsys):
    torch.manual_seed(0)
    state = iSmallNet(4).state_dict()
    info = {"dataset": ["tiny"], "args": {"range": [7000, 9000]}}
    torch.save({"state_dict": state, "info": info}, "ranged.pt")
    command = ["--dataset", "tiny", "--device", "cpu", "--weights", "ranged.pt"]
    infer(command)
    assert "note: the weights were trained with --range 7000 9000" in capsys.readouterr().out
    infer([*command, "--range", "7000", "9000"])
    assert "were trained with" not in capsys.readouterr().out
    torch.save({"state_dict": state, "info": {"dataset": ["o"], "args": {"range": None}}}, "other.pt")
    infer([*command[:-1], "other.pt", "--range", "7000", "9000"])  # o may have had 8 bits
    assert "were trained with" not in capsys.readouterr().out


def test_the_panels_are_read_by_the_same_flags(deep_set, weights, capsys):
    from utils import main as utils

    utils(["--dataset", "tiny"])
    infer(["--dataset", "tiny", "--weights", weights, "--device", "cpu"])
    capsys.readouterr()
    visualization(["--dataset", "tiny", "--workers", "1", "--percentiles", "0", "100"])
    assert "percentiles 0 and 100 of each become 0 and 255: 7000 /" in capsys.readouterr().out


def test_a_training_keeps_them(capsys):
    from ismallnet.training.options import build_parser

    args = build_parser().parse_args(["--dataset", "x", "--percentiles", "0.5", "99.5"])
    assert json.loads(json.dumps(vars(args)))["percentiles"] == [0.5, 99.5]
    assert grey_range(args) == GreyRange(percentiles=(0.5, 99.5))
    assert grey_range(build_parser().parse_args(["--range", "3", "4"])) == GreyRange(limits=(3, 4))


# --- hints -----------------------------------------------------------------------------------------


def test_hints_repeat_what_was_typed(tmp_path):
    import argparse

    parser = argparse.ArgumentParser()
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
    import shlex

    from eval import main as evaluate
    from utils import main as utils

    make_set(tmp_path / "sets" / "s")
    roots = ["--dataset", "s", "--data-root", "sets"]
    for main, other in ((evaluate, []), (visualization, ["--maps-root", "m"])):
        error = fails(main, *roots, "--results", "out", *other, capsys=capsys)
        assert "make them: python test.py --dataset s --data-root sets --results out" in error
    infer([*roots, "--weights", weights, "--device", "cpu", "--results", "out"])
    error = fails(visualization, *roots, "--results", "out", "--maps-root", "m", capsys=capsys)
    hint = error.split("make them: ")[1].strip()
    assert hint == "python utils.py --dataset s --data-root sets --maps-root m"
    utils(shlex.split(hint)[2:])
    visualization([*roots, "--results", "out", "--maps-root", "m", "--workers", "1"])
    out = capsys.readouterr().out
    assert "type python eval.py --dataset s --data-root sets --results out, then this again" in out
    page = (tmp_path / "out/s/report/index.html").read_text()
    assert "python eval.py --dataset s --data-root sets --results out --protocol all" in page
    (tmp_path / "m/s/interior/c.png").unlink()
    error = fails(visualization, *roots, "--results", "out", "--maps-root", "m", capsys=capsys)
    assert f"c.png: missing; type {hint}" in error
    write(tmp_path / "m/s/interior/c.png", target_mask((9, 9)))
    error = fails(visualization, *roots, "--results", "out", "--maps-root", "m", capsys=capsys)
    assert f"the label maps of c are not of the masks as they are now; make them again: {hint}" in error


# --- in a training ---------------------------------------------------------------------------------


def test_how_images_were_read_in_the_training():
    assert GreyRange.of_training({}) == GreyRange()
    args = {"range": [1, 2], "percentiles": [0.1, 100], "polarity": "dark"}
    assert GreyRange.of_training({"args": args}) == GreyRange((1, 2), dark=True)


def test_infinite_pixels_become_the_median():
    image = deep().astype(np.float32)
    image[1, :3] = np.nan, np.inf, -np.inf
    units = to_units(image, (7000, 8000))
    assert units[1, 0, 0] == units[1, 1, 0] == units[1, 2, 0] and 20 < units[1, 1, 0] < 80


def test_images_are_looked_at_once_not_in_each_epoch(deep_set, monkeypatch):
    frames = Frames(find_dataset("tiny"), "test", memory=0)  # each is read again
    monkeypatch.setattr(GreyRange, "facts", lambda *args: pytest.fail("looked at again"))
    assert frames[0].image.shape == (40, 48, 3)
