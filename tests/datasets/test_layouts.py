"""The layouts of docs/DATASETS.md, and which lists win."""

import shlex
from pathlib import Path

import pytest
from conftest import make_set, picture, write
from sets import image, mask, names, pairs

from ismallnet.cli import DataError
from ismallnet.datasets.find import find_dataset
from ismallnet.datasets.sample import Reading
from ismallnet.labels import decouple_dataset

# who: image folder, mask folder/mask ending, training list, test list
LAYOUTS = {
    "sirst as released": "images masks/_pixels0 idx_427/trainval.txt idx_427/test.txt",
    "sirst, older split": "images masks/_pixels0 idx_320/train.txt idx_320/test.txt",
    "dnanet": "images masks/ 50_50/train.txt 50_50/test.txt",
    "ismallnet": "image mask/_pixels0 train.txt test.txt",
    "irstd-1k as released": "IRSTD1k_Img IRSTD1k_Label/ trainval.txt test.txt",
    "irstd-1k 80_20": "IRSTD1k_Img IRSTD1k_Label/ 80_20/trainval.txt 80_20/test.txt",
    "basicirstd": "images masks/ img_idx/train_Set.txt img_idx/test_Set.txt",
    "basicirstd, renamed": "images masks/ img_idx/train_X-1.txt img_idx/test_X-1.txt",
    "mshnet": "imges masks/ trainval.txt test.txt",
    "sirst-v2 mixed": "mixed annotations/masks/_pixels0 splits/trainval_full.txt splits/test_full.txt",
    "sirst-v2": "images/targets annotations/masks/_pixels0 splits/trainval_v1.txt splits/test_v1.txt",
    "voc": "JPEGImages SegmentationClass/ "
    "ImageSets/Segmentation/train.txt ImageSets/Segmentation/val.txt",
    "lists": "images masks/ lists/train.txt lists/test.txt",
}


@pytest.mark.parametrize("who", LAYOUTS)
def test_layout_is_found(tmp_path, who):
    images, masks, train, test = LAYOUTS[who].split()
    masks, _, ending = masks.rpartition("/")
    root = tmp_path / "Set"
    image(root, images, "x1", "x2", "x3")
    mask(root, masks, *(f"{name}{ending}" for name in ("x1", "x2", "x3")))
    write(root / masks / "x1.xml", "<boxes/>")
    write(root / train, "x1\nx2\n")
    write(root / test, "x3\n")
    data = find_dataset("Set", tmp_path)
    assert names(data, "train") == ["x1", "x2"] and names(data, "test") == ["x3"]
    assert data.lists["test"][0].mask.name == f"x3{ending}.png"
    assert not any(data.problems.values())


IMAGES = ("Images", "image", "IMG", "imgs", "JPEGImages", "img_dir")
MASKS = ("Masks", "mask", "labels", "label", "annotations", "gt", "GT", "ground_truth", "ann_dir")


@pytest.mark.parametrize(
    ("images", "masks"), [*(("images", m) for m in MASKS), *((i, "masks") for i in IMAGES)]
)
def test_names_of_folders(tmp_path, images, masks):
    root = make_set(tmp_path / "s")
    (root / "masks").rename(root / masks)
    (root / "images").rename(root / images)
    data = find_dataset("s", tmp_path)
    assert data.lists["test"][0].mask == root / masks / "c.png" and not any(data.problems.values())
    assert f"images in {images}/, masks in {masks}/" in data.layout


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
    pairs(root, "images", "masks", "win", "lose", "t")
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
    outside = find_dataset("s/", tmp_path, [str(tmp_path / "mine.txt"), "splits/test_full.txt"])
    assert names(outside, "train") == ["b"]
    for split, told in (
        (["idx_9"], "idx_9.*50_50"),
        (["splits/test_full.txt"], r"--split TRAIN\.txt TEST\.txt"),
        (["nothere.txt", "splits/test_full.txt"], r"nothere\.txt"),
    ):
        with pytest.raises(DataError, match=told):
            find_dataset("s", tmp_path, split)


def test_val_serves_where_a_folder_has_no_test_list(tmp_path):
    root = make_set(tmp_path / "s")
    (root / "50_50/test.txt").rename(root / "50_50/val.txt")
    data = find_dataset("s", tmp_path)
    assert names(data, "test") == ["c", "d"]
    assert any("50_50/val.txt serves as the test list" in note for note in data.notes)
    pair = ["50_50/train.txt", "50_50/val.txt"]  # typed as the test list
    assert not any("serves" in note for note in find_dataset("s", tmp_path, pair).notes)
    write(root / "80_20/trainval.txt", "b\n")
    write(root / "80_20/test.txt", "d\n")
    assert names(find_dataset("s", tmp_path), "test") == ["d"]


@pytest.mark.parametrize(("gone", "left"), [("train", "test"), ("test", "train")])
def test_one_list_alone(tmp_path, gone, left):
    root = make_set(tmp_path / "valleys")
    (root / f"50_50/{gone}.txt").unlink()
    data = find_dataset("valleys", tmp_path)
    assert len(names(data, left)) == 2
    with pytest.raises(DataError, match=f"no {gone} list"):
        data.samples(gone)


# --- folders ---------------------------------------------------------------------------------------


def test_one_folder_too_deep(tmp_path):
    for inner in ("s", "sirst-master"):
        (tmp_path / inner).mkdir()
        root = make_set(tmp_path / inner / inner)
        data = find_dataset(inner, tmp_path)
        assert data.root == root and names(data, "train") == ["a", "b"]


def test_the_mask_folder_with_a_mask_for_every_image_is_used(tmp_path):
    root = make_set(tmp_path / "s")
    (root / "masks").rename(root / "labels")
    mask(root, "masks", "a")
    data = find_dataset("s", tmp_path)
    assert data.lists["train"][0].mask == root / "labels/a.png" and "masks in labels/" in data.layout


def test_sequences_in_subfolders(tmp_path):
    root = tmp_path / "s"
    stems = ("Sequence1/00000", "Sequence1/00001", "Sequence2/deep/00000", "00000")
    pairs(root, "images", "masks", *stems)
    write(root / "train.txt", "Sequence1/00000\nSequence1/00001.png\n")
    write(root / "test.txt", "images/Sequence2/deep/00000.png\n00001\n")
    data = find_dataset("s", tmp_path)
    assert names(data, "train") == ["Sequence1/00000", "Sequence1/00001"]
    assert names(data, "test") == ["Sequence2/deep/00000", "Sequence1/00001"]
    assert data.lists["test"][0].mask == root / "masks/Sequence2/deep/00000.png"
    (root / "masks/Sequence1/00000.png").unlink()  # masks/00000.png is another image's
    (problem,) = find_dataset("s", tmp_path).problems["train"]
    assert "Sequence1/00000.png" in problem and "no mask" in problem


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


def test_links_lead_out_only_when_asked_but_the_folder_itself_may_be_one(tmp_path):
    root = make_set(tmp_path / "disk" / "s")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "s").symlink_to(root, target_is_directory=True)
    assert not any(find_dataset("s", tmp_path / "data").problems.values())
    secret = write(tmp_path / "secret.png", picture())
    (root / "images/c.png").unlink()
    (root / "images/c.png").symlink_to(secret)
    data = find_dataset("s", tmp_path / "data")
    assert "--follow-links" in data.problems["test"][0] and names(data, "test") == ["d"]
    data = find_dataset("s", tmp_path / "data", reading=Reading(follow_links=True))
    assert names(data, "test") == ["c", "d"] and not any(data.problems.values())


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


# --- what is not there -----------------------------------------------------------------------------


def test_no_such_data_set_lists_those_that_exist(tmp_path):
    for name in ("one", "my set é"):
        make_set(tmp_path / name)
    write(tmp_path / "other.zip", b"x")
    for name in ("three", "../one", "", "."):
        with pytest.raises(DataError, match=r"my set é, one, other\.zip"):
            find_dataset(name, tmp_path)
    with pytest.raises(DataError, match="Did you mean --dataset my set é"):
        find_dataset("data/my set é", tmp_path)
    words = shlex.split(find_dataset("my set é", tmp_path).command("test"))
    assert words == ["python", "test.py", "--dataset", "my set é"]


@pytest.mark.parametrize("file", ["x.json", "x.xml", "x.npy", "masks.tar.gz"])
def test_without_masks_the_error_says_what_is_there_and_what_to_type(tmp_path, file):
    root = make_set(tmp_path / "s")
    (root / "masks").rename(tmp_path / "elsewhere")
    write(root / "labels" / file, b"x")
    ending = Path(file).suffix
    with pytest.raises(DataError, match=rf"1 {ending}.*--mask-folder.*--from-annotations.*Boxes"):
        find_dataset("s", tmp_path)
