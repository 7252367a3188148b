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
    assert ("left out" in notes) == (len(there) > 2)


def test_trainval_is_left_out_where_val_serves_as_the_test_list_of_lists_too(tmp_path):
    root = tmp_path / "s"
    pairs(root, "images", "masks", *"1234")
    for part, stems in (("train", "12"), ("val", "34"), ("trainval", "1234")):
        write(root / f"ImageSets/Segmentation/{part}.txt", "\n".join(stems))
    data = find_dataset("s", tmp_path)
    assert names(data, "train") == ["1", "2"] and names(data, "test") == ["3", "4"]


@pytest.mark.parametrize(("other", "told"), [("hard/", "hard/"), ("", "images right in it")])
def test_folders_beside_train_and_test_stop_a_new_split(tmp_path, other, told):
    root = tmp_path / "s"
    for folder in ("train/", "test/", other):
        pairs(root, "images", "masks", *(f"{folder}{name}{folder[:1]}" for name in "12"))
    with pytest.raises(DataError, match=rf"s/images: found {told} beside test/, train/.*--split TRAIN"):
        find_dataset("s", tmp_path)
    assert not (root / "50_50").exists()
    write(root / "train.txt", "train/1t\n")
    write(root / "test.txt", f"test/2t\n{other}1{other[:1]}\n")
    assert len(names(find_dataset("s", tmp_path), "test")) == 2


def test_images_and_split_folders_side_by_side_are_refused(tmp_path):
    root = tmp_path / "s"
    for part, name in (("train/", "1"), ("test/", "2"), ("", "1"), ("", "2")):
        pairs(root, f"{part}images", f"{part}masks", name)
    with pytest.raises(DataError, match=r"found images/, the split folders train/, test/ too"):
        find_dataset("s", tmp_path)
    assert not (root / "50_50").exists()
    data = find_dataset("s", tmp_path, reading=Reading(image_folder="images"))
    assert len(data.lists["train"]) == len(data.lists["test"]) == 1


def test_pictures_in_a_folder_called_test_are_no_split(tmp_path):
    root = tmp_path / "s"
    image(root, "test", "figure")
    pairs(root, "s/images", "s/masks", "1", "2")
    assert find_dataset("s", tmp_path).root == root / "s"


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
