"""Which mask belongs to which image."""

import re
import unicodedata

import numpy as np
import pytest
from conftest import make_set, write
from sets import image, mask, names

from ismallnet.cli import DataError
from ismallnet.datasets.checks import copies_note
from ismallnet.datasets.find import find_dataset
from ismallnet.datasets.sample import Reading


def test_open_sirst_v2_backgrounds_have_empty_masks(tmp_path):
    root = tmp_path / "v2"
    image(root, "images/targets", "t")
    mask(root, "annotations/masks", "t_pixels0")
    image(root, "images/backgrounds", "empty")
    write(root / "splits/trainval_full.txt", "t\n")
    write(root / "splits/test_full.txt", "empty\n")
    data = find_dataset("v2", tmp_path)
    assert data.lists["test"][0].mask is None and data.lists["train"][0].mask is not None
    assert not any(data.problems.values())


def test_target_and_background_of_one_name(tmp_path):
    root = tmp_path / "v2"
    for folder in ("targets", "backgrounds"):
        image(root, f"images/{folder}", "1")
    mask(root, "annotations/masks", "1_pixels0")
    write(root / "splits/train_full.txt", "targets/1\n")
    write(root / "splits/test_full.txt", "backgrounds/1.png\n")
    data = find_dataset("v2", tmp_path)
    assert names(data, "train") == ["targets/1"] and names(data, "test") == ["backgrounds/1"]
    assert data.lists["train"][0].mask and data.lists["test"][0].mask is None
    write(root / "splits/test_full.txt", "1\n")
    assert "could be" in find_dataset("v2", tmp_path).problems["test"][0]


def test_plain_x_png_is_taken_before_x_pixels0(tmp_path):
    root = make_set(tmp_path / "s")
    mask(root, "masks", "a_pixels0")
    assert find_dataset("s", tmp_path).lists["train"][0].mask.name == "a.png"


def test_one_folder_with_images_and_masks(tmp_path):
    root = tmp_path / "s"
    for name in ("x_1", "x_10", "x_2", "x_3"):
        image(root, "training", f"{name}_1")
        mask(root, "training", f"{name}_2")
    with pytest.raises(DataError, match="--image-folder DIR"):
        find_dataset("s", tmp_path)
    write(root / "train.txt", "x_1\nx_10\n")
    write(root / "test.txt", "x_2_1.png\nx_3\n")
    reading = Reading("training", "training", "_1", "_2")
    data = find_dataset("s", tmp_path, reading=reading)
    assert names(data, "train") == ["x_1", "x_10"] and names(data, "test") == ["x_2", "x_3"]
    assert data.lists["train"][0].mask == root / "training/x_1_2.png"
    assert not any(data.problems.values())
    with pytest.raises(DataError, match="no such folder"):
        find_dataset("s", tmp_path, reading=Reading("../s"))


def test_masks_beside_their_images(tmp_path):
    root = make_set(tmp_path / "s")
    for file in [*(root / "masks").iterdir()]:
        file.rename(root / "images" / f"{file.stem}_mask.png")
    data = find_dataset("s", tmp_path)
    assert names(data, "train") == ["a", "b"] and not any(data.problems.values())
    assert data.lists["train"][0].mask == root / "images/a_mask.png"


def test_missing_masks_may_be_empty(tmp_path):
    root = make_set(tmp_path / "s")
    (root / "masks/b.png").unlink()
    assert "--missing-masks empty" in find_dataset("s", tmp_path).problems["train"][0]
    reading = Reading(missing_masks="empty")
    data = find_dataset("s", tmp_path, reading=reading)
    assert data.lists["train"][1].mask is None and not any(data.problems.values())
    assert any("1 images without a mask" in note for note in data.notes)
    (root / "masks").rename(root / "answers")
    with pytest.raises(DataError, match=r"no target at all.*--mask-folder"):
        find_dataset("s", tmp_path, reading=reading)
    reading = Reading(mask_folder="answers", missing_masks="empty")
    assert find_dataset("s", tmp_path, reading=reading).lists["train"][0].mask == root / "answers/a.png"


def found_masks(root) -> dict[str, str]:
    data = find_dataset(root.name, root.parent)
    assert not any(data.problems.values())
    pairs = {s.name: s.mask for samples in data.lists.values() for s in samples}
    return {name: file.relative_to(root).as_posix() for name, file in pairs.items()}


def test_masks_of_less_usual_names(tmp_path):
    root = tmp_path / "s"
    for name, other in (
        ("A1", "a1"),
        ("b", "mask_b"),
        ("c", "c_GT"),
        ("d", "d"),
        ("seq1/01", "seq1_01"),
    ):
        image(root, "images", name)
        mask(root, "masks", other)
    assert found_masks(root) == {
        "A1": "masks/a1.png",
        "b": "masks/mask_b.png",
        "c": "masks/c_GT.png",
        "d": "masks/d.png",
        "seq1/01": "masks/seq1_01.png",
    }


def test_a_mask_in_another_case_is_not_shared(tmp_path):
    root = make_set(tmp_path / "s", names=("a", "A", "b", "c"))
    for name in ("a", "A"):
        (root / "masks" / f"{name}.png").unlink()
    for other in ("mask_a", "a"):
        mask(root, "masks", other)
        data = find_dataset("s", tmp_path)
        (problem,) = data.problems["train"]
        assert "images/A.png" in problem and data.lists["train"][0].mask.name == f"{other}.png"


def test_masks_by_instance_are_named_as_what_they_are(tmp_path):
    root = tmp_path / "s"
    for name in ("x", "y"):
        image(root, "images", name)
        mask(root, "masks", f"{name}_0")
    mask(root, "masks", "x_1")
    with pytest.raises(DataError, match=r"3 masks are called as an image and a number.*x\.png"):
        find_dataset("s", tmp_path)
    data = find_dataset("s", tmp_path, reading=Reading(mask_suffix="_0"))
    assert any("masks/x_1.png" in note for note in data.notes)


def test_an_image_is_never_a_mask(tmp_path):
    root = tmp_path / "s"
    for k, name in enumerate(("seq1/0", "seq1_0", "B", "c")):
        shaded(root, f"images/{name}", 20 * k)
    image(root, "images", "b", ".jpg")
    for name in ("seq1_0", "B", "c"):
        mask(root, "images", f"{name}_mask")
    write(root / "train.txt", "seq1/0\nseq1_0\nb.jpg\n")
    write(root / "test.txt", "c\nB.png\n")
    data = find_dataset("s", tmp_path)
    assert names(data, "train") == ["seq1_0"] and len(data.problems["train"]) == 2
    assert {s.name: s.mask.name for s in data.lists["test"]} == {"c": "c_mask.png", "B": "B_mask.png"}


def test_masks_beside_their_images_in_other_forms(tmp_path):
    root = tmp_path / "s"
    for name, other in (("a", "a_GT"), ("b", "b_Mask"), ("c", "mask_c"), ("label_c", "mask_label_c")):
        image(root, "images", name)
        mask(root, "images", other)
    mask(root, "images", "mask_")  # an image, of no name as a mask
    write(root / "train.txt", "a\nb\n")
    write(root / "test.txt", "c\nlabel_c\n")
    assert list(found_masks(root)) == ["a", "b", "c", "label_c"]


def test_folders_in_another_case_and_twins(tmp_path):
    root = tmp_path / "s"
    for name in ("Seq1/01", "Seq1/02"):
        image(root, "images", name)
        mask(root, "masks", name.lower())
    image(root, "images", "x")
    image(root, "images", "x", ".jpg")  # the first is used
    mask(root, "masks", "mask_x")
    write(root / "train.txt", "Seq1/01\nmask_x\n")  # by its mask's name
    write(root / "test.txt", "Seq1/02\n")
    assert list(found_masks(root)) == ["Seq1/01", "x", "Seq1/02"]


@pytest.mark.parametrize(("first", "second"), [("_pixels0", "_pixels1"), ("", "_1"), ("", "-2")])
def test_masks_by_instance_beside_a_first_one(tmp_path, first, second):
    root = tmp_path / "s"
    for name in ("x", "y"):
        image(root, "images", name)
        mask(root, "masks", f"{name}{first}")
    mask(root, "masks", f"y{second}")
    with pytest.raises(
        DataError, match=rf"1 masks are called as an .*y\.png: .*--mask-suffix={second}"
    ):
        find_dataset("s", tmp_path)
    mask(root, "masks", "x_more")  # a note is enough
    (root / "masks" / f"y{second}.png").unlink()
    assert any("masks/x_more.png" in note for note in find_dataset("s", tmp_path).notes)


def shaded(root, path: str, shade: int) -> None:
    """An image of its own; `sets.image` always writes the same one."""
    write(root / f"{path}.png", np.full((40, 48), shade, np.uint8))


SPLIT_FOLDERS = [("{}_images", "{}_masks"), ("images/{}", "masks/{}")]


@pytest.mark.parametrize(("images", "own"), SPLIT_FOLDERS)
def test_a_mask_that_two_images_could_mean_is_refused(tmp_path, images, own):
    root = tmp_path / "s"
    for k, part in enumerate(("train", "test")):
        for name in "01":
            shaded(root, f"{images.format(part)}/{name}", 10 + 20 * k + int(name))
    mask(root, "masks", "0")
    mask(root, "masks", "1")
    expected = f"masks/0.png .*another picture.* in .*{own.format('train')}/0"
    for reading in (Reading(), Reading(missing_masks="empty")):
        with pytest.raises(DataError, match="4 images"):
            find_dataset("s", tmp_path, reading=reading)
        shaded(root, f"{images.format('train')}/2", 90)
        mask(root, "masks", "2")  # of one image
        data = find_dataset("s", tmp_path, reading=reading)
        assert [len(data.problems[part]) for part in ("train", "test")] == [2, 2]
        assert names(data, "train") == ["2"] or names(data, "train") == ["train/2"]
        assert re.search(expected, data.problems["train"][0])
        for file in (root / images.format("train") / "2.png", root / "masks/2.png"):
            file.unlink()
    for part in ("train", "test"):  # as the message says
        mask(root, own.format(part), "0")
        mask(root, own.format(part), "1")
    data = find_dataset("s", tmp_path)
    assert not any(data.problems.values())
    assert [s.mask for s in data.lists["test"]] == [
        root / own.format("test") / f"{n}.png" for n in "01"
    ]


@pytest.mark.parametrize(("images", "own"), SPLIT_FOLDERS)
def test_copies_in_train_and_test_share_their_mask(tmp_path, images, own):
    root = tmp_path / "s"
    for part in ("train", "test"):
        shaded(root, f"{images.format(part)}/0", 50)
        shaded(root, f"{images.format(part)}/{part}", 60 + len(part))
        mask(root, "masks", part)
    mask(root, "masks", "0")
    data = find_dataset("s", tmp_path)
    assert not any(data.problems.values()) and len(data.lists["test"]) == 2
    assert copies_note(data)


def test_sequences_that_share_a_mask_are_told_where_theirs_belong(tmp_path):
    root = tmp_path / "s"
    for k, name in enumerate(("Seq1/0", "Seq2/0", "x")):
        shaded(root, f"images/{name}", 20 * k)
        mask(root, "masks", name.removeprefix("Seq1/").removeprefix("Seq2/"))
    write(root / "train.txt", "Seq1/0\nx\n")
    write(root / "test.txt", "Seq2/0\n")
    data = find_dataset("s", tmp_path, reading=Reading(missing_masks="empty"))
    assert "masks/0.png" in data.problems["test"][0]
    assert names(data, "train") == ["x"] and not data.lists["test"]
    mask(root, "masks/Seq1", "0")
    assert len(find_dataset("s", tmp_path).problems["test"]) == 1  # masks/0.png may still be of Seq1


def test_masks_are_never_images(tmp_path):
    root = tmp_path / "s"
    for k in range(4):
        shaded(root, f"im{k}", 10 * k)
        mask(root, "answers", f"im{k}")
    reading = Reading(".", "answers")
    for _ in range(2):
        data = find_dataset("s", tmp_path, reading=reading)
        used = sorted(names(data, "train") + names(data, "test"))
        assert used == ["im0", "im1", "im2", "im3"] and not any(data.problems.values())
        for folder in ("interior", "boundary"):  # as stage 1 leaves them
            mask(root, folder, "im0")
        write(root / "maps.json", "{}")


def test_names_in_two_forms_of_unicode_belong_together(tmp_path):
    root = tmp_path / "s"
    for name in ("é1", "é2"):
        image(root, "images", unicodedata.normalize("NFC", name))
        mask(root, "masks", unicodedata.normalize("NFD", name))
    data = find_dataset("s", tmp_path)
    assert {s.mask.stem for part in data.lists.values() for s in part} == {
        unicodedata.normalize("NFD", name) for name in ("é1", "é2")
    }


def test_a_new_split_may_hold_one_name_in_two_folders(tmp_path):
    root = tmp_path / "s"
    for folder in ("", "/seq1"):
        for name in "12":
            image(root, f"images{folder}", name)
            mask(root, f"masks{folder}", name)
    for _ in range(2):  # made, then read
        data = find_dataset("s", tmp_path)
        found = sorted(name for part in data.lists for name in names(data, part))
        assert found == ["1", "2", "seq1/1", "seq1/2"]
        assert not any(data.problems.values()) and (root / "50_50/test.txt").is_file()
