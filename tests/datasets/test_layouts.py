import shlex

import numpy as np
import pytest
from conftest import make_set, picture, write
from sets import image, mask, names

from ismallnet.cli import DataError
from ismallnet.datasets.find import find_dataset
from ismallnet.datasets.sample import Reading
from ismallnet.labels import decouple_dataset

# who: (image folder, mask folder, mask ending, training list, test list)
LAYOUTS = {
    "sirst as released": ("images", "masks", "_pixels0", "idx_427/trainval.txt", "idx_427/test.txt"),
    "sirst, older split": ("images", "masks", "_pixels0", "idx_320/train.txt", "idx_320/test.txt"),
    "dnanet": ("images", "masks", "", "50_50/train.txt", "50_50/test.txt"),
    "ismallnet": ("image", "mask", "_pixels0", "train.txt", "test.txt"),
    "irstd-1k as released": ("IRSTD1k_Img", "IRSTD1k_Label", "", "trainval.txt", "test.txt"),
    "irstd-1k 80_20": ("IRSTD1k_Img", "IRSTD1k_Label", "", "80_20/trainval.txt", "80_20/test.txt"),
    "basicirstd": ("images", "masks", "", "img_idx/train_Set.txt", "img_idx/test_Set.txt"),
    "basicirstd, renamed": ("images", "masks", "", "img_idx/train_X-1.txt", "img_idx/test_X-1.txt"),
    "mshnet": ("imges", "masks", "", "trainval.txt", "test.txt"),
    "open-sirst-v2, mixed": (
        "mixed",
        "annotations/masks",
        "_pixels0",
        "splits/trainval_full.txt",
        "splits/test_full.txt",
    ),
    "open-sirst-v2, v1": (
        "images/targets",
        "annotations/masks",
        "_pixels0",
        "splits/trainval_v1.txt",
        "splits/test_v1.txt",
    ),
}


@pytest.mark.parametrize("who", LAYOUTS)
def test_layout_is_found(tmp_path, who):
    images, masks, ending, train, test = LAYOUTS[who]
    root = tmp_path / "Set"
    for name in ("x1", "x2", "x3"):
        image(root, images, name)
        mask(root, masks, f"{name}{ending}")
    write(root / masks / "x1.xml", "<boxes/>")
    write(root / train, "x1\nx2\n")
    write(root / test, "x3\n")
    data = find_dataset("Set", tmp_path)
    assert names(data, "train") == ["x1", "x2"] and names(data, "test") == ["x3"]
    assert data.lists["test"][0].mask.name == f"x3{ending}.png"
    assert not any(data.problems.values())


PRIORITY = [
    ("train.txt", "test.txt"),
    ("50_50/train.txt", "50_50/test.txt"),
    ("img_idx/train_s.txt", "img_idx/test_s.txt"),
    ("trainval.txt", "test.txt"),
    ("80_20/trainval.txt", "80_20/test.txt"),
    ("idx_427/trainval.txt", "idx_427/test.txt"),
    ("idx_320/trainval.txt", "idx_320/test.txt"),
    ("splits/trainval_full.txt", "splits/test_full.txt"),
]


@pytest.mark.parametrize("winner", range(len(PRIORITY)))
def test_the_paper_s_lists_win(tmp_path, winner):
    root = tmp_path / "s"
    for name in ("win", "lose", "t"):
        image(root, "images", name)
        mask(root, "masks", name)
    for i, (train, test) in enumerate(PRIORITY[winner:]):
        if train == "trainval.txt" and winner == 0:
            continue  # beside train.txt it is taken, see the next test
        write(root / train, "lose\n" if i else "win\n")
        write(root / test, "t\n")
    assert names(find_dataset("s", tmp_path), "train") == ["win"]


def test_trainval_is_taken_before_train_in_the_chosen_folder(tmp_path):
    root = make_set(tmp_path / "s")
    for folder in (".", "idx_427"):
        write(root / folder / "train.txt", "a\n")
        write(root / folder / "trainval.txt", "a\nb\n")
        write(root / folder / "test.txt", "c\n")
    assert names(find_dataset("s", tmp_path), "train") == ["a", "b"]
    assert names(find_dataset("s", tmp_path, ["idx_427"]), "train") == ["a", "b"]


def test_split_names_a_folder_or_two_files(tmp_path):
    root = make_set(tmp_path / "s")
    write(root / "splits/trainval_full.txt", "d\n")
    write(root / "splits/test_full.txt", "a\n")
    write(tmp_path / "mine.txt", "b\n")
    pair = ["splits/trainval_full.txt", "splits/test_full.txt"]
    assert names(find_dataset("s", tmp_path, pair), "train") == ["d"]
    assert names(find_dataset("s", tmp_path, ["splits"]), "test") == ["a"]
    outside = find_dataset("s", tmp_path, [str(tmp_path / "mine.txt"), "splits/test_full.txt"])
    assert names(outside, "train") == ["b"]
    with pytest.raises(DataError, match=r"idx_9.*50_50"):
        find_dataset("s", tmp_path, ["idx_9"])
    with pytest.raises(DataError, match="one list, expected"):
        find_dataset("s", tmp_path, ["splits/test_full.txt"])
    with pytest.raises(DataError, match=r"nothere\.txt"):
        find_dataset("s", tmp_path, ["nothere.txt", "splits/test_full.txt"])


@pytest.mark.parametrize(
    "text",
    [
        b"a\r\nb\r\n",
        b"\xef\xbb\xbfa\nb",
        b"\n\n a \n\nb\n\n",
        b"a.png\nb.PNG\n",
        b"images/a.png\n./images/b\n",
        b"images\\a.png\r\nb\r\n",
        "a\nb\n".encode("utf-16"),
        b"a\nb\na\n",
    ],
)
def test_forms_of_list_entries(tmp_path, text):
    root = make_set(tmp_path / "s")
    (root / "images/b.png").rename(root / "images/b.PNG")
    write(root / "50_50/train.txt", text)
    data = find_dataset("s", tmp_path)
    assert names(data, "train") == ["a", "b"] and not data.problems["train"]


def test_name_with_dots_and_spaces(tmp_path):
    make_set(tmp_path / "s", names=("frame 1.5", "ü", "-x", "it's"))
    data = find_dataset("s", tmp_path)
    assert names(data, "train") == ["frame 1.5", "ü"] and names(data, "test") == ["-x", "it's"]


@pytest.mark.parametrize("entry", ["../s/images/a", "/etc/passwd", "C:\\x\\a.png", "images/../../a"])
def test_entry_that_leaves_the_data_set_is_refused(tmp_path, entry):
    root = make_set(tmp_path / "s")
    write(root / "50_50/test.txt", f"{entry}\nc\n")
    data = find_dataset("s", tmp_path)
    assert names(data, "test") == ["c"]
    assert "outside" in data.problems["test"][0] and len(data.problems["test"]) == 1


def test_links_may_not_lead_out_but_the_folder_itself_may_be_one(tmp_path):
    root = make_set(tmp_path / "disk" / "s")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "s").symlink_to(root, target_is_directory=True)
    assert not any(find_dataset("s", tmp_path / "data").problems.values())
    secret = write(tmp_path / "secret.png", picture())
    (root / "images/c.png").unlink()
    (root / "images/c.png").symlink_to(secret)
    data = find_dataset("s", tmp_path / "data")
    assert "leads out" in data.problems["test"][0] and names(data, "test") == ["d"]


def test_missing_images_and_masks_are_problems_of_their_list(tmp_path):
    root = make_set(tmp_path / "s")
    write(root / "50_50/train.txt", "a\nb\nghost\n")
    (root / "masks/b.png").unlink()
    data = find_dataset("s", tmp_path)
    assert names(data, "train") == ["a"] and not data.problems["test"]
    assert len(data.problems["train"]) == 2
    assert "ghost" in data.problems["train"][0] and "b.png" in data.problems["train"][1]


def test_no_list_makes_a_seeded_split_once(tmp_path):
    root = make_set(tmp_path / "s", names=[f"{i}" for i in range(9)])
    for file in (root / "50_50").iterdir():
        file.unlink()
    data = find_dataset("s", tmp_path)
    assert len(data.lists["train"]) == 4 and len(data.lists["test"]) == 5
    assert "made a 50:50 split" in data.notes[0]
    again = find_dataset("s", tmp_path)
    assert again.lists == data.lists and not any("split" in note for note in again.notes)


def test_test_list_alone_serves_testing(tmp_path):
    root = make_set(tmp_path / "s")
    (root / "50_50/train.txt").unlink()
    data = find_dataset("s", tmp_path)
    assert names(data, "test") == ["c", "d"]
    with pytest.raises(DataError, match="no train list"):
        data.samples("train")
    root = make_set(tmp_path / "valleys")
    (root / "50_50/test.txt").unlink()
    with pytest.raises(DataError, match="no test list"):
        find_dataset("valleys", tmp_path).samples("test")


def test_images_in_both_lists_are_announced(tmp_path):
    root = make_set(tmp_path / "s")
    write(root / "50_50/test.txt", "a\nd\n")
    assert "1 images are in the training and the test list: a" in find_dataset("s", tmp_path).notes[0]


def test_no_such_data_set_lists_those_that_exist(tmp_path):
    make_set(tmp_path / "one")
    make_set(tmp_path / "two")
    for name in ("three", "../one", "", "."):
        with pytest.raises(DataError, match="one, two"):
            find_dataset(name, tmp_path)
    with pytest.raises(DataError, match="Did you mean --dataset one"):
        find_dataset("data/one", tmp_path)


def test_no_images_names_the_folders_expected(tmp_path):
    write(tmp_path / "s" / "photos" / "a.png", np.zeros((4, 4), np.uint8))
    with pytest.raises(DataError, match="images/, image/, imges/"):
        find_dataset("s", tmp_path)


def test_empty_list_and_binary_list(tmp_path):
    root = make_set(tmp_path / "s")
    write(root / "50_50/train.txt", "\n\n")
    with pytest.raises(DataError, match="empty"):
        find_dataset("s", tmp_path).samples("train")
    write(root / "50_50/train.txt", b"\x89PNG\xff\x00")
    with pytest.raises(DataError, match="not a text file"):
        find_dataset("s", tmp_path)


def test_the_extension_in_a_list_need_not_be_the_file_s(tmp_path):
    root = make_set(tmp_path / "s")
    write(root / "50_50/train.txt", "a.bmp\nb.PNG\n")
    assert names(find_dataset("s", tmp_path), "train") == ["a", "b"]


def test_lists_that_cannot_be_told_apart_are_not_replaced_by_a_new_split(tmp_path):
    root = make_set(tmp_path / "s")
    for file in (root / "50_50").iterdir():
        file.unlink()
    for name in ("x", "y"):
        write(root / f"img_idx/train_{name}.txt", "a\n")
        write(root / f"img_idx/test_{name}.txt", "b\n")
    with pytest.raises(DataError, match="--split"):
        find_dataset("s", tmp_path)
    assert not list((root / "50_50").iterdir())
    assert names(find_dataset("s/", tmp_path, ["img_idx/train_y.txt", "img_idx/test_y.txt"]), "test")


def test_nothing_is_written_through_a_link_that_leads_out(tmp_path):
    root = make_set(tmp_path / "data" / "s")
    outside = tmp_path / "outside"
    outside.mkdir()
    (root / "interior").symlink_to(outside, target_is_directory=True)
    with pytest.raises(DataError, match="--maps-root"):
        decouple_dataset(find_dataset("s", tmp_path / "data"))
    for file in (root / "50_50").iterdir():
        file.unlink()
    (root / "50_50").rmdir()
    (root / "50_50").symlink_to(outside, target_is_directory=True)
    with pytest.raises(DataError, match="leads out"):
        find_dataset("s", tmp_path / "data")
    assert not list(outside.iterdir())


def test_loops_folders_and_twins_among_the_images(tmp_path):
    root = make_set(tmp_path / "s")
    (root / "images/c.png").unlink()
    (root / "images/c.png").symlink_to(root / "images/c.png")  # a loop
    (root / "images/folder.png").mkdir()
    write(root / "images/a.jpg", picture())
    data = find_dataset("s", tmp_path)
    assert "'c'" in data.problems["test"][0] and names(data, "train") == ["a", "b"]
    for file in (root / "50_50").iterdir():
        file.unlink()
    made = find_dataset("s", tmp_path)
    assert sorted(names(made, "train") + names(made, "test")) == ["a", "b", "d"]


def test_an_empty_mask_folder_does_not_hide_the_filled_one(tmp_path):
    root = make_set(tmp_path / "s")
    (root / "masks").rename(root / "mask")
    (root / "masks").mkdir()
    assert not find_dataset("s", tmp_path).problems["train"]


@pytest.mark.parametrize(
    "images, masks",
    [
        *[
            ("images", m)
            for m in ("Masks", "labels", "label", "annotations", "gt", "GT", "ground_truth")
        ],
        *[("IMG", "MASK"), ("imgs", "labels"), ("JPEGImages", "SegmentationClass"), ("Images", "Mask")],
    ],
)
def test_names_of_folders(tmp_path, images, masks):
    root = make_set(tmp_path / "s")
    (root / "masks").rename(root / masks)
    (root / "images").rename(root / images)
    data = find_dataset("s", tmp_path)
    assert data.lists["test"][0].mask == root / masks / "c.png" and not any(data.problems.values())
    assert f"images in {images}/, masks in {masks}/" in data.layout


def test_one_folder_too_deep(tmp_path):
    for inner in ("s", "sirst-master"):
        (tmp_path / inner).mkdir()
        root = make_set(tmp_path / inner / inner)
        data = find_dataset(inner, tmp_path)
        assert data.root == root and names(data, "train") == ["a", "b"]
        assert "one folder deeper" in data.notes[0]


def test_a_second_mask_folder_is_told(tmp_path):
    root = make_set(tmp_path / "s")
    mask(root, "labels", "a")
    data = find_dataset("s", tmp_path)
    assert data.lists["train"][0].mask == root / "masks/a.png"
    assert "labels/ left out; images/ and masks/ used" in data.notes[0]


def test_sequences_in_subfolders(tmp_path):
    root = tmp_path / "s"
    for k, name in enumerate(("Sequence1/00000", "Sequence1/00001", "Sequence2/deep/00000", "00000")):
        write(root / f"images/{name}.png", picture(k))
        mask(root, "masks", name)
    write(root / "train.txt", "Sequence1/00000\nSequence1/00001.png\n")
    write(root / "test.txt", "images/Sequence2/deep/00000.png\n00001\n")
    data = find_dataset("s", tmp_path)
    assert names(data, "train") == ["Sequence1/00000", "Sequence1/00001"]
    assert names(data, "test") == ["Sequence2/deep/00000", "Sequence1/00001"]
    assert data.lists["test"][0].mask == root / "masks/Sequence2/deep/00000.png"
    (root / "masks/Sequence1/00000.png").unlink()  # masks/00000.png is another image's
    assert "masks/00000.png" in find_dataset("s", tmp_path).problems["train"][0]


def test_subfolders_without_lists_are_all_used(tmp_path):
    root = tmp_path / "s"
    for name in ("A/1", "B/2", "3"):
        image(root, "images", name)
        mask(root, "masks", name)
    data = find_dataset("s", tmp_path)
    assert sorted(names(data, "train") + names(data, "test")) == ["3", "A/1", "B/2"]


def test_links_that_lead_out_are_followed_when_asked(tmp_path):
    root = make_set(tmp_path / "data" / "s")
    (root / "images").rename(tmp_path / "disk")
    (root / "images").symlink_to(tmp_path / "disk", target_is_directory=True)
    assert "--follow-links" in find_dataset("s", tmp_path / "data").problems["train"][0]
    data = find_dataset("s", tmp_path / "data", reading=Reading(follow_links=True))
    assert names(data, "train") == ["a", "b"] and not any(data.problems.values())


LABELS = {
    "COCO": ("annotations/x.json", '{"images": [], "annotations": [], "categories": []}'),
    "labelme": ("labels/a.json", '{"shapes": [{"points": [[1, 2]]}]}'),
    "YOLO": ("labels/a.txt", "0 0.5 0.5 0.01 0.02\n"),
    "VOC": ("labels/a.xml", "<annotation><object/></annotation>"),
}


@pytest.mark.parametrize("kind", LABELS)
def test_boxes_and_polygons_are_named_as_what_they_are(tmp_path, kind):
    root = make_set(tmp_path / "s")
    (root / "masks").rename(tmp_path / "elsewhere")
    file, text = LABELS[kind]
    write(root / file, text)
    with pytest.raises(DataError, match=rf"masks, but 1 file of .*{kind}.*Masks are needed"):
        find_dataset("s", tmp_path)


@pytest.mark.parametrize("folder", ["ImageSets/Segmentation", "lists", "ImageSets/Main"])
def test_lists_of_voc_and_in_lists(tmp_path, folder):
    root = tmp_path / "s"
    for name in ("1", "2", "3"):
        image(root, "JPEGImages", name)
        mask(root, "SegmentationClass", name)
    write(root / folder / "train.txt", "1\n2\n")
    write(root / folder / "val.txt", "3\n")
    data = find_dataset("s", tmp_path)
    assert names(data, "train") == ["1", "2"] and names(data, "test") == ["3"]


def test_lists_elsewhere_stop_the_50_50_split(tmp_path):
    root = tmp_path / "s"
    for name in ("1", "2", "3"):
        image(root, "images", name)
        mask(root, "masks", name)
    write(root / "my" / "own" / "train_ids.txt", "1\n2\n")
    with pytest.raises(DataError, match=r"cannot tell which of my/own/train_ids\.txt are its lists"):
        find_dataset("s", tmp_path)
    assert not (root / "50_50").exists()


def test_commands_that_are_printed_can_be_typed(tmp_path):
    make_set(tmp_path / "data" / "my set é")
    words = shlex.split(find_dataset("my set é").command("test"))
    assert words == ["python", "test.py", "--dataset", "my set é"]
    with pytest.raises(DataError, match=r"Did you mean --dataset my set é\?"):
        find_dataset("./my set é")
