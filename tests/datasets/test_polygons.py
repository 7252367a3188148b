"""Masks from COCO and labelme files: hand-worked pixels, and what is refused."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import fails, make_set, target_mask, write

from ismallnet.datasets.polygons import Picture, mask_of
from utils import main

SIZE = (40, 48)
TARGET = [12, 10, 16, 10, 16, 13, 12, 13]  # the outline of target_mask's 3x4 pixels at (10, 12)
RUNS = [12 * 40 + 10, 3, 37, 3, 37, 3, 37, 3, 40 * 48 - 15 * 40 - 13]  # the same, down the columns
COMPRESSED = "Z?3U100000fW1"  # the same as pycocotools writes it


@pytest.fixture
def unlabelled(tmp_path) -> Path:
    """data/tiny without masks."""
    root = make_set(tmp_path / "data" / "tiny")
    shutil.rmtree(root / "masks")
    return root


def coco(*annotations: dict, names="abcd", size=SIZE) -> dict:
    """A COCO file of pictures a.png, …, ids from 1."""
    images = [
        {"id": k, "file_name": f"{name}.png", "height": size[0], "width": size[1]}
        for k, name in enumerate(names, start=1)
    ]
    return {"images": images, "annotations": [{"image_id": 1, **entry} for entry in annotations]}


def labelme(name: str, *shapes: dict) -> dict:
    sizes = {"imageHeight": SIZE[0], "imageWidth": SIZE[1]}
    return {"shapes": [{"label": "x", **shape} for shape in shapes], "imagePath": name, **sizes}


def save(content, path="labels.json") -> str:
    write(Path(path), json.dumps(content))
    return path


def draw(path: str, *flags: str) -> None:
    main(["--dataset", "tiny", "--from-annotations", path, *flags])


def refused(path: str, capsys) -> str:
    """The message; no mask was written."""
    error = fails(main, "--dataset", "tiny", "--from-annotations", path, capsys=capsys)
    assert not Path("data/tiny/masks").exists()
    return error


def mask(name: str, folder="data/tiny/masks") -> np.ndarray:
    return cv2.imread(f"{folder}/{name}.png", cv2.IMREAD_UNCHANGED)


# --- pixels ----------------------------------------------------------------------------------------


def drawn(points, size=SIZE) -> np.ndarray:
    return mask_of(Picture("x", size, "x.json", [np.array(points, float)]), size) > 0


def block(rows: slice, columns: slice, size=SIZE) -> np.ndarray:
    pixels = np.zeros(size, bool)
    pixels[rows, columns] = True
    return pixels


@pytest.mark.parametrize(
    "corners, pixels",
    [
        ([[10, 20], [12, 20], [12, 22], [10, 22]], np.s_[20:22, 10:12]),
        ([[10, 22], [12, 22], [12, 20], [10, 20]], np.s_[20:22, 10:12]),  # the other way round
        ([[9.6, 19.6], [11.6, 19.6], [11.6, 21.6], [9.6, 21.6]], np.s_[20:22, 10:12]),
        ([[9.5, 19.5], [11.5, 19.5], [11.5, 21.5], [9.5, 21.5]], np.s_[19:21, 9:11]),  # on centres
        ([[-5, -5], [2, -5], [2, 3], [-5, 3]], np.s_[0:3, 0:2]),  # cut at the image's edge
        ([[20.6, 5.6], [20.9, 5.6], [20.9, 5.9]], np.s_[5:6, 20:21]),  # within a pixel
        ([[4, 3], [6, 3], [4, 5]], np.s_[3:4, 4:5]),  # a right edge through centres
    ],
)
def test_a_polygon_covers_the_pixels_whose_centres_are_in_it(corners, pixels):
    assert (drawn(corners) == block(*pixels)).all()


def test_two_polygons_side_by_side_share_no_pixel_and_leave_none():
    rng = np.random.default_rng(0)
    for _ in range(50):
        (x, y), (a, b) = rng.uniform(2, 18, 2), rng.uniform(2, 18, 2)
        left = [[0, 0], [x, 0], [a, b], [y, 20], [0, 20]]
        right = [[x, 0], [20, 0], [20, 20], [y, 20], [a, b]]
        both = drawn(left, (20, 20)).astype(int) + drawn(right, (20, 20))
        assert (both == 1).all()


# --- COCO and labelme ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "segmentation",
    [
        [TARGET],
        [[12, 10, 14, 10, 14, 13, 12, 13], [14, 10, 16, 10, 16, 13, 14, 13]],  # in two parts
        {"counts": RUNS, "size": [40, 48]},
        {"counts": COMPRESSED, "size": [40, 48]},
    ],
)
def test_coco_becomes_the_masks(unlabelled, segmentation, capsys):
    entries = [{"image_id": k, "segmentation": segmentation} for k in (1, 2, 3)]
    entries.append({"image_id": 3, "segmentation": [[30, 30, 31, 30, 31, 31, 30, 31]]})
    content = coco(*entries, names="abce")
    content["images"][0]["height"] = "40"  # as text
    draw(save(content))
    out = capsys.readouterr().out
    assert (mask("a") == target_mask()).all() and mask("a").dtype == np.uint8
    two = target_mask()
    two[30, 30] = 255
    assert (mask("c") == two).all() and not mask("d").any()
    assert "4 masks written" in out
    assert "note: 1 images have no annotation, so no target: d" in out
    assert "note: 1 annotated pictures are not in the data set: e.png" in out
    assert "mask values 0 and 255" in out and "maps of 4 masks made" in out  # and the label maps


def test_labelme_files(unlabelled):
    corners = np.reshape(TARGET, (-1, 2)).tolist()
    triangle = {"points": [[20, 20], [23, 20], [20, 23]]}
    save(labelme("a.png", {"points": corners, "shape_type": "polygon"}), "j/a.json")
    save(labelme("..\\images\\b.png", {"points": corners}), "j/b.json")
    save(labelme("c.png", triangle, {"points": corners}), "j/deeper/x.json")
    draw("j")
    union = target_mask()
    union[20, 20] = union[20, 21] = union[21, 20] = 255
    for name, expected in (("a", target_mask()), ("b", target_mask()), ("c", union)):
        assert (mask(name) == expected).all()
    assert not mask("d").any()


def test_masks_that_are_there_are_kept_unless_told(unlabelled, capsys):
    draw(save(coco({"segmentation": [[12, 10, 15, 10, 15, 12, 12, 12]]})))
    again = ["--dataset", "tiny", "--from-annotations", save(coco({"segmentation": [TARGET]}))]
    error = fails(main, *again, capsys=capsys)
    assert "4 masks are there: a.png, b.png" in error and "--overwrite" in error
    assert (mask("a") > 0).sum() == 2 * 3
    main([*again, "--overwrite"])
    assert (mask("a") == target_mask()).all()


def test_split_folders_get_masks_of_their_own(tmp_path, capsys):
    root = tmp_path / "data/tiny"
    for part in ("train", "valid"):
        write(root / part / "0.png", target_mask())
    save(coco({"segmentation": [TARGET]}, names=["0"]), "data/tiny/train/x.json")
    assert "could be" in refused("data/tiny", capsys)
    save(coco({"segmentation": [TARGET]}, names=["train/0"]), "data/tiny/train/x.json")
    draw("data/tiny")
    assert (mask("0", "data/tiny/masks/train") == target_mask()).all()
    assert not mask("0", "data/tiny/masks/valid").any()
    (root / "masks/train/0.png").rename(root / "masks/1.png")
    (root / "masks/valid/0.png").unlink()  # masks/0.png would be of both
    error = fails(main, "--dataset", "tiny", "--from-annotations", "data/tiny", capsys=capsys)
    assert "masks/0.png" in error and not (root / "masks/0.png").exists()


# --- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "entry, expected",
    [
        ({"segmentation": [], "bbox": [1, 2, 3, 4]}, "a box, without an outline"),
        ({"bbox": [1, 2, 3, 4]}, "a box does not say which of its pixels are target"),
        ({"image_id": 9, "segmentation": [TARGET]}, "annotations[0]: found no 9"),
        ({"segmentation": [[1, 2, 3]]}, "annotations[0]"),
        ({"segmentation": [[1, 2, 3, 4]]}, "expected x, y of 3 or more"),
        ({"segmentation": [[1, 2, 3, float("nan"), 5, 6]]}, "annotations[0]"),
        ({"segmentation": [[100, 100, 109, 100, 109, 109]]}, "is not in the image"),
        ({"segmentation": [[0.1, 0.1, 0.9, 0.1, 0.9, 0.9]]}, "expected pixels"),
        ({"segmentation": [1, 2, 3, 4]}, "annotations[0]"),
        ({"segmentation": {"counts": [3], "size": [40, 48]}}, "run lengths of 3 pixels"),
        ({"segmentation": {"counts": [1920], "size": [48, 40]}}, "expected [40, 48]"),
        ({"segmentation": {"counts": "Z", "size": [40, 48]}}, "outline 0"),
        ({"segmentation": {"size": [40, 48]}}, "outline 0"),
        ({"segmentation": {"counts": [-1, 1921], "size": [40, 48]}}, "outline 0"),
    ],
)
def test_bad_annotations_are_named(unlabelled, entry, expected, capsys):
    assert expected in refused(save(coco(entry)), capsys)


@pytest.mark.parametrize("size", [(48, 40), (80, 96), (100_000, 100_000)])
def test_sizes_must_be_the_images_before_anything_is_made(unlabelled, size, capsys):
    """195 bytes of a file asked for 9.3 GiB."""
    runs = {"segmentation": {"counts": [size[0] * size[1]], "size": list(size)}}
    error = refused(save(coco(runs, size=size)), capsys)
    assert f"annotated at {size[1]}x{size[0]}" in error and "48x40" in error


def test_pictures_of_another_set_and_a_second_one_of_an_image(unlabelled, capsys):
    shape = {"points": [[1, 1], [9, 1], [9, 9]]}
    assert "none of the 1 annotated" in refused(save(labelme("x.png", shape), "j/y.json"), capsys)
    save(labelme("a.png", shape), "j/b.json")
    error = refused(str(Path(save(labelme("a.png", shape), "j/c.json")).parent), capsys)
    assert "j/c.json: 'a.png' could be data/tiny/images/a.png, j/b.json" in error


@pytest.mark.parametrize(
    "name, text, expected",
    [
        ("x.txt", "0 0.5 0.5 0.1 0.1\n", "Boxes do not"),
        ("x.xml", "<annotation><object/></annotation>", "Boxes do not"),
        ("x.json", "[1, 2]", "COCO"),
        ("x.json", '{"images": []', "no JSON of COCO"),
        ("x.json", "version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        ("x.json", '{"images": [], "annotations": []}', "found no annotation in it"),
        ("x.csv", "a,b", "name one file"),
    ],
)
def test_other_files_are_refused(unlabelled, name, text, expected, capsys):
    write(Path("labels") / name, text)
    assert expected in refused(f"labels/{name}", capsys)
    assert "not there" in refused("no", capsys)


def test_flags_without_annotations(data, capsys):
    error = fails(main, "--dataset", "tiny", "--overwrite", capsys=capsys)
    assert "--overwrite" in error and "--from-annotations" in error
    assert "cv2.fillPoly" in fails(main, "--dataset", "tiny", "--outline-pixels", capsys=capsys)


def test_a_set_with_polygons_alone_says_what_to_type(unlabelled, capsys):
    save(coco({"segmentation": [TARGET]}), "data/tiny/annotations/instances.json")
    error = fails(main, "--dataset", "tiny", capsys=capsys)
    assert "python utils.py --dataset tiny --from-annotations data/tiny." in error
    draw("annotations/instances.json")  # in the data set
    assert (mask("a") == target_mask()).all()
