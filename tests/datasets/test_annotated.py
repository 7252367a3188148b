"""Which image of a data set a picture of annotation files is."""

import pytest
from conftest import fails, make_set, picture, target_mask, write
from outlines import TARGET, coco, draw, mask, polygon_of, save

from utils import main


def test_names_with_folders_and_other_endings(tmp_path, capsys):
    root = make_set(tmp_path / "data" / "tiny", names=("s1/0", "s1/1", "s2/0", "s2/1"))
    for path in (root / "masks").rglob("*.png"):
        path.unlink()
    content = coco([{"image_id": k, "segmentation": [TARGET]} for k in (1, 4)])
    for image, name in zip(
        content["images"], ("s1/0.jpg", "train\\s1\\1.png", "S2/0.png", "x/s2/1.png")
    ):
        image["file_name"] = name
    draw(content)
    assert (mask("s1/0") == target_mask()).all() and (mask("s2/1") == target_mask()).all()
    assert not mask("s1/1").any() and not mask("s2/0").any()
    content["images"][0]["file_name"] = "0.png"
    with pytest.raises(SystemExit):
        draw(content, "--overwrite")
    content["images"][0]["file_name"] = "s3/0.png"
    draw(content, "--overwrite")
    assert "1 annotated pictures are not in the data set: s3/0.png" in capsys.readouterr().out


def test_split_folders_get_masks_of_their_own(tmp_path):
    for part, name in (("train", "a"), ("test", "b")):
        write(tmp_path / f"data/tiny/{part}/images/{name}.png", picture())
    draw(coco([polygon_of(*TARGET)], names="ab"))
    assert (mask("a", "data/tiny/train/masks") == target_mask()).all()
    assert not mask("b", "data/tiny/test/masks").any()


def test_annotations_beside_the_images_of_split_folders(tmp_path, capsys):
    """As Roboflow exports them: train/X.jpg and train/_annotations.coco.json, valid/…."""
    for part, name in (("train", "a"), ("valid", "b")):
        write(tmp_path / f"data/tiny/{part}/{name}.png", picture())
        one = save(coco([polygon_of(*TARGET)], name), f"data/tiny/{part}/_annotations.coco.json")
    error = fails(main, "--dataset", "tiny", capsys=capsys)
    assert (
        "1 file of COCO labels (.json) in train/ and 1 file of COCO labels (.json) in valid/" in error
    )
    assert "utils.py --dataset tiny --from-annotations data/tiny." in error
    error = fails(main, "--dataset", "tiny", "--from-annotations", one, capsys=capsys)
    assert "has none of the images in data/tiny/train, where _annotations.coco.json is" in error
    assert not list(tmp_path.rglob("masks"))
    for _ in range(2):  # the second time beside label maps and their maps.json
        main(["--dataset", "tiny", "--from-annotations", "data/tiny"])
    for part, name in (("train", "a"), ("valid", "b")):
        assert (mask(name, f"data/tiny/{part}/masks") == target_mask()).all()
    assert "1 train, 1 test" in capsys.readouterr().out


@pytest.mark.parametrize("form", ["{}_images", "images_{}"])
def test_equal_names_in_split_folders_get_masks_of_their_own(tmp_path, form, capsys):
    for k, part in enumerate(("train", "test")):
        write(tmp_path / f"data/tiny/{form.format(part)}/a.png", picture(k))
    content = coco(
        [polygon_of(*TARGET), {"image_id": 2, "segmentation": [[1, 1, 5, 1, 5, 5, 1, 5]]}], "ab"
    )
    for image, part in zip(content["images"], ("train", "test")):
        image["file_name"] = f"{form.format(part)}/a.png"
    draw(content)
    assert "2 masks written" in capsys.readouterr().out
    assert (mask("a", "data/tiny/train_masks") == target_mask()).all()
    assert (mask("a", "data/tiny/test_masks") > 0).sum() == 16


def test_masks_that_would_be_one_file_are_refused(tmp_path, capsys):
    root = tmp_path / "data/tiny"
    for k, part in enumerate(("train", "test")):
        write(root / f"{part}_images/a.png", picture(k))
    write(root / "masks/b.png", target_mask())
    content = coco([polygon_of(*TARGET)], names="a")
    content["images"][0]["file_name"] = "train_images/a.png"
    path = save(content)
    error = fails(main, "--dataset", "tiny", "--from-annotations", path, capsys=capsys)
    assert "train_images/a.png and data/tiny/test_images/a.png: their masks would be the same" in error
    assert "masks/a.png; move masks/ away" in error and not (root / "masks/a.png").exists()


def test_equal_names_without_folders_say_what_to_write(tmp_path, capsys):
    for k, part in enumerate(("train", "test")):
        write(tmp_path / f"data/tiny/images/{part}/a.png", picture(k))
    path = save(coco([polygon_of(*TARGET)], names="a"))
    error = fails(main, "--dataset", "tiny", "--from-annotations", path, capsys=capsys)
    assert "images/test/a.png and images/train/a.png; write the one that is meant in its file_" in error


def test_a_picture_of_another_sequence_is_not_taken_for_one_of_this(tmp_path, capsys):
    for k in "01":
        write(tmp_path / f"data/tiny/images/seq1/{k}.png", picture())
    content = coco([{**polygon_of(*TARGET), "image_id": k} for k in (1, 2)], names="01")
    content["images"][1]["file_name"] = "seq2/1.png"
    content["images"][0]["file_name"] = "seq1/0.png"
    draw(content)
    said = capsys.readouterr().out
    assert "note: 1 annotated pictures are not in the data set: seq2/1.png" in said
    assert mask("seq1/0").any() and not mask("seq1/1").any()
    content["images"][0]["file_name"] = "frames/0.png"  # one folder for all says nothing
    content["images"][1]["file_name"] = "frames/1.png"
    draw(content, "--overwrite")
    assert mask("seq1/0").any() and mask("seq1/1").any()


def test_annotations_of_one_split_folder_are_not_of_another(tmp_path, capsys):
    """Files of one name, each with its own annotations beside it; valid/ is left out."""
    for k, part in enumerate(("train", "valid", "test")):
        write(tmp_path / f"data/tiny/{part}/a.png", picture(k))
        write(tmp_path / f"data/tiny/{part}/{part}.png", picture(k))
        names = "a" if part != "train" else ["train"]
        save(coco([polygon_of(*TARGET)], names), f"data/tiny/{part}/_annotations.coco.json")
    main(["--dataset", "tiny", "--from-annotations", "data/tiny"])
    folders = {part: f"data/tiny/{part}/masks" for part in ("train", "test")}
    assert mask("train", folders["train"]).any() and not mask("a", folders["train"]).any()
    assert mask("a", folders["test"]).any() and not mask("test", folders["test"]).any()
    assert "1 annotated pictures are not in the data set: a.png" in capsys.readouterr().out
    one = coco([polygon_of(*TARGET)], "a")
    one["images"][0]["file_name"] = "valid/train.png"  # of a split folder that has no such name
    error = fails(main, "--dataset", "tiny", "--from-annotations", save(one), capsys=capsys)
    assert "has none of the 1 annotated pictures: valid/train.png" in error


@pytest.mark.parametrize("place", ["json/{}", "annotations/{}", "exports/train"])
def test_annotations_in_folders_of_their_own(tmp_path, place):
    root = tmp_path / "data/tiny"
    for part, name in (("train", "a"), ("test", "b")):
        write(root / f"images/{part}/{name}.png", picture())
        folder = root / place.format(part)
        save(coco([polygon_of(*TARGET)], name), folder / f"{name}.json")
    above = folder if folder.name == "train" else folder.parent
    main(["--dataset", "tiny", "--from-annotations", str(above)])
    assert all(mask(f"{part}/{name}").any() for part, name in (("train", "a"), ("test", "b")))


def test_one_file_in_a_split_folder_may_be_of_all(tmp_path):
    for part, name in (("train", "a"), ("test", "c")):
        write(tmp_path / f"data/tiny/{part}/images/{name}.png", picture())
    content = coco([{**polygon_of(*TARGET), "image_id": k} for k in (1, 2)], "ac")
    content["images"][1]["file_name"] = "test/images/c.png"
    path = save(content, "data/tiny/train/all.json")
    main(["--dataset", "tiny", "--from-annotations", path])
    assert mask("a", "data/tiny/train/masks").any() and mask("c", "data/tiny/test/masks").any()


def test_folders_that_were_renamed_since_do_not_matter(tmp_path):
    content = coco([{**polygon_of(*TARGET), "image_id": k} for k in (1, 2)], "ab")
    for image, folder, stated in zip(content["images"], ("cam1", "cam2"), ("cam1_raw", "cam2")):
        name = image["file_name"]
        write(tmp_path / f"data/tiny/images/{folder}/{name}", picture())
        image["file_name"] = f"{stated}/{name}"
    draw(content)
    assert mask("cam1/a").any() and mask("cam2/b").any()
