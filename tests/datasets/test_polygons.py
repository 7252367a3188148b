"""Masks from COCO and labelme files: hand-worked pixels, and what is refused."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import fails, make_set, picture, target_mask, write
from outlines import TARGET, coco, draw, labelme, mask, polygon_of, save

from ismallnet.datasets.polygons import Drawing, Picture, Shape
from utils import main

RUNS = [12 * 40 + 10, 3, 37, 3, 37, 3, 37, 3, 40 * 48 - 15 * 40 - 13]  # the same, down the columns
# The same as pycocotools writes it.
COMPRESSED = "Z?3U100000fW1"


@pytest.fixture
def unlabelled(tmp_path) -> Path:
    """data/tiny without masks."""
    root = make_set(tmp_path / "data" / "tiny")
    for path in (root / "masks").iterdir():
        path.unlink()
    (root / "masks").rmdir()
    return root


# --- pixels ----------------------------------------------------------------------------------------


def drawn(*shapes: Shape, size=(40, 48), outline_pixels=False) -> np.ndarray:
    picture = Picture(("x",), size, "x.json", Path(), list(shapes))
    return Drawing(outline_pixels).mask(picture, size) > 0


def polygon(corners, size=(40, 48), **flags) -> np.ndarray:
    return drawn(Shape("polygon", np.array(corners, float)), size=size, **flags)


def block(rows: slice, columns: slice, size=(40, 48)) -> np.ndarray:
    pixels = np.zeros(size, bool)
    pixels[rows, columns] = True
    return pixels


@pytest.mark.parametrize(
    "corners, pixels",
    [
        ([[10, 20], [12, 20], [12, 22], [10, 22]], np.s_[20:22, 10:12]),
        ([[10, 22], [12, 22], [12, 20], [10, 20]], np.s_[20:22, 10:12]),  # the other way round
        ([[10, 20], [11, 20], [11, 21], [10, 21]], np.s_[20:21, 10:11]),
        ([[9.6, 19.6], [11.6, 19.6], [11.6, 21.6], [9.6, 21.6]], np.s_[20:22, 10:12]),
        ([[9.5, 19.5], [11.5, 19.5], [11.5, 21.5], [9.5, 21.5]], np.s_[19:21, 9:11]),  # on centres
        ([[-5, -5], [2, -5], [2, 3], [-5, 3]], np.s_[0:3, 0:2]),  # cut at the image's edge
        ([[45, 38], [99, 38], [99, 99], [45, 99]], np.s_[38:40, 45:48]),
    ],
)
def test_a_polygon_covers_the_pixels_whose_centres_are_in_it(corners, pixels):
    assert (polygon(np.array(corners, float), (40, 48)) == block(*pixels)).all()


def test_a_triangle_and_a_polygon_that_crosses_itself():
    triangle = polygon(np.array([[0, 0], [3, 0], [0, 3.0]]), (4, 4))
    assert triangle.astype(int).tolist() == [[1, 1, 0, 0], [1, 0, 0, 0], [0] * 4, [0] * 4]
    bow = polygon(np.array([[0, 0], [4, 4], [4, 0], [0, 4.0]]), (4, 4))  # open at top and bottom
    assert not bow[0, 1:3].any() and bow[1:3, 3].all() and bow[1:3, 0].all()


def test_two_polygons_side_by_side_share_no_pixel_and_leave_none():
    rng = np.random.default_rng(0)
    for _ in range(50):
        (x, y), (a, b) = rng.uniform(2, 18, 2), rng.uniform(2, 18, 2)
        frame = np.array([[0, 0], [20, 0], [20, 20], [0, 20.0]])
        left = np.array([[0, 0], [x, 0], [a, b], [y, 20], [0, 20.0]])
        right = np.array([[x, 0], [20, 0], [20, 20], [y, 20], [a, b]])
        both = polygon(left, (20, 20)).astype(int) + polygon(right, (20, 20))
        assert (both == polygon(frame, (20, 20))).all()


def test_rectangles_and_circles():
    size = (6, 7)
    rectangle = drawn(Shape("rectangle", np.array([[4.0, 5], [2, 3]])), size=size)  # any two corners
    assert (rectangle == block(np.s_[3:5], np.s_[2:4], size)).all()
    circle = drawn(Shape("circle", np.array([[3.5, 2.5], [4.6, 2.5]])), size=size)  # a cross of 5
    assert circle.sum() == 5 and circle[2, 2:5].all() and circle[1:4, 3].all()


def test_points_that_are_pixels_numbers():
    for rows, columns in ((2, 2), (1, 1), (1, 5), (3, 4)):
        there = block(np.s_[5 : 5 + rows], np.s_[7 : 7 + columns]).astype(np.uint8)
        (contour,), _ = cv2.findContours(there, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        assert (polygon(contour[:, 0], outline_pixels=True) == there).all()
    rng = np.random.default_rng(1)
    blob = cv2.blur(rng.random((40, 48)), (7, 7)) > 0.55
    blob = cv2.morphologyEx(blob.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((5, 5)))
    for contour in cv2.findContours(blob, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]:
        filled = cv2.drawContours(np.zeros_like(blob), [contour], 0, 1, cv2.FILLED)
        assert (polygon(contour[:, 0], outline_pixels=True) == filled).all()


def test_beside_pycocotools_polygons():
    """Equal, but for pixels whose centre is less than 0.2 px from the outline."""
    coco_mask = pytest.importorskip("pycocotools.mask")

    def theirs(corners: np.ndarray) -> np.ndarray:
        runs = coco_mask.frPyObjects([corners.ravel().tolist()], 40, 40)
        return coco_mask.decode(coco_mask.merge(runs)) > 0

    for left in (10, 10.2, 9.8):
        for side in (1, 2, 3):
            square = np.array([[0, 0], [side, 0], [side, side], [0, side]])
            square = square + np.array([left, 20.0])
            assert (theirs(square) == polygon(square, (40, 40))).all()
    rng = np.random.default_rng(0)
    for _ in range(300):
        angles = np.sort(rng.uniform(0, 2 * np.pi, 6))
        radii = rng.uniform(3, 9, 6)
        corners = np.stack([20.3 + np.cos(angles) * radii, 19.6 + np.sin(angles) * radii], axis=1)
        line = corners.astype(np.float32)
        for y, x in np.argwhere(theirs(corners) != polygon(corners, (40, 40))):
            assert abs(cv2.pointPolygonTest(line, (x + 0.5, y + 0.5), True)) < 0.2


# --- COCO ------------------------------------------------------------------------------------------


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
    entries.append(
        {"image_id": 3, "segmentation": [[30, 30, 31, 30, 31, 31, 30, 31]], "category_id": 2}
    )
    draw(coco(entries))
    out = capsys.readouterr().out
    assert (mask("a") == target_mask()).all() and mask("a").dtype == np.uint8
    two = target_mask()
    two[30, 30] = 255
    assert (mask("c") == two).all() and not mask("d").any()
    assert "4 pictures, 4 annotations; all are target, of any category: 1 (3), 2 (1)" in out
    assert "4 masks written, 0 kept: data/tiny/masks" in out
    assert "mask values 0 and 255" in out and "maps of 4 masks made" in out  # and the label maps


def test_images_that_are_not_annotated_are_counted(unlabelled, capsys):
    draw(coco([polygon_of(*TARGET)], names="ab"))
    out = capsys.readouterr().out
    assert "note: 2 images are not annotated, so their masks are empty: c, d" in out
    draw(coco([polygon_of(*TARGET)], names="abcde"))
    out = capsys.readouterr().out
    assert "note: 1 annotated pictures are not in the data set: e.png" in out
    assert "0 masks written, 4 kept" in out


def test_whole_numbers_may_be_pixels_numbers(unlabelled, capsys):
    contour = [12, 10, 12, 12, 15, 12, 15, 10]  # findContours of target_mask
    draw(coco([polygon_of(*contour)]))
    assert "If they are pixels' numbers" in capsys.readouterr().out
    assert (mask("a") > 0).sum() == 2 * 3
    draw(coco([polygon_of(*contour)]), "--outline-pixels", "--overwrite")
    assert "points are pixels' numbers; outlines" in capsys.readouterr().out
    assert (mask("a") == target_mask()).all()
    assert "--outline-pixels" not in capsys.readouterr().out


def test_an_outline_within_a_pixel_stays(unlabelled, capsys):
    draw(coco([polygon_of(20.6, 5.6, 20.9, 5.6, 20.9, 5.9)]))
    assert np.argwhere(mask("a")).tolist() == [[5, 20]]
    assert "note: 1 outlines hold no pixel's centre" in capsys.readouterr().out


def test_of_two_images_of_one_name_the_first_is_used(unlabelled):
    write(unlabelled / "images/a.jpg", picture())
    draw(coco([polygon_of(*TARGET)]))
    assert (mask("a") == target_mask()).all()


# --- labelme ---------------------------------------------------------------------------------------


def test_labelme_files(unlabelled, capsys):
    corners = np.reshape(TARGET, (-1, 2)).tolist()
    save(labelme([{"points": corners, "shape_type": "polygon"}]), "j/a.json")
    rectangle = {"points": [[16, 13], [12, 10]], "shape_type": "rectangle"}
    save(labelme([rectangle], "..\\images\\b.png"), "j/b.json")
    circle = {"points": [[12.5, 10.5], [13.6, 10.5]], "shape_type": "circle"}
    save(labelme([circle, {"points": corners}], "gone.png"), "j/deeper/c.json")
    main(["--dataset", "tiny", "--from-annotations", "j"])
    out = capsys.readouterr().out
    for name in "ab":
        assert (mask(name) == target_mask()).all()
    union = target_mask()
    union[9, 12] = union[10, 11] = 255  # of the circle's cross the two pixels outside of the polygon
    assert (mask("c") == union).all() and not mask("d").any()
    assert "3 pictures, 4 annotations" in out
    assert "note: 1 rectangles" in out
    assert "note: 1 images are not annotated, so their masks are empty: d" in out


def test_labelme_s_name_and_its_file_s_must_agree(unlabelled, capsys):
    save(labelme([{"points": [[1, 1], [9, 1], [9, 9]]}], "a.png"), "j/b.json")
    error = fails(main, "--dataset", "tiny", "--from-annotations", "j/b.json", capsys=capsys)
    assert (
        "could be data/tiny/images/a.png and data/tiny/images/b.png" in error
        and not Path("data/tiny/masks").exists()
    )


# --- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "entry, expected",
    [
        ({"image_id": 1, "segmentation": [], "bbox": [1, 2, 3, 4]}, "a box, without an outline"),
        ({"image_id": 1, "bbox": [1, 2, 3, 4]}, "a box does not say which of its pixels are target"),
        ({"image_id": 9, "segmentation": [TARGET]}, "annotations[0]: found no 9"),
        (polygon_of(1, 2, 3), "cannot reshape"),
        (polygon_of(1, 2, 3, 4), "a polygon of 2 points, expected 3 or more"),
        (polygon_of(1, 2, 3, float("nan"), 5, 6), "annotations[0]: a point at [3.0, nan]"),
        (polygon_of(100, 100, 109, 100, 109, 109), "is not in the image"),
        (polygon_of(0.1, 0.1, 0.9, 0.1, 0.9, 0.9), "all points lie between 0 and 1"),
        ({"image_id": 1, "segmentation": [1, 2, 3, 4]}, "annotations[0]"),
        ({"image_id": 1, "segmentation": {"counts": [3], "size": [40, 48]}}, "run lengths of 3 pixels"),
        ({"image_id": 1, "segmentation": {"counts": [1920], "size": [48, 40]}}, "another size"),
        ({"image_id": 1, "segmentation": {"counts": "Z", "size": [40, 48]}}, "outline 0"),
        ({"image_id": 1, "segmentation": {"size": [40, 48]}}, "found no 'counts'"),
        (
            {"image_id": 1, "segmentation": {"counts": [-1, 1921], "size": [40, 48]}},
            "run lengths of 1920 pixels",
        ),
    ],
)
def test_bad_annotations_are_named(unlabelled, entry, expected, capsys):
    path = save(coco([entry]))
    error = fails(main, "--dataset", "tiny", "--from-annotations", path, capsys=capsys)
    assert expected in error and not Path("data/tiny/masks").exists()


def test_sizes_must_be_the_images(unlabelled, capsys):
    for size, hint in (((48, 40), "EXIF orientation"), ((80, 96), "its image is 48x40")):
        path = save(coco([polygon_of(*TARGET)], size=size))
        error = fails(main, "--dataset", "tiny", "--from-annotations", path, capsys=capsys)
        assert hint in error and f"annotated at {size[1]}x{size[0]}" in error
    assert not Path("data/tiny/masks").exists()


@pytest.mark.parametrize(
    "name, text, expected",
    [
        ("x.txt", "0 0.5 0.5 0.1 0.1\n", "YOLO labels (.txt)"),
        ("x.xml", "<annotation><object/></annotation>", "VOC boxes (.xml)"),
        ("x.json", "[1, 2]", "neither images and annotations (COCO) nor shapes (labelme)"),
        ("x.json", '{"images": []', "not a JSON file"),
        ("x.json", "version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        ("x.json", '{"images": [], "annotations": []}', "found no annotation in it"),
        ("x.csv", "a,b", "found no .json"),
    ],
)
def test_other_files_are_refused(unlabelled, name, text, expected, capsys):
    write(Path("labels") / name, text)
    for path in (f"labels/{name}", "labels"):
        error = fails(main, "--dataset", "tiny", "--from-annotations", path, capsys=capsys)
        assert expected in error
    assert "not there" in fails(main, "--dataset", "tiny", "--from-annotations", "no", capsys=capsys)


def test_masks_that_are_there_stay(data, capsys):
    before = {p.name: p.read_bytes() for p in Path("data/tiny/masks").iterdir()}
    path = save(coco([polygon_of(1, 1, 5, 1, 5, 5, 1, 5)]))
    error = fails(main, "--dataset", "tiny", "--from-annotations", path, capsys=capsys)
    assert "4 other masks are there: a.png, b.png, c.png, d.png; to replace them, type --over" in error
    assert before == {p.name: p.read_bytes() for p in Path("data/tiny/masks").iterdir()}
    main(["--dataset", "tiny", "--from-annotations", path, "--overwrite"])
    assert (mask("a") > 0).sum() == 16 and not mask("b").any()


def test_flags_without_annotations(data, capsys):
    error = fails(main, "--dataset", "tiny", "--overwrite", "--outline-pixels", capsys=capsys)
    assert "--outline-pixels, --overwrite: has no effect without --from-annotations" in error


def test_a_set_with_polygons_alone_says_what_to_type(unlabelled, capsys):
    save(coco([polygon_of(*TARGET)]), "data/tiny/annotations/instances.json")
    error = fails(main, "--dataset", "tiny", capsys=capsys)
    assert "python utils.py --dataset tiny --from-annotations data/tiny." in error
    main(["--dataset", "tiny", "--from-annotations", "annotations/instances.json"])  # in the data set
    assert (mask("a") == target_mask()).all()


@pytest.mark.parametrize("size", [(40, 48), (48, 48)])
def test_run_lengths_along_the_rows_are_refused_where_the_box_tells(unlabelled, size, capsys):
    pixels = np.zeros(size, bool)
    pixels[10:13, 12:16] = True
    box = [12, 10, 4, 3]

    def runs(flat: np.ndarray) -> list[int]:
        ends = np.flatnonzero(np.diff(np.concatenate([[False], flat])))
        return np.diff(np.concatenate([[0], ends, [flat.size]])).astype(int).tolist()

    for name in "abcd":
        write(unlabelled / f"images/{name}.png", picture(shape=size))
    boxes = [box]
    down, along = (
        {"image_id": 1, "segmentation": {"counts": runs(flat), "size": list(size)}}
        for flat in (pixels.T.ravel(), pixels.ravel())
    )
    arguments = ["--dataset", "tiny", "--overwrite", "--from-annotations"]
    for one in boxes:
        file = save(coco([{**along, "bbox": one}], size=size))
        message = fails(main, *arguments, file, capsys=capsys)
        assert "its run lengths fill the box" in message
        assert "asfortranarray" in message
        main([*arguments, save(coco([{**down, "bbox": one}], size=size))])
        assert ((mask("a") > 0) == pixels).all()


@pytest.mark.parametrize(
    "categories", [["target"], {"1": "x"}, [5], 7, None, [{"id": [1]}], [{"id": 1}]]
)
def test_categories_of_any_form_are_only_names(unlabelled, categories, capsys):
    content = coco([polygon_of(*TARGET)])
    content["categories"] = categories
    draw(content)
    assert "1 annotations; all are target" in capsys.readouterr().out


def test_sizes_may_be_text(unlabelled, capsys):
    content = coco([polygon_of(*TARGET)])
    for image in content["images"]:
        image["height"], image["width"] = "40", "48"
    draw(content)
    assert (mask("a") == target_mask()).all()
    content["images"][0]["width"] = "wide"
    path = save(content)
    assert "images[0]" in fails(
        main, "--dataset", "tiny", "--from-annotations", path, "--overwrite", capsys=capsys
    )


def test_sizes_are_compared_before_anything_is_made(unlabelled, capsys):
    """195 bytes of a file asked for 9.3 GiB."""
    huge = {"image_id": 1, "segmentation": {"counts": [10**10], "size": [100_000, 100_000]}}
    path = save(coco([huge], "a", size=(100_000, 100_000)))
    error = fails(main, "--dataset", "tiny", "--from-annotations", path, capsys=capsys)
    assert "annotated at 100000x100000" in error and "48x40" in error


def test_annotations_in_split_folders_are_of_the_images_beside_them(tmp_path, capsys):
    root = tmp_path / "data/tiny"
    for part in ("train", "valid"):
        write(root / part / "0.png", picture())
    for part, corners in (("train", TARGET), ("valid", [1, 1, 3, 1, 3, 3, 1, 3])):
        save(coco([polygon_of(*corners)], "0"), f"data/tiny/{part}/_annotations.coco.json")
    with_one = ["--dataset", "tiny", "--from-annotations", "data/tiny/train/_annotations.coco.json"]
    main(["--dataset", "tiny", "--from-annotations", "data/tiny"])
    assert (mask("0", "data/tiny/train/masks") == target_mask()).all()
    assert (mask("0", "data/tiny/valid/masks") > 0).sum() == 4
    assert "4 other" not in fails(main, *with_one, capsys=capsys)  # valid's masks are not emptied


@pytest.mark.parametrize("name", ["val/a.png", "elsewhere/seq1/a.png"])
def test_a_split_folder_in_a_name_must_be_the_images(tmp_path, name, capsys):
    root = tmp_path / "data/tiny"
    for part, stem in (("train", "a"), ("test", "b")):
        write(root / f"{part}/images/{stem}.png", picture())
    content = coco([polygon_of(*TARGET)], "a")
    content["images"][0]["file_name"] = name
    arguments = ["--dataset", "tiny", "--from-annotations", save(content)]
    if name[0] == "v":
        assert "has none of the 1 annotated" in fails(main, *arguments, capsys=capsys)
    else:
        main(arguments)
        assert (mask("a", "data/tiny/train/masks") == target_mask()).all()
