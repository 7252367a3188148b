from pathlib import Path

import pytest
import torch
from conftest import fails, make_set
from runs import RUN, TINY, equal, run, weights

from ismallnet.checkpoints import read_checkpoint, save_weights
from ismallnet.training.distillation import Teacher
from net import iSmallNet, load_weights
from train import main


@pytest.fixture(autouse=True)
def data(tmp_path) -> Path:
    return make_set(tmp_path / "data" / "tiny", names="abcdefgh", train=6)


def teacher(bias: float = 2.0, path: str = "teacher.safetensors", **info) -> str:
    """Weights of another width that find a target with the same probability at every pixel."""
    torch.manual_seed(0)
    model = iSmallNet(2)
    with torch.no_grad():
        model.mask_head[3].weight.zero_()
        model.mask_head[3].bias.fill_(bias)
    save_weights(model.state_dict(), info, Path(path))
    return path


def test_a_teacher_gives_its_own_probabilities_of_images_in_grey_values():
    torch.manual_seed(0)
    model = iSmallNet(2)
    model.mean.fill_(10), model.std.fill_(3)
    save_weights(model.state_dict(), {}, Path("t.safetensors"))
    image = torch.randint(0, 256, (2, 3, 32, 48)).float()
    found = Teacher("t.safetensors", torch.device("cpu"), "off")(image)
    model = load_weights("t.safetensors")
    with torch.no_grad():
        expected = torch.sigmoid(model((image - 10) / 3).mask)
    assert found.dtype == torch.float32 and torch.allclose(found, expected, atol=1e-3)


def mean_probability(folder: str) -> float:
    model = load_weights(f"runs/tiny/{folder}/last.pt")
    with torch.no_grad():
        return torch.sigmoid(model(torch.zeros(1, 3, 32, 32)).mask).mean().item()


def test_the_student_is_drawn_towards_its_teacher():
    """Masks that are nearly empty, and a teacher that is sure of a target everywhere."""
    options = ("--epochs", 20, "--lr", 1e-2, "--ema", 0)
    run(*options, folder="alone")
    run(*options, "--distill", teacher(6.0), folder="taught")
    assert mean_probability("alone") < 0.01 and mean_probability("taught") > 0.1


def test_a_distilled_run_is_resumed_bit_for_bit_and_says_who_taught_it():
    file = teacher(dataset=["far"], selected_on="nothing")
    run("--epochs", 2, "--distill", file, folder="whole")
    run("--epochs", 2, "--distill", file, "--max-minutes", 0)
    assert main([*TINY, "--resume", str(RUN)]) == 0
    assert equal(weights("runs/tiny/whole"), weights(RUN))
    info = load_weights(RUN / "last.pt").info
    assert info["teacher"]["file"] == file and info["teacher"]["dataset"] == ["far"]
    assert info["selected_on"] == "nothing" and "teacher" not in load_weights(file).info


def test_another_teacher_cannot_take_over(capsys):
    run("--epochs", 2, "--distill", teacher(), "--max-minutes", 0)
    before = (RUN / "last.pt").read_bytes()
    teacher(1.0)
    message = fails(main, *TINY, "--resume", str(RUN), capsys=capsys)
    assert "--distill teacher.safetensors is not the file that this run began with" in message
    assert (RUN / "last.pt").read_bytes() == before


def test_a_choice_on_the_test_list_is_inherited():
    run("--epochs", 1, "--distill", teacher(selected_on="the test list"))
    assert read_checkpoint(RUN / "last.pt")["info"]["selected_on"] == "the test list"


def test_a_teacher_that_is_not_there(capsys):
    message = fails(main, *TINY, "--distill", "no.safetensors", capsys=capsys)
    assert "no.safetensors" in message and not list(Path("runs").glob("*/*/last.pt"))
