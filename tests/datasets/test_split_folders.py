"""Data sets whose folders are the lists: train/, test/, val/."""

import pytest
from conftest import write
from sets import image, mask, names, pairs

from ismallnet.cli import DataError
from ismallnet.datasets.find import find_dataset
from ismallnet.datasets.sample import Reading

FORMS = [  # of image and mask folders
    ("{}/images", "{}/masks"),
    ("{}/IMG", "{}/Label"),
    ("{}_images", "{}_masks"),
    ("images_{}", "masks_{}"),
    ("{}-img", "{}-label"),
    ("{}_images", "masks"),
    ("{}/images", "masks"),
    ("images/{}", "masks/{}"),
    ("{}", "{}/masks"),
    ("{}", "masks/{}"),
    ("{}", "masks"),
]


@pytest.mark.parametrize(("images", "masks"), FORMS)
@pytest.mark.parametrize(("train", "test"), [("train", "test"), ("Train", "TEST")])
def test_forms_of_split_folders(tmp_path, images, masks, train, test):
    root = tmp_path / "s"
    pairs(root, images.format(train), masks.format(train), "1", "2")
    pairs(root, images.format(test), masks.format(test), "3")
    write(root / "train_log.txt", "not a list")
    data = find_dataset("s", tmp_path)
    assert names(data, "train") == ["1", "2"] and names(data, "test") == ["3"]
    assert data.lists["test"][0].mask == root / masks.format(test) / "3.png"
    assert not (root / "50_50").exists() and not any(data.problems.values())
    assert not any(note.startswith("note:") for note in data.notes)


@pytest.mark.parametrize("lists", [True, False])
@pytest.mark.parametrize(("images", "masks"), [("{}/images", "{}/masks"), ("images/{}", "masks/{}")])
def test_split_folders_that_repeat_a_name(tmp_path, images, masks, lists):
    root = tmp_path / "s"
    for part in ("train", "test"):
        pairs(root, images.format(part), masks.format(part), "1")
        if lists:
            write(root / f"{part}.txt", "1\n")
    data = find_dataset("s", tmp_path)
    assert names(data, "train") == ["train/1"] and names(data, "test") == ["test/1"]
    assert data.lists["train"][0].mask == root / masks.format("train") / "1.png"


PARTS = [  # the folders that are there; those that are used for training and testing
    (("train", "test"), "train", "test"),
    (("train", "val"), "train", "val"),
    (("training", "validation"), "training", "validation"),
    (("train", "valid"), "train", "valid"),
    (("train", "val", "test"), "train", "test"),
    (("train", "trainval", "test"), "trainval", "test"),
    (("train", "trainval", "val", "test"), "trainval", "test"),
    (("train", "trainval", "val"), "train", "val"),  # trainval has the images of val
]


@pytest.mark.parametrize("form", ["{}/images", "images/{}"])
@pytest.mark.parametrize(("there", "train", "test"), PARTS)
def test_which_parts_are_used(tmp_path, form, there, train, test):
    for part in there:
        folder = form.format(part)
        pairs(tmp_path / "s", folder, folder.replace("images", "masks"), f"of_{part}")
    data = find_dataset("s", tmp_path)
    assert names(data, "train") == [f"of_{train}"] and names(data, "test") == [f"of_{test}"]
    notes = "\n".join(data.notes)
    assert ("serves as the test list" in notes) == (test[0] == "v")


@pytest.mark.parametrize(
    ("form", "beside"),
    [("{0}/{1}", "{0}/hard/{1}"), ("{0}/{1}", "{0}"), ("{1}/{0}", "{0}/hard"), ("{1}/{0}", "{0}")],
)
def test_images_beside_train_and_test_are_used_by_lists_alone(tmp_path, form, beside):
    root, folders = tmp_path / "s", ("images", "masks")
    for part in ("train", "test"):
        pairs(root, *(form.format(folder, part) for folder in folders), part)
    pairs(root, *(beside.format(folder, "deep") for folder in folders), "1", "2")
    data = find_dataset("s", tmp_path)
    assert names(data, "train") == ["train"] and names(data, "test") == ["test"]
    (note,) = (note for note in data.notes if "beside the split folders" in note)
    assert "2 images" in note and "/1.png" in note and not (root / "50_50").exists()
    assert find_dataset("s", tmp_path, reading=Reading(image_folder="images")).lists["test"]
    write(root / "train.txt", "1\n")
    write(root / "test.txt", "2\n")
    assert names(find_dataset("s", tmp_path), "test")[0].endswith("2")


def test_a_mask_folder_of_another_name_for_split_folders(tmp_path):
    root = tmp_path / "s"
    write(root / "training/log.txt", "no picture, so no split folder")
    for part, name in (("train", "1"), ("test", "2")):
        image(root, part, name)
        mask(root, f"annos/{part}", name)
    with pytest.raises(DataError, match=r"found no mask for any of its 2 images.*--mask-folder DIR"):
        find_dataset("s", tmp_path)
    data = find_dataset("s", tmp_path, reading=Reading(mask_folder="annos"))
    assert data.lists["test"][0].mask == root / "annos/test/2.png"
