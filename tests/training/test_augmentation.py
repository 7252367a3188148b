import os
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import make_set

from dataset import Frames
from ismallnet.cli import DataError
from ismallnet.datasets.find import find_dataset
from ismallnet.datasets.sample import Item
from ismallnet.distributed import Processes
from ismallnet.labels import decouple_dataset
from ismallnet.training import augmentation
from ismallnet.training.augmentation import (
    AUTHORS_SIDES,
    TrainingSet,
    authors_crop,
    batches,
    clutter,
    random_crop,
)


@pytest.fixture
def frames(tmp_path) -> Frames:
    root = make_set(tmp_path / "data" / "tiny", shape=(96, 120), names="abcde", train=4)
    found = find_dataset("tiny")
    decouple_dataset(found)
    frames = Frames(found, "train")
    frames.add_maps(root)
    return frames


def coloured(frames: Frames) -> Frames:
    """Frames whose three image channels are the three maps: what geometry does to one, it must do
    to the other."""
    colours = [np.dstack([item.interior, item.boundary, item.mask]) for item in frames.cache]
    frames.cache = [item._replace(image=image) for item, image in zip(frames.cache, colours)]
    return frames


@pytest.mark.parametrize("augment", ["crop", "authors"])
def test_geometry_is_the_same_for_image_and_maps(frames, augment):
    options = {"brightness": 0, "contrast": 0, "scale_jitter": 1.0}
    samples = TrainingSet([coloured(frames)], 2, 0, augment, crop=64, **options)
    for position in range(40):
        item = samples[position]
        image, maps = item.image, torch.cat([item.interior, item.boundary, item.mask])
        assert image.shape == maps.shape
        assert torch.allclose(image / 255, maps, atol=1e-5)


def test_rescaled_crops_keep_the_image_under_its_mask(frames):
    samples = TrainingSet([frames], 2, 0, crop=64, target_share=1.0, scale_jitter=1.5)
    inside, outside = [], []
    for position in range(60):
        image, mask = samples[position].image[0], samples[position].mask[0]
        assert set(mask.unique().tolist()) <= {0.0, 1.0}
        inside.append(image[mask > 0].mean())
        outside.append(image[mask == 0].mean())
    assert min(inside) > 150 and max(outside) < 110  # the target is 230, the rest 60 to 90


def test_maps_that_change_during_a_training_are_refused(tmp_path, frames):
    """Frames that do not fit in memory read their maps for each sample."""
    found = find_dataset("tiny")
    unkept = Frames(found, "train", memory=0)
    unkept.add_maps(found.root)
    kept, read = (TrainingSet([f], 2, 0, crop=64) for f in (frames, unkept))
    for position in range(4):
        assert all(torch.equal(a, b) for a, b in zip(kept[position], read[position]))
    decouple_dataset(found, method="authors", force=True)  # the same maps again
    read[0]
    decouple_dataset(found, method="wei")
    with pytest.raises(DataError, match="not those that this run began with"):
        read[0]
    with pytest.raises(DataError) as error:
        list(batches(read, range(3), Processes("cpu"), 1))
    assert str(error.value).startswith(f"{found.root}: the label maps of")  # without a traceback
    kept[0]


def test_an_epoch_has_every_image_once_and_its_own_order(frames):
    samples = TrainingSet([frames], 3, seed=5)
    orders = [[samples.index(e * 4 + i) for i in range(4)] for e in range(6)]
    assert all(sorted(order) == [0, 1, 2, 3] for order in orders)
    assert len({tuple(order) for order in orders}) > 1
    assert samples.name(0) == "abcd"[orders[0][0]]


def test_balanced_data_sets_share_the_samples(frames, tmp_path):
    """Four images and one: of 16 samples each gives 8, and in each pair of samples both are seen."""
    make_set(tmp_path / "data" / "other", shape=(96, 120), names="xyz", train=1)
    other = Frames(find_dataset("other"), "train")
    samples = TrainingSet([frames, other], 2, 5, balance=True)
    names = [samples.name(p) for p in range(64)]
    assert all(pair.count("x") == 1 for pair in zip(names[::2], names[1::2]))
    assert {names.index("x", p) - p for p in range(0, 64, 2)} == {0, 1}  # in random order
    others = [name for name in names if name != "x"]
    assert all(sorted(others[p : p + 4]) == list("abcd") for p in range(0, 32, 4))
    assert [samples.name(p) for p in (63, 0)] == [names[63], names[0]]
    plain = TrainingSet([frames, other], 2, 5)
    assert sorted(plain.name(p) for p in range(5)) == list("abcdx")


def test_a_sample_depends_on_seed_and_position_only(frames):
    one, two = (TrainingSet([frames], 2, 7, crop=32) for _ in range(2))
    two[3]
    for position in (9, 0, 9):
        for a, b in zip(one[position], two[position]):
            assert torch.equal(a, b)
    assert not torch.equal(TrainingSet([frames], 2, 8, crop=32)[0].image, one[0].image)


def spotted(*spots: tuple[int, int, int]) -> Item:
    """A dark image of 200x160 with bright squares of 3x3 px, (y, x, height); the first is a target."""
    image, mask = np.full((200, 160, 3), 20, np.uint8), np.zeros((200, 160), np.uint8)
    for y, x, height in spots:
        image[y - 1 : y + 2, x - 1 : x + 2] += np.uint8(height)
    y, x, _ = spots[0]
    mask[y - 1 : y + 2, x - 1 : x + 2] = 255
    return Item(image, mask, mask, mask)


def test_clutter_is_what_is_bright_and_small_and_no_target():
    """Highest first; not the target, what is within 8 px of it, a large area, or a flat image."""
    item = spotted((50, 40, 200), (50, 43, 150), (150, 30, 60), (100, 100, 90))
    item.image[160:, 100:] = 250
    assert clutter(item).tolist() == [[100, 100], [150, 30]]
    assert len(clutter(spotted((50, 40, 200)))) == 0


class One:
    """A list of one item without targets to place crops on."""

    centres = (np.empty((0, 2)),)

    def __init__(self, item: Item):
        self.item = item

    def __len__(self) -> int:
        return 1

    def __getitem__(self, i: int) -> Item:
        return self.item


def test_clutter_share():
    """Crops without a target for certain lie on the only bright spot that is none, or anywhere."""
    item = spotted((180, 140, 200), (20, 30, 150))

    def share(p: float) -> float:
        samples = TrainingSet([One(item)], 2, 0, crop=32, clutter_share=p, brightness=0, contrast=0)
        return np.mean([(samples[i].image > 100).any().item() for i in range(200)])

    assert share(1.0) == 1.0 and share(0.0) < 0.3 and 0.45 < share(0.5) < 0.8


def test_crops_of_another_sensor_are_grey_and_keep_their_maps(frames):
    plain, other = (TrainingSet([frames], 2, 0, crop=64, sensor_share=p) for p in (0.0, 1.0))
    changes = set()
    for position in range(60):
        before, after = plain[position], other[position]
        assert torch.equal(before.mask, after.mask) and torch.equal(before.interior, after.interior)
        image = after.image
        assert image.shape == (3, 64, 64) and image.dtype == torch.float32
        assert (image == image[:1]).all() and image.min() >= 0 and image.max() <= 255
        changes.add((image - before.image).abs().mean().item())
    assert len(changes) == 60 and max(changes) > 10


@pytest.mark.parametrize(
    ("mirror", "seen"), [("none", {"L"}), ("diagonal", {"L", "diagonal"}), ("all", set("LRUD"))]
)
@pytest.mark.parametrize("augment", ["crop", "authors"])
def test_how_crops_are_mirrored(mirror, seen, augment):
    """An image with a bright edge on its left, and a mask of it: where the edge is seen."""
    image = np.full((64, 64, 3), 50, np.uint8)
    image[:, :30] = 200
    mask = (image[..., 0] > 100).astype(np.uint8) * 255

    frames = One(Item(image, mask, mask, mask))
    samples = TrainingSet([frames], 2, 0, augment, crop=64, mirrors=[mirror], scale_jitter=1.0)
    found = set()
    for position in range(60):
        item = samples[position]
        assert ((item.image[0] > 100) == (item.mask[0] > 0)).float().mean() > 0.95
        half = item.mask.shape[-1] // 2
        left, upper = item.mask[0, :, :half].mean(), item.mask[0, :half].mean()
        right, lower = item.mask[0, :, half:].mean(), item.mask[0, half:].mean()
        found.add("LRUD"[int(torch.stack([left, right, upper, lower]).argmax())])
    if augment == "authors":  # theirs are mirrored left-right only
        assert found == ({"L", "R"} if mirror == "all" else {"L"})
    else:
        assert found == {"U" if side == "diagonal" else side for side in seen}


def test_crops_by_hand():
    """Images smaller than the crop are reflected, a centre is held even at a border, and the authors
    take less than an eighth of a side away."""
    planes = np.arange(6, dtype=np.uint8).reshape(1, 6, 1).repeat(4, 0)
    cut = random_crop(planes, 12, None, np.random.default_rng(0))
    assert cut.shape == (12, 12, 1)
    assert cut[0, :, 0].tolist() == [3, 2, 1, 0, 1, 2, 3, 4, 5, 4, 3, 2]
    planes = np.zeros((50, 50, 1), np.uint8)
    planes[2, 47] = 255
    for seed in range(20):
        cut = random_crop(planes, 16, np.array([2.0, 47.0]), np.random.default_rng(seed))
        assert cut.shape == (16, 16, 1) and cut.any()
    planes = np.zeros((80, 160, 6), np.uint8)
    shapes = [authors_crop(planes, np.random.default_rng(s)).shape for s in range(200)]
    heights, widths = {s[0] for s in shapes}, {s[1] for s in shapes}
    assert min(heights) == 71 and max(heights) == 80 and min(widths) == 141 and max(widths) == 160


def test_authors_batches_have_one_size_each(frames):
    samples = TrainingSet([frames], 4, 0, "authors")
    sides = [{samples[4 * step + i].image.shape[-1] for i in range(4)} for step in range(12)]
    assert all(len(side) == 1 for side in sides)
    assert len(set.union(*sides)) > 2 and set.union(*sides) <= set(AUTHORS_SIDES)


def test_with_too_little_shared_memory_there_are_no_loader_processes(monkeypatch, capsys, frames):
    monkeypatch.setattr("ismallnet.cli._noted", set())
    monkeypatch.setattr(augmentation, "SHARED", Path())
    monkeypatch.setattr(augmentation.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    samples = TrainingSet([frames], 2, 0, crop=32)
    assert len(list(batches(samples, range(2), Processes("cpu"), workers=2))) == 2
    assert "--workers 0" in capsys.readouterr().err


def test_loader_processes_end_with_an_error_in_one_of_them(tmp_path):
    """Python waited for them at its end, for ever."""
    script = """
        import sys
        from types import SimpleNamespace
        import torch
        from ismallnet.cli import DataError
        from ismallnet.training.augmentation import batches

        class Samples:
            batch_size, augment, crop, last_crop = 2, "crop", 32, 32

            def __getitem__(self, position):
                if position > 3:
                    raise DataError("gone")
                return torch.zeros(3, 32, 32)

        processes = SimpleNamespace(rank=0, world=1, device=torch.device("cpu"))
        try:
            list(batches(Samples(), range(9), processes, workers=2))
        except DataError as error:
            sys.exit(f"error: {error}")
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.stderr.strip() == "error: gone" and done.returncode == 1
