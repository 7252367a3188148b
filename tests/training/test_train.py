"""Trainings, from the command line to the weights that are kept."""

import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import fails, make_set, picture, write
from runs import RUN, TINY, equal, free_port, logged, output, run, start, torchrun, weights

import net
from dataset import Frames
from ismallnet.checkpoints import read_checkpoint
from ismallnet.datasets.find import find_dataset
from ismallnet.evaluation.metrics import count_standard, metrics_standard, total
from ismallnet.inference.predict import infer
from ismallnet.training.augmentation import TrainingSet
from net import load_weights
from train import initialise, main


@pytest.fixture(autouse=True)
def data(tmp_path) -> Path:
    return make_set(tmp_path / "data" / "tiny", names="abcdefgh", train=6)


def info_of(folder: Path | str, name: str = "last.pt") -> dict:
    return read_checkpoint(Path(folder) / name)["info"]


def metrics_of(folder: Path | str) -> dict:
    return json.loads((Path(folder) / "metrics.json").read_text())


def test_a_run_leaves_all_that_it_promises(capsys):
    assert run("--epochs", 2, "--eval-every", 1) == 0
    config, metrics = json.loads((RUN / "config.json").read_text()), metrics_of(RUN)
    assert config["args"]["crop"] == 32 and config["environment"]["torch"] == torch.__version__
    assert [h["epoch"] for h in metrics["history"]] == [1, 2]
    assert set(metrics["final"]["tiny"]) >= {"iou", "niou", "pd", "fa"}
    assert list(RUN.glob("events*")) and not (RUN / "best.pt").exists()
    model = load_weights(RUN / "last.pt", width=4)
    assert model.info["epoch"] == 2 and model.info["figures"] == metrics["final"]
    assert model.info["selected_on"] == metrics["selected_on"] == "nothing"
    log, screen = (RUN / "log.txt").read_text(), capsys.readouterr().out
    assert "epoch 2.0 step 6" in log and '"crop": 32' in log
    assert "epoch 2.0 step 6" in screen and '"crop": 32' not in screen  # config.json has them
    pixels = np.concatenate([picture(i).ravel() for i in range(6)]).astype(float)
    assert model.mean.tolist() == pytest.approx([pixels.mean()] * 3, rel=1e-6)
    assert model.std.tolist() == pytest.approx([pixels.std()] * 3, rel=1e-6)


def test_a_training_in_a_thread_leaves_signals_to_the_main_thread(monkeypatch):
    """And one process writes whatever a variable says that another program has set."""
    monkeypatch.setenv("RANK", "1")
    codes = []
    thread = threading.Thread(target=lambda: codes.append(run("--epochs", 1, "--max-minutes", 0)))
    thread.start()
    thread.join()
    assert codes == [0] and (RUN / "last.pt").exists()


@pytest.mark.skipif(os.name != "posix", reason="names of files are text there")
def test_a_data_set_whose_name_is_not_utf8(data):
    data.rename(data.with_name(os.fsdecode(b"s\xff")))
    argv = ["--dataset", os.fsdecode(b"s\xff"), *TINY[2:], "--epochs", "1", "--run-name", "x"]
    assert main(argv) == 0 and main([*argv[:2], "--resume"]) == 0
    assert Path("runs", argv[1], "x/last.pt").exists()


def test_the_loss_falls_and_the_target_is_found():
    """108 steps on six images of the same target: enough to find it in the other two."""
    run("--epochs", 36, "--lr", 1e-2, "--ema", 0.9, "--eval-every", 18)
    history = metrics_of(RUN)["history"]
    assert history[-1]["loss"] < 0.5 * history[0]["loss"]
    final = history[-1]["figures"]["tiny"]
    assert final["pd"] == 1.0 and final["iou"] > 0.9


def test_same_seed_same_weights_and_another_seed_others():
    """Of 6 images in batches of 4 the second step of one epoch reaches into the next, which the log
    does not name."""
    run("--epochs", 1, "--batch-size", 4, folder="a")
    run("--epochs", 1, "--batch-size", 4, "--workers", 2, "--eval-every", 0, folder="b")
    run("--epochs", 1, "--batch-size", 4, "--seed", 1, folder="c")
    a, b, c = (weights(f"runs/tiny/{name}") for name in "abc")
    assert equal(a, b) and not equal(a, c)
    assert "epoch 1.0 step 2" in Path("runs/tiny/a/log.txt").read_text()
    assert info_of("runs/tiny/a")["epoch"] == 8 / 6


# --- faults ----------------------------------------------------------------------------------------


class Names:
    def __len__(self):
        return 6


def test_a_loss_that_is_not_finite_stops_with_step_and_names(monkeypatch, capsys):
    run("--epochs", 2, "--max-minutes", 0)
    before = (RUN / "last.pt").read_bytes()
    real = TrainingSet.__getitem__

    def poisoned(self, position):
        item = real(self, position)
        return item._replace(image=item.image * float("nan")) if position == 6 else item

    monkeypatch.setattr(TrainingSet, "__getitem__", poisoned)
    message = fails(main, "--dataset", "tiny", "--resume", capsys=capsys)
    first, second = (TrainingSet([Names()], 2, 0).index(p) for p in (6, 7))
    assert "step 4" in message and f"{'abcdef'[first]}, {'abcdef'[second]}." in message
    assert (RUN / "last.pt").read_bytes() == before
    monkeypatch.setattr(TrainingSet, "__getitem__", real)
    assert main(["--dataset", "tiny", "--resume"]) == 0  # steps 2 and 3 again, then the rest
    assert sorted(logged(RUN)) == [1, 2, 3, 4, 5, 6]


def test_a_gradient_that_is_not_finite_never_reaches_the_weights(monkeypatch, capsys):
    real = net.map_loss

    def poisoned(logits, *others):
        value = real(logits, *others)
        return value + (logits * 0).sum().abs().sqrt()  # finite, its gradient is not

    monkeypatch.setattr(net, "map_loss", poisoned)
    message = fails(main, *TINY, "--run-name", "x", "--epochs", "1", capsys=capsys)
    assert "gradient" in message and "step 1" in message and not (RUN / "last.pt").exists()


def test_all_bad_files_of_both_lists_are_named_before_training(capsys, data):
    write(data / "images/a.png", "text")
    (data / "masks/b.png").unlink()
    write(data / "images/d.png", (data / "images/d.png").read_bytes()[:400])  # its header is whole
    write(data / "50_50/test.txt", "g\nghost\n")
    message = fails(main, *TINY, "--run-name", "x", capsys=capsys)
    assert all(name in message for name in ("a.png", "b.png", "d.png", "ghost"))
    assert not RUN.exists()


# --- the model that is kept ------------------------------------------------------------------------


def test_a_run_begins_with_the_weights_it_is_given(capsys):
    run("--epochs", 1, "--seed", 5, folder="first")
    first = weights("runs/tiny/first")
    argv = ["--init", "runs/tiny/first/last.pt", "--lr", 0, "--ema", 0, "--epochs", 1]
    run(*argv, "--weight-decay", 0)
    second = weights(RUN)
    same = [key for key in first if torch.equal(first[key], second[key])]
    assert {key for key in first if "running" not in key and "num_b" not in key} <= set(same)
    begun_with = info_of(RUN)["init"]
    assert begun_with["seed"] == 5 and begun_with["hours"] > 0 and not begun_with["init"]
    Path("runs/tiny/first/last.pt").unlink()  # a run that has begun needs it no more
    assert main(["--dataset", "tiny", "--resume", str(RUN)]) == 0
    init = [*TINY, "--init", str(RUN / "last.pt")]
    assert "--variant plain" in fails(main, *init, "--variant", "sum", capsys=capsys)
    assert "--width 4" in fails(main, *init, "--width", "8", capsys=capsys)


def test_hold_out_tests_on_training_images_and_leaves_the_test_list_alone(data, capsys):
    for name in "gh":  # the test list's
        (data / "images" / f"{name}.png").write_bytes(b"")
    run("--epochs", 1, "--hold-out", 3, "--select", "test")
    held_out = "held-out training images (--hold-out 3)"
    best, last = (info_of(RUN, name) for name in ("best.pt", "last.pt"))
    assert best["selected_on"] == held_out and last["selected_on"] == "nothing"
    assert best["figures_on"] == last["figures_on"] == metrics_of(RUN)["figures_on"] == held_out
    assert last["steps"] == 2 and last["args"]["hold_out"] == 3  # 4 images left in batches of 2
    held = find_dataset("tiny")
    held.hold_out(3)
    assert [s.name for s in held.samples("test")] == ["b", "e"]
    assert [s.name for s in held.samples("train")] == ["a", "c", "d", "f"]
    for every in ("1", "99"):
        assert "--hold-out" in fails(main, *TINY, "--hold-out", every, capsys=capsys)


def test_select_test_keeps_and_marks_the_best_epoch():
    run("--epochs", 4, "--lr", 1e-2, "--eval-every", 1, "--select", "test")
    best, last = info_of(RUN, "best.pt"), info_of(RUN)
    assert best["selected_on"] == best["figures_on"] == "the test list"
    assert last["selected_on"] == "nothing"
    history = metrics_of(RUN)["history"]
    ious = [h["figures"]["tiny"]["iou"] for h in history]
    assert best["epoch"] == history[int(np.argmax(ious))]["epoch"]
    later = ("--epochs", 1, "--init", RUN / "best.pt", "--hold-out", 3, "--select", "test")
    run(*later, folder="later")  # what was chosen on the test list stays so, whatever is chosen later
    assert info_of("runs/tiny/later", "best.pt")["selected_on"] == "the test list"


def test_the_untrained_network_gives_the_prior():
    frames = Frames(find_dataset("tiny"), "train")
    model = net.iSmallNet(2)
    initialise(model, 0.02, [frames])
    for head in (model.interior_head, model.boundary_head, model.mask_head[3]):
        assert torch.sigmoid(head.bias).item() == pytest.approx(0.02)


def test_joint_training(tmp_path):
    make_set(tmp_path / "data" / "other", names="uvw", train=1, shape=(50, 60))
    argv = [*TINY, "--run-name", "j", "--epochs", "1"]
    argv[1:2] = ["tiny", "other"]
    assert main(argv) == 0
    info = info_of("runs/tiny+other/j")
    assert set(info["figures"]) == {"tiny", "other"} and info["steps"] == 4


# --- several processes -----------------------------------------------------------------------------


def test_two_processes_count_as_one(data):
    """Seven test images shared by two processes, in a run whose weights find some targets: the
    metrics are exactly those that one process counts with the weights that were kept."""
    write(data / "50_50/test.txt", "".join(f"{n}\n" for n in "abcdefg"))
    argv = [*TINY, "--lr", "1e-2", "--run-name", "x", "--epochs", "6", "--eval-every", "2"]
    port = free_port()
    both = [start(main, argv, **torchrun(rank, 2, port)) for rank in range(2)]
    for process in both:
        process.join(300)
        assert process.exitcode == 0, output()
    two = metrics_of(RUN)["final"]["tiny"]
    assert output().count("epoch 6.0 step 18") == 1  # one process speaks
    model, frames = load_weights(RUN / "last.pt"), Frames(find_dataset("tiny"), "test")

    def counts(part: slice) -> list:
        return [count_standard(pred, mask) for _, pred, mask in infer(model, frames, part=part)]

    assert metrics_standard(total(counts(slice(None)))) == two
    assert two["images"] == two["targets"] == 7
    parts = [counts(slice(rank, None, 3)) for rank in range(3)]  # as three processes would
    assert metrics_standard(total(count for share in parts for count in share)) == two
