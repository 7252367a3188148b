import json
import os
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import fails, make_set, picture, write
from runs import REPOSITORY, RUN, TINY, equal, logged, run, weights

import net
from dataset import Frames
from ismallnet.checkpoints import read_checkpoint
from ismallnet.datasets.find import find_dataset
from ismallnet.evaluation.metrics import count_standard, metrics_standard
from ismallnet.inference.predict import infer
from ismallnet.training import options
from ismallnet.training.augmentation import TrainingSet
from ismallnet.training.muon import Muon
from ismallnet.training.recipes import learning_rate, make_optimizer
from net import iSmallNet, load_weights
from train import build_parser, main, new_weights


def parse(argv):
    return options.parse(build_parser(), argv)


@pytest.fixture(autouse=True)
def data(tmp_path) -> Path:
    return make_set(tmp_path / "data" / "tiny", names="abcdefgh", train=6)


def test_a_run_leaves_all_that_it_promises():
    assert run("--epochs", 2, "--eval-every", 1) == 0
    config = json.loads((RUN / "config.json").read_text())
    assert config["args"]["crop"] == 32 and config["environment"]["torch"] == torch.__version__
    metrics = json.loads((RUN / "metrics.json").read_text())
    assert [h["epoch"] for h in metrics["history"]] == [1, 2]
    assert set(metrics["final"]["tiny"]) >= {"iou", "niou", "pd", "fa"}
    assert metrics["selected_on"] == "nothing"
    assert (
        "step 6 of 6" not in (RUN / "log.txt").read_text()
        and "epoch 2.0" in (RUN / "log.txt").read_text()
    )
    assert list(RUN.glob("events*")) and not (RUN / "best.pt").exists()
    model = load_weights(RUN / "last.pt", width=4)
    assert model.info["epoch"] == 2 and model.info["selected_on"] == "nothing"
    assert model.info["figures"] == metrics["final"]


@pytest.mark.parametrize("variables", [{"RANK": "1"}, {"RANK": "1", "WORLD_SIZE": ""}])
def test_one_process_writes_whatever_rank_says(variables, monkeypatch):
    """Variables that a shell or a container has set for something else."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert run("--epochs", 1, "--max-minutes", 0, "--variant", "plain") == 0
    assert (RUN / "last.pt").exists()


def test_a_training_in_a_thread_leaves_signals_to_the_main_thread():
    codes = []
    work = lambda: codes.append(run("--epochs", 1, "--max-minutes", 0, "--variant", "plain"))  # noqa: E731
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert codes == [0] and (RUN / "last.pt").exists()


def test_normalisation_is_that_of_the_training_images_and_travels():
    run("--epochs", 1)
    model = load_weights(RUN / "last.pt")
    pixels = np.concatenate([picture(i).ravel() for i in range(6)]).astype(float)
    assert model.mean.tolist() == pytest.approx([pixels.mean()] * 3, rel=1e-6)
    assert model.std.tolist() == pytest.approx([pixels.std()] * 3, rel=1e-6)


def test_the_loss_falls_and_the_target_is_found():
    """108 steps on six images of the same target: enough to find it in the other two."""
    run("--epochs", 1, "--lr", 0, folder="untrained")
    untrained = json.loads(Path("runs/tiny/untrained/metrics.json").read_text())["final"]["tiny"]
    run("--epochs", 36, "--lr", 1e-2, "--ema", 0.9, "--eval-every", 6)
    history = json.loads((RUN / "metrics.json").read_text())["history"]
    assert history[-1]["loss"] < 0.5 * history[0]["loss"]
    assert untrained["pd"] < 1.0 and untrained["iou"] < 0.5
    assert history[-1]["figures"]["tiny"]["pd"] == 1.0
    assert history[-1]["figures"]["tiny"]["iou"] > 0.9


def test_same_seed_same_weights_and_another_seed_others():
    run("--epochs", 2, folder="a")
    run("--epochs", 2, "--workers", 2, folder="b")
    run("--epochs", 2, "--seed", 1, folder="c")
    a, b, c = (weights(f"runs/tiny/{name}") for name in "abc")
    assert equal(a, b) and not equal(a, c)


def test_a_run_is_repeated_from_its_config():
    run("--epochs", 1, "--seed", 3, "--ema", 0, "--deterministic", folder="first")
    main(["--config", "runs/tiny/first/config.json", "--run-name", "again"])
    a, b = weights("runs/tiny/first"), weights("runs/tiny/again")
    assert equal(a, b)
    files = [Path(f"runs/tiny/{name}/config.json") for name in ("first", "again")]
    first, again = (json.loads(path.read_text())["args"] for path in files)
    assert {key for key in first if first[key] != again[key]} == {"run_name", "config"}
    main(["--config", "runs/tiny/first/config.json", "--run-name", "other", "--seed", "4"])
    assert not equal(a, weights("runs/tiny/other"))
    assert torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(False)


def test_a_config_is_repeated_as_it_was_where_an_argument_is_newer():
    """Runs had no --loss once: it was the authors'; and no --clutter-share: none was placed on it."""
    old = ["--loss", "authors", "--optimizer", "adamw", "--clutter-share", 0]
    run("--epochs", 1, *old, folder="first")
    config = Path("runs/tiny/first/config.json")
    content = json.loads(config.read_text())
    for key in ("loss", "last_crop", "last_share", "clutter_share"):
        del content["args"][key]
    write(config, json.dumps(content))
    main(["--config", str(config), "--run-name", "again"])
    assert read_checkpoint("runs/tiny/again/last.pt")["info"]["args"]["loss"] == "authors"
    assert equal(weights("runs/tiny/first"), weights("runs/tiny/again"))
    assert parse(["--config", str(config), "--loss", "jaccard"]).loss == "jaccard"
    args = parse(["--config", str(config), "--recipe", "default"])
    assert (args.loss, args.optimizer, args.width) == ("jaccard", "muon", 4)


def test_a_config_with_negative_numbers():
    """argparse takes -1e-05 for a flag where it is typed after --range."""
    args = {"dataset": ["tiny"], "range": [-1e-05, 1.0], "mask_threshold": 9, "deterministic": True}
    write(
        Path("c.json"),
        json.dumps({"args": args | {"max_minutes": 0, "run_name": "old", "help": "==SUPPRESS=="}}),
    )
    found = parse(["--config", "c.json", "--mask-threshold", "128"])
    assert found.range == [-1e-05, 1.0] and found.mask_threshold == 128 and found.deterministic
    assert found.max_minutes is None and found.run_name is None and found.loss == "authors"


def test_a_recipe_that_is_typed_replaces_that_of_a_config():
    run("--epochs", 1, "--ema", 0.5, "--max-minutes", 0, folder="first")
    config = ["--config", "runs/tiny/first/config.json"]
    args = parse([*config, "--recipe", "authors", "--epochs", "1"])
    assert {args.recipe, args.augment} == {"authors"} and args.optimizer == "sgd"
    assert args.ema == 0 and args.epochs == 1
    assert args.crop == 32 and args.width == 4
    args = parse(config)
    assert args.ema == 0.5 and args.recipe == "default"


@pytest.mark.parametrize(
    "content, message",
    [
        (None, "expected a run's config.json"),
        ("{", "expected a run's config.json"),
        ('{"args": 3}', "expected a run's config.json"),
        ('{"args": {"speed": 3}}', "this version knows no speed"),
        ('{"args": {"dataset": ["tiny"], "epochs": 0}}', "--epochs: found 0"),
        ('{"args": {"dataset": ["tiny"], "epochs": [3]}}', "--epochs: found [3]"),
        ('{"args": {"dataset": ["tiny"], "optimizer": "adam"}}', "--optimizer: found 'adam'"),
        ('{"args": {"dataset": ["tiny"], "recipe": "ours"}}', "expected a run's config.json"),
        ('{"args": {"lr": 0.1}}', "required: --dataset"),
    ],
)
def test_a_config_that_is_none(content, message, capsys):
    if content:
        write(Path("c.json"), content)
    assert message in fails(main, "--config", "c.json", capsys=capsys)


# --- faults ----------------------------------------------------------------------------------------


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
    assert "loss is not finite in step 4" in message
    assert f"{'abcdef'[first]}, {'abcdef'[second]}." in message
    assert (RUN / "last.pt").read_bytes() == before
    monkeypatch.setattr(TrainingSet, "__getitem__", real)
    assert main(["--dataset", "tiny", "--resume"]) == 0  # steps 2 and 3 again, then the rest
    assert sorted(logged(RUN)) == [1, 2, 3, 4, 5, 6]


class Names:
    def __len__(self):
        return 6


def test_a_gradient_that_is_not_finite_never_reaches_the_weights(monkeypatch, capsys):
    real = net.map_loss

    def poisoned(logits, *others):
        value = real(logits, *others)
        return value + (logits * 0).sum().abs().sqrt()  # finite, its gradient is not

    monkeypatch.setattr(net, "map_loss", poisoned)
    message = fails(main, *TINY, "--run-name", "x", "--epochs", "1", capsys=capsys)
    assert "gradient is not finite in step 1" in message and not (RUN / "last.pt").exists()


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
    begun_with = read_checkpoint(RUN / "last.pt")["info"]["init"]
    assert begun_with["seed"] == 5 and begun_with["hours"] > 0 and not begun_with["init"]
    Path("runs/tiny/first/last.pt").unlink()  # a run that has begun needs it no more
    assert main(["--dataset", "tiny", "--resume", str(RUN)]) == 0
    run("--epochs", 1, "--variant", "sum", folder="sum")
    message = fails(main, *TINY, "--init", "runs/tiny/sum/last.pt", capsys=capsys)
    assert "found variant sum, expected full; type --variant sum" in message
    message = fails(main, *TINY, "--init", str(RUN / "last.pt"), "--width", "8", capsys=capsys)
    assert "width 4, expected width 8" in message


def test_hold_out_tests_on_training_images_and_leaves_the_test_list_alone(data, monkeypatch, capsys):
    for name in "gh":  # the test list's
        (data / "images" / f"{name}.png").write_bytes(b"")
    run("--epochs", 1, "--hold-out", 3)
    info = read_checkpoint(RUN / "last.pt")["info"]
    assert info["steps"] == 2 and info["args"]["hold_out"] == 3  # 4 images left in batches of 2
    held = find_dataset("tiny")
    held.hold_out(3)
    assert [s.name for s in held.samples("test")] == ["b", "e"]
    assert [s.name for s in held.samples("train")] == ["a", "c", "d", "f"]
    assert "--hold-out: found 1" in fails(main, *TINY, "--hold-out", "1", capsys=capsys)
    assert "--hold-out 99: takes none" in fails(main, *TINY, "--hold-out", "99", capsys=capsys)


def test_what_is_chosen_on_held_out_images_says_so(capsys):
    run("--epochs", 1, "--hold-out", 3, "--select", "test")
    held_out = "held-out training images (--hold-out 3)"
    best, last = (read_checkpoint(RUN / name)["info"] for name in ("best.pt", "last.pt"))
    assert best["selected_on"] == held_out and last["selected_on"] == "nothing"
    assert best["figures_on"] == last["figures_on"] == held_out
    assert json.loads((RUN / "metrics.json").read_text())["figures_on"] == held_out
    assert f"chosen on {held_out}" in (RUN / "log.txt").read_text()
    run("--epochs", 1, "--select", "test", folder="test")
    info = read_checkpoint("runs/tiny/test/best.pt")["info"]
    assert info["selected_on"] == info["figures_on"] == "the test list"
    # weights that were chosen on the test list once stay so, whatever is chosen later
    run(
        "--epochs",
        1,
        "--init",
        "runs/tiny/test/best.pt",
        "--hold-out",
        3,
        "--select",
        "test",
        folder="z",
    )
    assert read_checkpoint("runs/tiny/z/best.pt")["info"]["selected_on"] == "the test list"


def test_the_untrained_network_gives_the_prior():
    frames = Frames(find_dataset("tiny"), "train")
    model = new_weights(4, "full", 0, 0.02, [frames])
    for head in (model.interior_head, model.boundary_head, model.mask_head[3]):
        assert torch.sigmoid(head.bias).item() == pytest.approx(0.02)
    assert parse([*TINY, "--recipe", "authors"]).prior == 0.5
    assert new_weights(4, "full", 0, 0.5, [frames]).mask_head[3].bias.item() == 0


@pytest.mark.parametrize("variant", ["single", "boundary", "unet", "plain"])
def test_variants_train_and_resume(variant):
    run("--epochs", 1, "--variant", variant, "--max-minutes", 0)
    assert main(["--dataset", "tiny", "--resume", str(RUN)]) == 0
    model = load_weights(RUN / "last.pt")
    assert model.variant == variant and model.info["variant"] == variant and model.info["hours"] > 0
    history = json.loads((RUN / "metrics.json").read_text())["history"]
    assert np.isfinite(history[-1]["loss"])


def test_select_test_keeps_and_marks_the_best_epoch():
    run("--epochs", 4, "--lr", 1e-2, "--eval-every", 1, "--select", "test")
    best, last = read_checkpoint(RUN / "best.pt"), read_checkpoint(RUN / "last.pt")
    assert best["info"]["selected_on"] == "the test list" and last["info"]["selected_on"] == "nothing"
    history = json.loads((RUN / "metrics.json").read_text())["history"]
    ious = [h["figures"]["tiny"]["iou"] for h in history]
    assert best["info"]["epoch"] == history[int(np.argmax(ious))]["epoch"]
    run("--epochs", 1, "--init", RUN / "best.pt", folder="later")  # what was chosen stays chosen
    assert load_weights("runs/tiny/later/last.pt").info["selected_on"] == "the test list"
    run("--epochs", 4, "--lr", 1e-2, "--eval-every", 0, folder="unwatched")
    assert equal(weights("runs/tiny/unwatched"), last["state_dict"])  # watching changes nothing


def test_learning_rates_by_hand():
    rates = [learning_rate(step, 10, 1.0, "cosine", 0.2) for step in range(10)]
    assert rates[:3] == [0.5, 1.0, 1.0] and rates[6] == pytest.approx(0.5)
    assert rates[9] == pytest.approx(0.5 * (1 + np.cos(np.pi * 7 / 8)))
    rates = [learning_rate(step, 9, 0.05, "triangle", 0.05) for step in range(9)]
    assert rates == pytest.approx([0.05 * k / 5 for k in (1, 2, 3, 4, 5, 4, 3, 2, 1)])


def test_recipes():
    args = parse(["--dataset", "x", "--recipe", "authors", "--epochs", "3"])
    assert (args.optimizer, args.lr, args.weight_decay, args.batch_size) == ("sgd", 0.05, 5e-4, 16)
    assert (args.epochs, args.augment, args.ema, args.loss) == (3, "authors", 0.0, "authors")
    assert parse(["--dataset", "x", "--recipe", "authors"]).epochs == 1500
    optimizer = make_optimizer(torch.nn.Linear(1, 1), args.optimizer, args.lr, args.weight_decay)
    assert optimizer.defaults["nesterov"] and optimizer.defaults["momentum"] == 0.9
    args = parse(["--dataset", "x"])
    assert (args.loss, args.optimizer, args.lr) == ("jaccard", "muon", 5e-3)
    optimizer = make_optimizer(iSmallNet(2), args.optimizer, args.lr, args.weight_decay)
    assert isinstance(optimizer, Muon)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [1e-2, 1e-2, 0.0]
    args = parse(["--dataset", "x", "--optimizer", "adamw", "--loss", "authors"])
    assert args.loss == "authors"
    assert (
        type(make_optimizer(iSmallNet(2), args.optimizer, args.lr, args.weight_decay))
        is torch.optim.AdamW
    )


def test_joint_training(data, tmp_path):
    make_set(tmp_path / "data" / "other", names="uvw", train=1, shape=(50, 60))
    argv = [*TINY, "--run-name", "j", "--epochs", "1"]
    argv[1:2] = ["tiny", "other"]
    assert main(argv) == 0
    info = read_checkpoint("runs/tiny+other/j/last.pt")["info"]
    assert set(info["figures"]) == {"tiny", "other"} and info["steps"] == 4


# --- several processes -----------------------------------------------------------------------------


def test_two_processes_count_as_one(data):
    """Seven test images shared by two processes, in a run whose weights find some targets: the
    figures are exactly those that one process counts with the weights that were kept."""
    write(data / "50_50/test.txt", "".join(f"{n}\n" for n in "abcdefg"))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--master-port", "29517", str(REPOSITORY / "train.py"), *TINY, "--lr", "1e-2"]
    command += ["--run-name", "x", "--epochs", "6", "--eval-every", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    two = json.loads((RUN / "metrics.json").read_text())["final"]["tiny"]
    assert done.stdout.count("epoch 6.0 step 18") == 1  # one process speaks

    total = Counter()
    frames = Frames(find_dataset("tiny"), "test")
    for _, pred, mask in infer(load_weights(RUN / "last.pt"), frames):
        total.update(count_standard(pred, mask))
    assert metrics_standard(total) == two and two["images"] == two["targets"] == 7


def test_parts_of_a_list_add_up_exactly(data):
    """The test list whole, and in 3 parts as 3 processes would take it: the same counts."""
    write(data / "50_50/test.txt", "".join(f"{n}\n" for n in "abcdefgh"))
    run("--epochs", 4, "--lr", 1e-2)
    model, frames = load_weights(RUN / "last.pt"), Frames(find_dataset("tiny"), "test")

    def counts(part):
        total = Counter()
        for _, pred, mask in infer(model, frames, part=part):
            total.update(count_standard(pred, mask))
        return total

    parts = [counts(slice(rank, None, 3)) for rank in range(3)]
    assert dict(sum(parts, Counter())) == pytest.approx(dict(+counts(slice(None))), rel=1e-12)
    assert parts[2]["images"] == 2


def test_balance_needs_several_data_sets(data, capsys):
    error = fails(main, "--dataset", "tiny", "--balance", capsys=capsys)
    assert "--balance: found one data set, expected several" in error
