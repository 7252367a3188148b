"""Data sets whose folders are the lists: train/, test/, val/."""

import pytest
from conftest import write
from sets import image, mask, names

from ismallnet.cli import DataError
from ismallnet.datasets.find import find_dataset
from ismallnet.datasets.sample import Reading


@pytest.mark.parametrize("first", ["train", "trainval"])
def test_split_folders(tmp_path, first):
    root = tmp_path / "s"
    for part, name in ((first, "1"), (first, "2"), ("test", "3")):
        image(root, f"{part}/images", name)
        mask(root, f"{part}/masks", name)
    if first == "trainval":  # is taken before train
        image(root, "train/images", "1x")
        mask(root, "train/masks", "1x")
    write(root / "train_log.txt", "not a list")
    data = find_dataset("s", tmp_path)
    assert names(data, "train") == ["1", "2"] and names(data, "test") == ["3"]


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        ("{}_images", "{}_masks"),
        ("images_{}", "masks_{}"),
        ("{}-img", "{}-label"),
        ("{}Images", "{}GT"),
        ("{}_images", "masks"),
    ],
)
def test_split_folders_with_the_part_in_their_names(tmp_path, images, masks):
    root = tmp_path / "s"
    for part, name in (("train", "1"), ("train", "2"), ("test", "3")):
        image(root, images.format(part), name)
        mask(root, masks.format(part), name)
    data = find_dataset("s", tmp_path)
    assert names(data, "train") == ["1", "2"] and names(data, "test") == ["3"]
    assert data.lists["test"][0].mask == root / masks.format("test") / "3.png"
    assert f"images in {images.format('train')}/" in data.layout
    assert not any(note.startswith("note:") for note in data.notes)


def test_split_folders_that_repeat_a_name(tmp_path):
    root = tmp_path / "s"
    for part in ("train", "test"):
        image(root, f"{part}/images", "1")
        mask(root, f"{part}/masks", "1")
    data = find_dataset("s", tmp_path)
    assert names(data, "train") == ["train/1"] and names(data, "test") == ["test/1"]
    assert data.lists["train"][0].mask == root / "train/masks/1.png"


def test_lists_may_name_images_of_train_beside_trainval(tmp_path):
    root = tmp_path / "s"
    for part, name in (("train", "1"), ("train", "2"), ("trainval", "2"), ("test", "3")):
        image(root, f"{part}/images", name)
        mask(root, f"{part}/masks", name)
    write(root / "train.txt", "1\n2\n")
    write(root / "test.txt", "3\n")
    data = find_dataset("s", tmp_path)
    assert names(data, "train") == ["1", "2"] and not data.problems["train"]
    assert [s.image.parent.parent.name for s in data.lists["train"]] == ["train", "trainval"]


def test_lists_of_split_folders_that_repeat_a_name(tmp_path):
    root = tmp_path / "s"
    for part in ("train", "test"):
        for name in "12":
            image(root, f"{part}/images", name)
            mask(root, f"{part}/masks", name)
        write(root / f"{part}.txt", "1\n")
    data = find_dataset("s", tmp_path)
    assert names(data, "train") == ["train/1"] and names(data, "test") == ["test/1"]


@pytest.mark.parametrize("form", ["{}/images", "images/{}"])
def test_val_serves_where_there_is_no_test_folder(tmp_path, form):
    root = tmp_path / "s"
    for part, name in (("train", "1"), ("val", "2")):
        image(root, form.format(part), name)
        mask(root, form.format(part).replace("images", "masks"), name)
    data = find_dataset("s", tmp_path)
    assert names(data, "train") == ["1"] and names(data, "test") == ["2"]
    assert "val/ serves" in data.notes[0] and not any(data.problems.values())
    image(root, form.format("test"), "3")
    mask(root, form.format("test").replace("images", "masks"), "3")
    data = find_dataset("s", tmp_path)
    assert names(data, "test") == ["3"] and "val/ is left out" in data.notes[0]


@pytest.mark.parametrize(("train", "test"), [("training", "validation"), ("train", "valid")])
@pytest.mark.parametrize("form", ["images/{}", "{}/images"])
def test_other_names_of_parts(tmp_path, train, test, form):
    root = tmp_path / "s"
    for part, name in ((train, "1"), (train, "2"), (test, "3")):
        image(root, form.format(part), name)
        mask(root, form.format(part).replace("images", "masks"), name)
    data = find_dataset("s", tmp_path)
    assert names(data, "train") == ["1", "2"] and names(data, "test") == ["3"]
    assert not (root / "50_50").exists()


@pytest.mark.parametrize("name", ["{}_mask", "mask_{}"])
def test_split_folders_with_the_images_in_them(tmp_path, name):
    root = tmp_path / "s"
    for part, stem in (("train", "1_jpg.rf.0a"), ("train", "2_jpg.rf.1b"), ("valid", "3_jpg.rf.2c")):
        image(root, part, stem, ".jpg")
        mask(root, part, name.format(stem))
        write(root / part / "_classes.csv", "Pixel Value, Class\n0, background\n1, target\n")
    data = find_dataset("s", tmp_path)
    assert names(data, "train") == ["1_jpg.rf.0a", "2_jpg.rf.1b"]
    assert names(data, "test") == ["3_jpg.rf.2c"] and not any(data.problems.values())
    assert data.lists["test"][0].mask == root / "valid" / f"{name.format('3_jpg.rf.2c')}.png"


def test_parts_in_capitals(tmp_path):
    root = tmp_path / "s"
    for part in ("Train", "TEST"):
        for name in (f"{part}1", "0"):
            image(root, f"images/{part}", name)
            mask(root, f"masks/{part}", name)
    data = find_dataset("s", tmp_path)
    assert names(data, "train") == ["Train/0", "Train/Train1"]
    assert names(data, "test") == ["TEST/0", "TEST/TEST1"]
    assert not (root / "50_50").exists() and not any(data.problems.values())
    for part in ("Train", "TEST"):
        (root / f"images/{part}/0.png").unlink()
    assert names(find_dataset("s", tmp_path), "train") == ["Train1"]  # as with images/train/


@pytest.mark.parametrize(("other", "told"), [("hard/", "hard/"), ("", "images right in it")])
def test_folders_beside_train_and_test_stop_a_new_split(tmp_path, other, told):
    root = tmp_path / "s"
    for folder in ("train/", "test/", other):
        for name in "12":
            image(root, "images", f"{folder}{name}{folder[:1]}")
            mask(root, "masks", f"{folder}{name}{folder[:1]}")
    with pytest.raises(DataError, match=rf"s/images: found {told} beside test/, train/.*--split TRAIN"):
        find_dataset("s", tmp_path)
    assert not (root / "50_50").exists()
    write(root / "train.txt", "train/1t\n")
    write(root / "test.txt", f"test/2t\n{other}1{other[:1]}\n")
    assert len(names(find_dataset("s", tmp_path), "test")) == 2


def test_images_of_train_that_trainval_has_not_are_counted(tmp_path):
    root = tmp_path / "s"
    for part, name in (("train", "1"), ("train", "2"), ("trainval", "2"), ("test", "3")):
        image(root, f"{part}/images", name)
        mask(root, f"{part}/masks", name)
    data = find_dataset("s", tmp_path)
    assert names(data, "train") == ["2"]
    assert any("1 images of train/ are not in trainval/: 1" in note for note in data.notes)
    image(root, "trainval/images", "1")
    mask(root, "trainval/masks", "1")
    assert not any("trainval" in note for note in find_dataset("s", tmp_path).notes)


@pytest.mark.parametrize("masks", ["{}/masks", "masks/{}", "masks"])
def test_split_folders_with_the_images_right_in_them(tmp_path, masks):
    root = tmp_path / "s"
    for part, name in (("train", "1"), ("train", "2"), ("valid", "3")):
        image(root, part, name)
        mask(root, masks.format(part), name)
    data = find_dataset("s", tmp_path)
    assert names(data, "train") == ["1", "2"] and names(data, "test") == ["3"]
    assert data.lists["test"][0].mask == root / masks.format("valid") / "3.png"
    assert f"images in ./, masks in {masks.format('train').removeprefix('train/')}/" in data.layout


def test_split_folders_share_masks_right_in_the_data_set(tmp_path):
    root = tmp_path / "s"
    for part, name in (("train", "1"), ("test", "2")):
        image(root, f"{part}/images", name)
        mask(root, "masks", name)
    data = find_dataset("s", tmp_path)
    assert data.lists["train"][0].mask == root / "masks/1.png"
    assert data.lists["test"][0].mask == root / "masks/2.png"


def test_pictures_in_a_folder_called_test_are_no_split(tmp_path):
    root = tmp_path / "s"
    image(root, "test", "figure")
    for name in ("1", "2"):
        image(root, "s/images", name)
        mask(root, "s/masks", name)
    assert find_dataset("s", tmp_path).root == root / "s"


def test_a_folder_beside_split_folders_is_named(tmp_path):
    root = tmp_path / "s"
    for part in ("train", "test", "hard"):
        image(root, f"{part}/images", part)
        mask(root, f"{part}/masks", part)
    data = find_dataset("s", tmp_path)
    assert names(data, "train") == ["train"] and names(data, "test") == ["test"]
    assert any(note.startswith("note: hard/ left out") for note in data.notes)


def test_images_and_split_folders_side_by_side_are_refused(tmp_path):
    root = tmp_path / "s"
    for part, name in (("train/", "1"), ("test/", "2"), ("", "1"), ("", "2")):
        image(root, f"{part}images", name)
        mask(root, f"{part}masks", name)
    with pytest.raises(DataError, match=r"found images/, the split folders train/, test/ too"):
        find_dataset("s", tmp_path)
    assert not (root / "50_50").exists()
    data = find_dataset("s", tmp_path, reading=Reading(image_folder="images"))
    assert len(data.lists["train"]) == len(data.lists["test"]) == 1


@pytest.mark.parametrize("kind", ["webp", "link"])
def test_a_split_folder_whose_images_are_not_read_is_an_error(tmp_path, kind):
    root = tmp_path / "s"
    for part in ("train", "val"):
        image(root, f"{part}/images", part)
        mask(root, f"{part}/masks", part)
    (root / "test/images").mkdir(parents=True)
    write(root / "test/.gitkeep", "")
    assert names(find_dataset("s", tmp_path), "test") == ["val"]
    if kind == "webp":
        write(root / "test/images/1.webp", b"RIFF")
    else:
        (root / "test/images/1.png").symlink_to("nowhere")
    with pytest.raises(
        DataError, match=r"test: found no images that are read.*beside train/, val/.*images/1\."
    ):
        find_dataset("s", tmp_path)


def test_files_that_are_no_pictures_make_no_split_folder(tmp_path):
    root = tmp_path / "s"
    for part in ("train", "test"):
        image(root, f"{part}_images", part)
        mask(root, ".", part)
    write(root / "training/log.txt", "x")
    write(root / "val/Thumbs.db", "x")
    data = find_dataset("s", tmp_path, reading=Reading(mask_folder="."))
    assert names(data, "train") == ["train"] and names(data, "test") == ["test"]


def test_masks_beside_the_images_win_over_a_folder_of_other_pictures(tmp_path):
    root = tmp_path / "s"
    for part in ("train", "test"):
        image(root, part, part)
        mask(root, part, f"{part}_mask")
    image(root, "labels", "overview")
    data = find_dataset("s", tmp_path)
    assert data.lists["train"][0].mask == root / "train/train_mask.png"


def test_split_folders_of_several_forms(tmp_path):
    root = tmp_path / "s"
    image(root, "train", "1")
    mask(root, "train", "1_mask")
    image(root, "val_images", "2")
    mask(root, "val_masks", "2")
    image(root, "test", "3")
    mask(root, "test/masks", "3")
    for folder in ("hard_images", "more"):
        image(root, folder, "4")
    data = find_dataset("s", tmp_path)
    assert names(data, "train") == ["1"] and names(data, "test") == ["3"]
    assert any(note.startswith("note: hard_images/, more/ left out") for note in data.notes)


@pytest.mark.parametrize("form", ["folders", "lists"])
def test_train_is_taken_where_val_serves_as_the_test_list(tmp_path, form):
    root = tmp_path / "s"
    for name in "1234":
        for part in (("train" if name in "12" else "val"), "trainval"):
            place = f"{part}/" if form == "folders" else ""
            image(root, f"{place}images", name)
            mask(root, f"{place}masks", name)
            if form == "lists":
                file = root / f"ImageSets/Segmentation/{part}.txt"
                write(file, (file.read_text() if file.exists() else "") + f"{name}\n")
    data = find_dataset("s", tmp_path)
    found = [[name.split("/")[-1] for name in names(data, part)] for part in ("train", "test")]
    assert found == [["1", "2"], ["3", "4"]]


def test_a_mask_folder_of_another_name_for_split_folders(tmp_path):
    root = tmp_path / "s"
    for part, name in (("train", "1"), ("test", "2")):
        image(root, part, name)
        mask(root, f"annos/{part}", name)
    with pytest.raises(DataError, match=r"found no mask for any of its 2 images.*--mask-folder DIR"):
        find_dataset("s", tmp_path)
    data = find_dataset("s", tmp_path, reading=Reading(mask_folder="annos"))
    assert data.lists["test"][0].mask == root / "annos/test/2.png"
