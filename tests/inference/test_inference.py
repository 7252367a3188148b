"""Precision, and logits that cannot be."""

import numpy as np
import pytest
import torch

from dataset import Frames
from ismallnet.datasets.find import find_dataset
from ismallnet.datasets.sample import Item
from ismallnet.distributed import has_bf16, pick_device
from ismallnet.evaluation.metrics import quantise
from ismallnet.inference.predict import (
    NotFiniteError,
    Tiling,
    autocast,
    infer,
    precision,
    predict,
    predict_frame,
)
from net import iSmallNet

CUDA = torch.device("cuda", 0)


@pytest.mark.parametrize("capability, expected", [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_bf16_is_taken_from_compute_capability_8_on(monkeypatch, capability, expected):
    """PyTorch says that older cards have it, too: it emulates it there."""
    asked = []
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda d: asked.append(d) or capability)
    assert has_bf16(CUDA) == expected and asked == [CUDA]  # of that device, not of the current one
    assert precision(CUDA) == (torch.bfloat16 if expected else torch.float16)
    assert precision(CUDA, "bf16") == torch.bfloat16 and precision(CUDA, "off") is None


def test_a_device_that_is_named_is_the_current_one(monkeypatch):
    """What names none, the statistics of memory and random numbers, means the same."""
    chosen = []
    monkeypatch.setattr(torch, "zeros", lambda *_, **__: None)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    assert pick_device("cuda:1") == torch.device("cuda", 1) and chosen == [torch.device("cuda", 1)]
    assert pick_device("cpu").type == "cpu" and len(chosen) == 1


def test_the_cpu_has_mixed_precision_only_where_it_is_asked_for():
    cpu = torch.device("cpu")
    assert precision(cpu) is None and not has_bf16(cpu)
    with autocast(cpu):
        assert not torch.is_autocast_enabled("cpu")
    with autocast(cpu, "bf16"):
        assert torch.is_autocast_enabled("cpu")


class Overflowing(iSmallNet):
    """Its logits overflow where an image is bright."""

    def forward(self, image):
        outputs = super().forward(image)
        bright = image.amax((1, 2, 3)) > 2
        return outputs._replace(mask=torch.where(bright[:, None, None, None], torch.inf, outputs.mask))


@pytest.mark.parametrize("flips", [False, True])
def test_logits_that_are_not_finite_are_never_a_map(flips):
    torch.manual_seed(0)
    model = Overflowing(2).eval()
    dark = np.zeros((20, 30, 3), np.float32)
    assert predict(model, [dark, dark], flips=flips)[1].shape == (20, 30)
    with pytest.raises(NotFiniteError, match=r"frame 1 of 2.*--amp off") as error:
        predict(model, [dark, dark + 255 * np.eye(20, 30, dtype=np.float32)[..., None]], flips=flips)
    assert error.value.index == 1


def test_the_frame_whose_logits_are_not_finite_is_named(data, monkeypatch):
    torch.manual_seed(0)
    frames = Frames(find_dataset("tiny"), "test")  # c and d
    frames.cache[1] = frames.cache[1]._replace(image=frames.cache[1].image * np.float32(2))
    model = Overflowing(2).eval()
    model.std.fill_(200)
    model.mean.fill_(0)
    with pytest.raises(NotFiniteError, match=r"d\.png"):
        list(infer(model, frames))


# --- tiles -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tile, shape, expected",
    [
        (None, (1023, 1023), False),
        (None, (100, 1024), True),
        (0, (5000, 5000), False),
        (64, (64, 64), False),
        (64, (65, 20), True),
    ],
)
def test_which_images_run_in_tiles(tile, shape, expected):
    assert Tiling(tile).applies(shape) == expected
    assert bool(Tiling(tile).note([shape, (9, 9)])) == expected


class Listed(list):
    """A list of Items, as `infer` takes it."""

    @property
    def shapes(self) -> list[tuple[int, int]]:
        return [item.mask.shape for item in self]


def listed(*shapes: tuple[int, int], kind=np.uint8) -> Listed:
    rng = np.random.default_rng(0)
    images = [rng.uniform(0, 255, (*shape, 1)).astype(kind).repeat(3, 2) for shape in shapes]
    return Listed(Item(image, np.zeros(image.shape[:2], np.uint8)) for image in images)


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_tiles_of_a_data_set_s_image_are_the_detector_s(kind):
    """Of 8 bits, and of more bits, which are floats in 0-255 units by then."""
    torch.manual_seed(0)
    model = iSmallNet(2).eval()
    frames = listed((70, 90), kind=kind)
    image = frames[0].image
    tiled, whole, default = (
        next(infer(model, frames, tiling=tiling))[1] for tiling in (Tiling(48), Tiling(0), Tiling())
    )
    assert (tiled == quantise(predict_frame(model, image, 48, 24))).all()
    assert (whole == quantise(predict(model, [image])[0])).all() and (tiled != whole).any()
    assert (default == whole).all()
