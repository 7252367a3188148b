"""Which mask belongs to which image."""

import unicodedata

import numpy as np
import pytest
from conftest import make_set, write
from sets import image, mask, names

from ismallnet.cli import DataError
from ismallnet.datasets.find import find_dataset
from ismallnet.datasets.sample import AS_IT_LIES, Reading


def found_masks(root, reading=AS_IT_LIES) -> dict[str, str]:
    data = find_dataset(root.name, root.parent, reading=reading)
    assert not any(data.problems.values())
    pairs = {s.name: s.mask for samples in data.lists.values() for s in samples}
    return {name: file.relative_to(root).as_posix() for name, file in pairs.items()}


def test_open_sirst_v2_backgrounds_have_empty_masks(tmp_path):
    root = tmp_path / "v2"
    image(root, "images/targets", "t")
    mask(root, "annotations/masks", "t_pixels0")
    for name in ("empty", "t"):  # the second beside a target image of its name
        image(root, "images/backgrounds", name)
    write(root / "splits/trainval_full.txt", "targets/t\n")
    write(root / "splits/test_full.txt", "empty\nbackgrounds/t.png\n")
    data = find_dataset("v2", tmp_path)
    assert names(data, "train") == ["targets/t"] and data.lists["train"][0].mask
    assert names(data, "test") == ["backgrounds/empty", "backgrounds/t"]
    assert not any(s.mask for s in data.lists["test"]) and not any(data.problems.values())
    write(root / "splits/test_full.txt", "t\n")
    assert "could be" in find_dataset("v2", tmp_path).problems["test"][0]


def test_endings_of_mask_files(tmp_path):
    root = make_set(tmp_path / "s", names=("a", "b", "c", "d", "e", "f"), train=3)
    for name, ending in zip("bcdef", ("_pixels0", "_mask", "_gt", "_label", "_seg")):
        (root / f"masks/{name}.png").rename(root / f"masks/{name}{ending}.png")
    mask(root, "masks", "a_pixels0")  # X.png comes first
    assert set(found_masks(root).values()) == {
        f"masks/{name}.png" for name in ("a", "b_pixels0", "c_mask", "d_gt", "e_label", "f_seg")
    }
    (note,) = (note for note in find_dataset("s", tmp_path).notes if "no image's mask" in note)
    assert "masks/a_pixels0.png" in note


def test_one_mask_an_instance_is_refused(tmp_path):
    image(tmp_path / "s", "images", "a")
    for number in range(2):
        mask(tmp_path / "s", "masks", f"a_pixels{number}")
    with pytest.raises(DataError, match=r"a_pixels1\.png.*merge"):
        find_dataset("s", tmp_path)


def test_one_folder_with_images_and_masks(tmp_path):
    root = tmp_path / "s"
    for name in ("x_1", "x_10", "x_2", "x_3"):
        image(root, "training", f"{name}_1")
        mask(root, "training", f"{name}_2")
    with pytest.raises(DataError, match="--image-folder DIR"):
        find_dataset("s", tmp_path)
    write(root / "train.txt", "x_1\nx_10\n")
    write(root / "test.txt", "x_2_1.png\nx_3\n")
    assert found_masks(root, Reading("training", "training", "_1", "_2")) == {
        name: f"training/{name}_2.png" for name in ("x_1", "x_10", "x_2", "x_3")
    }
    with pytest.raises(DataError, match="--mask-suffix"):
        find_dataset("s", tmp_path, reading=Reading("training", "training"))
    with pytest.raises(DataError, match="no such folder"):
        find_dataset("s", tmp_path, reading=Reading("../s"))


def test_masks_beside_their_images_need_flags(tmp_path):
    root = make_set(tmp_path / "s")
    for file in [*(root / "masks").iterdir()]:
        file.rename(root / "images" / f"{file.stem}_mask.png")
    with pytest.raises(DataError, match="--mask-folder DIR"):
        find_dataset("s", tmp_path)
    reading = Reading(mask_folder="images", mask_suffix="_mask")
    assert found_masks(root, reading)["a"] == "images/a_mask.png"
    for file in (root / "50_50").iterdir():
        file.unlink()
    assert sorted(found_masks(root, reading)) == ["a", "b", "c", "d"]  # no mask is an image


def test_missing_masks_may_be_empty(tmp_path):
    root = make_set(tmp_path / "s")
    (root / "masks/b.png").unlink()
    assert "--missing-masks empty" in find_dataset("s", tmp_path).problems["train"][0]
    reading = Reading(missing_masks="empty")
    data = find_dataset("s", tmp_path, reading=reading)
    assert data.lists["train"][1].mask is None and not any(data.problems.values())
    assert any("1 images have no mask" in note for note in data.notes)
    (root / "masks").rename(root / "answers")
    with pytest.raises(DataError, match=r"found no mask for any.*--mask-folder"):
        find_dataset("s", tmp_path, reading=reading)
    reading = Reading(mask_folder="answers", missing_masks="empty")
    assert find_dataset("s", tmp_path, reading=reading).lists["train"][0].mask == root / "answers/a.png"


@pytest.mark.parametrize("missing_masks", ["error", "empty"])
@pytest.mark.parametrize("images", ["{}_images", "images/{}"])
def test_a_mask_that_two_images_could_mean_is_refused(tmp_path, images, missing_masks):
    root, reading = tmp_path / "s", Reading(missing_masks=missing_masks)
    for part in ("train", "test"):
        image(root, images.format(part), "0")
    mask(root, "masks", "0")
    with pytest.raises(DataError, match="2 images"):
        find_dataset("s", tmp_path, reading=reading)
    image(root, images.format("train"), "1")
    mask(root, "masks", "1")  # of one image
    data = find_dataset("s", tmp_path, reading=reading)
    assert [len(data.problems[part]) for part in ("train", "test")] == [1, 1]
    assert "masks/0.png" in data.problems["train"][0] and "masks/train" in data.problems["train"][0]
    for part, name in (("train", "0"), ("train", "1"), ("test", "0")):  # as the message says
        mask(root, f"masks/{part}", name)
    assert found_masks(root, reading) == {
        f"{part}/{name}": f"masks/{part}/{name}.png"
        for part, name in (("train", "0"), ("train", "1"), ("test", "0"))
    }


def test_sequences_that_share_a_mask(tmp_path):
    root = tmp_path / "s"
    for name in ("Seq1/0", "Seq2/0", "x"):
        image(root, "images", name)
    for name in ("0", "x"):
        mask(root, "masks", name)
    write(root / "train.txt", "Seq1/0\nx\n")
    write(root / "test.txt", "Seq2/0\n")
    data = find_dataset("s", tmp_path, reading=Reading(missing_masks="empty"))
    assert "masks/0.png" in data.problems["test"][0] and names(data, "train") == ["x"]
    mask(root, "masks/seq1", "0")  # in another case; masks/0.png is nobody's now
    data = find_dataset("s", tmp_path)
    assert names(data, "train") == ["Seq1/0", "x"] and len(data.problems["test"]) == 1


def test_label_maps_and_masks_are_never_images(tmp_path):
    root = tmp_path / "s"
    for k in range(4):
        write(root / f"im{k}.png", np.full((40, 48), 10 * k, np.uint8))
        mask(root, "answers", f"im{k}")
    for _ in range(2):
        assert sorted(found_masks(root, Reading(".", "answers"))) == ["im0", "im1", "im2", "im3"]
        for folder in ("interior", "boundary"):  # as stage 1 leaves them
            mask(root, folder, "im0")
        write(root / "maps.json", "{}")


def test_names_in_two_forms_of_unicode_belong_together(tmp_path):
    root = tmp_path / "s"
    for name in ("é1", "é2"):
        image(root, "images", unicodedata.normalize("NFC", name))
        mask(root, "masks", unicodedata.normalize("NFD", name))
    assert all(file[6] == "e" for file in found_masks(root).values())
