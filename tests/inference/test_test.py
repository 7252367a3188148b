import csv
import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import fails, make_set, picture, write
from plain import network

from ismallnet import files
from ismallnet.checkpoints import save_weights
from ismallnet.cli import DataError
from ismallnet.evaluation.map_files import open_maps
from ismallnet.evaluation.metrics import quantise
from ismallnet.evaluation.protocols import evaluate
from ismallnet.inference.predict import predict, prepared
from net import VARIANTS, iSmallNet, load_weights
from test import main

TINY = ["--dataset", "tiny", "--device", "cpu"]


@pytest.fixture
def weights(tmp_path) -> Path:
    """A network of width 2 whose predictions vary: its batch norms are fresh, its weights random."""
    torch.manual_seed(3)
    model = iSmallNet(2)
    path = tmp_path / "w.pt"
    torch.save({"state_dict": model.state_dict()}, path)
    return path


def grey(path) -> np.ndarray:
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def test_maps_are_the_network_s_probabilities(data, weights, capsys):
    main([*TINY, "--weights", str(weights)])
    model = load_weights(weights)
    for i, name in ((2, "c"), (3, "d")):
        image = torch.from_numpy(picture(i)).expand(3, 40, 48)[None].float()
        with torch.no_grad():
            logits = model((image - model.mean[:, None, None]) / model.std[:, None, None])[2][0, 0]
        expected = np.rint(255 * torch.sigmoid(logits).numpy())
        found = grey(f"results/tiny/{name}.png")
        assert found.dtype == np.uint8 and found.shape == (40, 48)
        assert np.abs(found - expected).max() <= 1  # float32 sums in another order
    out = capsys.readouterr().out
    assert f"weights {weights}" in out and "nIoU" in out


def test_images_csv_and_table_are_the_standard_figures(data, weights):
    main([*TINY, "--weights", str(weights)])
    rows = list(csv.DictReader(Path("results/tiny/images.csv").read_text().splitlines()))
    assert [r["image"] for r in rows] == ["c", "d"]
    for row in rows:
        name = f"{row['image']}.png"
        pred, mask = grey(f"results/tiny/{name}"), grey(f"data/tiny/masks/{name}")
        alone = evaluate([(pred, mask)])
        assert float(row["iou"]) == pytest.approx(alone["iou"], abs=1e-6)
        assert int(row["targets"]) == 1 and int(row["matched"]) == alone["matched"]
        assert int(row["false_pixels"]) == round(alone["fa"] * 40 * 48)
    about = json.loads(Path("results/tiny/about.json").read_text())
    assert about["images"] == ["c", "d"] and len(about["sha256"]) == 64


def test_resize_is_an_option(data, weights):
    main([*TINY, "--weights", str(weights), "--results", "native"])
    main([*TINY, "--weights", str(weights), "--results", "at64", "--resize", "64"])
    one, other = grey("native/tiny/c.png"), grey("at64/tiny/c.png")
    assert one.shape == other.shape == (40, 48) and (one != other).any()


@pytest.mark.parametrize("kind", ["1x1", "7x4000", "16-bit"])
def test_odd_images_work(tmp_path, weights, kind):
    pixels = {
        "1x1": np.full((1, 1), 9, np.uint8),
        "7x4000": picture(0, (7, 4000)),
        "16-bit": (picture(0).astype(np.uint16) * 300 // 255),
    }[kind]
    root = make_set(tmp_path / "data" / "tiny")
    write(root / "images/c.png", pixels)
    write(root / "masks/c.png", np.zeros(pixels.shape, np.uint8))  # a black mask: nothing to find
    main([*TINY, "--weights", str(weights)])
    assert grey("results/tiny/c.png").shape == pixels.shape
    if kind == "16-bit":
        main([*TINY, "--weights", str(weights), "--range", "0", "65535", "--results", "dark"])
        assert (grey("dark/tiny/c.png") != grey("results/tiny/c.png")).any()


def test_newest_run_is_taken_then_shipped_weights(data, weights, monkeypatch, tmp_path, capsys):
    shipped = tmp_path / "shipped"
    monkeypatch.setattr("ismallnet.inference.weights.SHIPPED", shipped)
    assert "train.py" in fails(main, *TINY, capsys=capsys)
    for name in ("frames", "tiny"):
        save_weights(load_weights(weights).state_dict(), {}, shipped / f"{name}.safetensors")
        main(TINY)
        assert f"weights {shipped / name}.safetensors" in capsys.readouterr().out
    for i, run in enumerate(("b-older", "a-newer")):
        path = write(tmp_path / f"runs/tiny/{run}/last.pt", weights.read_bytes())
        os.utime(path, (1000 + i, 1000 + i))
    main(TINY)
    assert "weights runs/tiny/a-newer/last.pt" in capsys.readouterr().out


def test_weights_chosen_on_the_test_list_are_marked(data, tmp_path, capsys):
    import eval as evaluation

    info = {"dataset": ["tiny"], "recipe": "default", "seed": 0, "epoch": 2.0, "step": 1, "steps": 9}
    info["selected_on"] = "the test list"
    torch.save({"state_dict": iSmallNet(4).state_dict(), "info": info}, "best.pt")
    main([*TINY, "--weights", "best.pt"])
    out = capsys.readouterr().out
    assert "CHOSEN ON THE TEST LIST" in out and "unfinished: step 1 of 9" in out
    evaluation.main(["--dataset", "tiny"])
    assert "CHOSEN ON THE TEST LIST" in capsys.readouterr().out
    assert json.loads(Path("results/tiny/metrics.json").read_text())["selected_on"] == "the test list"


@pytest.mark.parametrize("info", [{"a": 1}, {"dataset": None, "epoch": "x"}, "text", {"step": []}])
def test_odd_information_in_a_checkpoint_does_no_harm(data, info, capsys):
    torch.save({"state_dict": iSmallNet(4).state_dict(), "info": info}, "odd.pt")
    main([*TINY, "--weights", "odd.pt"])
    assert "weights odd.pt (width 4" in capsys.readouterr().out


def test_bad_input_is_one_clear_error(data, weights, capsys):
    argv = [*TINY, "--weights", str(weights)]
    assert "a folder" in fails(main, *TINY, "--weights", "data", capsys=capsys)
    assert "no such weights" in fails(main, *TINY, "--weights", "x.pt", capsys=capsys)
    write(data / "images/c.png", (data / "images/c.png").read_bytes()[:200])
    (data / "masks/d.png").unlink()
    message = fails(main, *argv, capsys=capsys)
    assert "c.png" in message and "d.png" in message


def test_predict_by_hand():
    """A network whose mask head is a constant logit of ln 3 says 0.75 everywhere."""
    model = iSmallNet(4).eval()
    torch.nn.init.zeros_(model.mask_head[3].weight)
    torch.nn.init.constant_(model.mask_head[3].bias, float(np.log(3)))
    maps = predict(
        model, [picture(0)[..., None].repeat(3, 2), picture(1, (41, 37))[..., None].repeat(3, 2)]
    )
    assert [m.shape for m in maps] == [(40, 48), (41, 37)]
    assert all((quantise(m) == 191).all() for m in maps)


@pytest.mark.parametrize("variant", VARIANTS)
def test_without_batch_norm_the_logits_are_the_same(variant):
    model = network(4, variant)
    x = torch.randn(2, 3, 48, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = model(x)
        after = prepared(model)(x.contiguous(memory_format=torch.channels_last))
    assert not any(isinstance(layer, torch.nn.BatchNorm2d) for layer in model.modules())
    for one, other in zip(before, after):
        assert (one is None) == (other is None)
        assert one is None or torch.allclose(one, other, atol=1e-4)


@pytest.mark.parametrize(
    "argv, message",
    [
        (["--input", "f"], "python detect.py PATH"),
        (["--watch=f"], "--watch FOLDER"),
        (["--width", "16"], "leave it out"),
        (["--dataset", "tiny", "--threshold", "0.7"], "unrecognized arguments: --threshold"),
        (["--dataset", "tiny", "--baseline", "mpcm", "--flips"], "--flips: has no effect beside"),
        (["--dataset", "tiny", "--workers", "99"], "--workers: has no effect without --baseline"),
        (["--dataset", "tiny", "--baseline", "mpcm", "--weights", "x.pt"], "--weights"),
        (["--dataset", "tiny", "--baseline", "tophat", "--tile", "64"], "--tile"),
        (["--dataset", "tiny", "--baseline", "nram"], "choose from"),
        (["--dataset", "tiny", "--tile", "16"], "--tile"),
        (["--dataset", "tiny", "--overlap", "32"], "leave it out"),
        (["--dataset", "tiny", "--tile", "128", "--resize", "352"], "--resize"),
        (["--dataset", "tiny", "--batch-size", "0"], "--batch-size"),
    ],
)
def test_what_belongs_to_another_mode_is_an_error(data, argv, message, capsys):
    assert message in fails(main, *argv, capsys=capsys)


def test_large_images_run_in_tiles_which_is_said_and_kept(tmp_path, weights, capsys):
    root = make_set(tmp_path / "data" / "tiny")
    write(root / "images/c.png", picture(2, (40, 1030)))
    write(root / "masks/c.png", np.zeros((40, 1030), np.uint8))
    command = [*TINY, "--weights", str(weights), "--results"]
    main([*command, "auto"])
    assert "tiny test: 1 of 2 images run in tiles of 512 px, 64 px overlap" in capsys.readouterr().out
    main([*command, "tiles", "--tile", "512"])
    main([*command, "whole", "--tile", "0"])
    assert "in tiles" not in capsys.readouterr().out.split("whole")[-1]
    auto, tiles, whole = (grey(f"{name}/tiny/c.png") for name in ("auto", "tiles", "whole"))
    assert (auto == tiles).all() and (auto != whole).any() and auto.shape == (40, 1030)
    assert (grey("auto/tiny/d.png") == grey("whole/tiny/d.png")).all()
    about = {
        name: json.loads(Path(f"{name}/tiny/about.json").read_text()) for name in ("auto", "whole")
    }
    assert [about["auto"][key] for key in ("tile", "overlap", "tiled_images")] == [512, 64, 1]
    assert "tile" not in about["whole"]


# --- two programs and one folder -------------------------------------------------------------------


def test_two_of_them_do_not_write_to_one_folder(data, weights, monkeypatch, capsys):
    monkeypatch.setattr(files, "LOCK_SECONDS", 0.1)
    with files.lock(Path("results/tiny"), "another one works"):
        for mode in (["--weights", weights], ["--baseline", "tophat"]):
            flags = TINY if mode[0] == "--weights" else TINY[:2]
            assert "results/tiny" in fails(main, *flags, *mode, capsys=capsys)
    assert not list(Path("results").rglob("*.png")) and not list(Path("results").rglob("*.json"))
    main([*TINY, "--weights", str(weights)])


def test_the_folder_counts_as_unfinished_before_its_first_map_is_written(data, weights, monkeypatch):
    """eval.py, started in between, would evaluate maps of two calls."""
    flags = [*TINY, "--weights", str(weights)]
    main(flags)
    open_maps(Path("results/tiny"), ["c", "d"])
    written = []

    def write_png(path, pixels):
        with pytest.raises(DataError):
            open_maps(Path("results/tiny"), ["c", "d"])
        written.append(path.name)
        return files.write_png(path, pixels)

    monkeypatch.setattr("test.write_png", write_png)
    main(flags)
    assert written == ["c.png", "d.png"]
    open_maps(Path("results/tiny"), ["c", "d"])
