import json
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from conftest import GOLDEN, fails, picture, target_mask, write
from sets import pairs

import train
from dataset import Frames
from ismallnet import labels
from ismallnet.cli import DataError
from ismallnet.datasets.find import find_dataset
from ismallnet.distributed import Processes
from ismallnet.images.grey import GreyRange
from utils import decouple, main

CASES = sorted(p.name[: -len("_interior.png")] for p in (GOLDEN / "decouple").glob("*_interior.png"))


def grey(path):
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def run(*argv):
    main(["--dataset", *argv])


@pytest.mark.parametrize("case", CASES)
def test_authors_maps_byte_for_byte(case):
    folder = GOLDEN / "decouple"
    interior, boundary = decouple(grey(folder / f"{case}.png"))
    assert (interior == grey(folder / f"{case}_interior.png")).all()
    assert (boundary == grey(folder / f"{case}_boundary.png")).all()


def test_authors_maps_of_160_random_masks():
    golden = np.load(GOLDEN / "decouple" / "random.npz")
    for mask, interior, boundary in zip(golden["mask"], golden["interior"], golden["boundary"]):
        found = decouple(mask, "authors")
        assert (found[0] == interior).all() and (found[1] == boundary).all()
    assert len(golden["mask"]) == 160


def test_paper_map_by_hand():
    """A 5x5 square: distance (DIST_L2, 5x5 mask) 1 at its rim, 2 inside that, 3 at its centre."""
    mask = np.zeros((9, 9), np.uint8)
    mask[2:7, 2:7] = 255
    interior, boundary = decouple(mask, "wei")
    assert interior[4, 2:7].tolist() == [85, 170, 255, 170, 85]
    assert boundary[4, 2:7].tolist() == [170, 85, 0, 85, 170]
    assert not interior[mask == 0].any()


@pytest.mark.parametrize("method", ["authors", "wei"])
def test_empty_and_full_masks(method):
    empty, full = np.zeros((6, 7), np.uint8), np.full((6, 7), 255, np.uint8)
    assert not any(m.any() for m in decouple(empty, method))
    interior, boundary = decouple(full, method)
    assert (interior == 255).all() and not boundary.any()


def test_bad_arguments_of_decouple():
    for mask in (np.zeros((4, 4)), np.zeros((4, 4, 3), np.uint8)):
        with pytest.raises(ValueError, match="uint8"):
            decouple(mask)
    with pytest.raises(ValueError, match="method"):
        decouple(np.zeros((4, 4), np.uint8), "theirs")


def test_maps_are_written_beside_the_data_and_kept(data, capsys):
    run("tiny", "--workers", "2")
    assert "maps of 4 masks made, 0 kept, 0 masks resized" in capsys.readouterr().out
    for kind, pixels in zip(("interior", "boundary"), decouple(target_mask())):
        assert (grey(data / kind / "a.png") == pixels).all()
    run("tiny")
    assert "maps of 0 masks made, 4 kept" in capsys.readouterr().out


@pytest.mark.parametrize(
    "change, argv, made",
    [
        ("mask", [], 1),
        ("image", [], 1),
        ("lost map", [], 1),
        ("cut map", [], 1),
        ("record", [], 4),
        ("", ["--method", "wei"], 4),
        ("", ["--mask-threshold", "5"], 4),
        ("", ["--force"], 4),
    ],
)
def test_what_is_no_longer_good_is_made_again(data, capsys, change, argv, made):
    run("tiny")
    if change == "mask":
        write(data / "masks/a.png", np.zeros((40, 48), np.uint8))
    elif change == "image":
        write(data / "images/a.png", picture(0, (80, 96)))
    elif change == "lost map":
        (data / "interior/b.png").unlink()
    elif change == "cut map":
        path = data / "boundary/b.png"
        path.write_bytes(path.read_bytes()[:50])
    elif change == "record":
        (data / "maps.json").write_text("{damaged")
    capsys.readouterr()
    run("tiny", *argv)
    assert f"maps of {made} masks made, {4 - made} kept" in capsys.readouterr().out
    if change == "mask":
        assert not grey(data / "interior/a.png").any()
    if change == "image":
        assert grey(data / "interior/a.png").shape == (80, 96)
    if "wei" in argv:
        assert (grey(data / "interior/a.png") == decouple(target_mask(), "wei")[0]).all()


def test_an_interrupted_change_of_method_is_not_taken_for_finished(data, monkeypatch):
    """The record forgets the maps that are about to change before the first of them changes."""
    run("tiny")
    real, calls = labels.make_maps, []

    def stop_at_third(sample, **settings):
        calls.append(sample)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(sample, **settings)

    monkeypatch.setattr(labels, "make_maps", stop_at_third)
    with pytest.raises(SystemExit) as stop:
        run("tiny", "--method", "wei")
    assert stop.value.code == 130
    record = json.loads((data / "maps.json").read_text())
    assert record["method"] == "wei" and record["masks"] == {}
    monkeypatch.setattr(labels, "make_maps", real)
    run("tiny", "--method", "authors")
    for name in "abcd":
        assert (grey(data / f"interior/{name}.png") == decouple(target_mask())[0]).all()


def test_resized_masks_are_counted_and_named(data, capsys):
    write(data / "masks/b.png", target_mask((80, 96)))
    run("tiny")
    assert "1 masks resized to their images (b)" in capsys.readouterr().out
    assert grey(data / "interior/b.png").shape == (40, 48)


def test_maps_root(data, tmp_path, capsys):
    (data / "interior").write_text("a file where the folder should be")
    assert "--maps-root" in fails(main, "--dataset", "tiny", capsys=capsys)
    run("tiny", "--maps-root", str(tmp_path / "maps"))
    assert (tmp_path / "maps/tiny/boundary/d.png").exists()


def test_links_among_the_maps(tmp_path, capsys):
    root, outside = tmp_path / "data/s", tmp_path / "outside"
    for part in ("train", "test"):
        pairs(root, f"{part}/images", f"{part}/masks", "1")
    run("s")
    assert (root / "boundary/test/1.png").exists()  # names that repeat get a folder
    # one map is a link: its place is taken by a map, and what it led to stays
    (root / "interior/train/1.png").rename(tmp_path / "1.png")
    (root / "interior/train/1.png").symlink_to(tmp_path / "1.png")
    (tmp_path / "1.png").chmod(0o444)
    capsys.readouterr()
    run("s")
    assert "maps of 1 masks made, 1 kept" in capsys.readouterr().out
    assert not (root / "interior/train/1.png").is_symlink() and (tmp_path / "1.png").exists()
    # a folder of maps is one
    (root / "interior/train").rename(outside)
    (root / "interior/train").symlink_to(outside, target_is_directory=True)
    before = (outside / "1.png").stat().st_mtime_ns
    assert "interior/train: a link that leads out" in fails(
        main, "--dataset", "s", "--force", capsys=capsys
    )
    assert (outside / "1.png").stat().st_mtime_ns == before


def test_all_bad_masks_are_named(data, capsys):
    write(data / "masks/a.png", "version https://git-lfs.github.com/spec/v1\n")
    write(data / "masks/c.png", target_mask((40, 99)))
    message = fails(main, "--dataset", "tiny", capsys=capsys)
    assert "2 of the train and test list's 4 entries cannot be used" in message
    assert "a.png: not a readable image (a Git LFS pointer" in message
    assert "c.png" in message and "b.png" not in message
    assert (data / "interior/b.png").exists()


@pytest.mark.parametrize("other", [["--labels", "wei"], ["--mask-threshold", "5"]])
def test_maps_that_another_program_made_in_another_way_are_not_read(data, other):
    """Two trainings at once, with different --labels, read each other's label maps."""
    run("tiny")
    frames = Frames(find_dataset("tiny"), "train")
    run("tiny", *other)
    with pytest.raises(DataError, match="maps-root"):
        frames.add_maps(data, "authors")
    run("tiny")
    frames.add_maps(data, "authors")
    assert (frames[0].interior == decouple(target_mask())[0]).all()


def test_maps_are_locked_from_the_making_until_they_are_read(data, monkeypatch):
    """What is made in another way waits meanwhile."""
    monkeypatch.setattr(labels, "MAKING_S", 0.2)
    tiny = find_dataset("tiny")
    again = labels.maps_lock([tiny], None)
    refused = pytest.raises(DataError, match="are being made")
    with labels.maps_lock([tiny], None), ThreadPoolExecutor(1) as pool, refused:
        pool.submit(again.__enter__).result()
    run("tiny")


def test_a_training_holds_the_lock_while_it_reads_its_maps(data, monkeypatch, capsys):
    monkeypatch.setattr(labels, "MAKING_S", 0.1)
    reading = []

    def add_maps(frames, folder, method):
        assert "being made" in fails(main, "--dataset", "tiny", "--method", "wei", capsys=capsys)
        reading.append(method)

    monkeypatch.setattr(Frames, "add_maps", add_maps)
    train.read_data([find_dataset("tiny")], 128, GreyRange(), None, "authors", Processes("cpu"))
    assert reading == ["authors"]


def test_test_masks_alone_are_read_where_the_maps_say_what_values_mean(data):
    assert all(s.loaded for s in find_dataset("tiny", needed=("test",)).lists["train"])
    run("tiny")
    tiny = find_dataset("tiny", needed=("test",))
    assert not any(s.loaded for s in tiny.lists["train"]) and all(s.loaded for s in tiny.lists["test"])
    assert tiny.lists["train"][0].rule == find_dataset("tiny").lists["train"][0].rule
    write(data / "masks/a.png", target_mask() // 255)  # the rule may be another one by now
    assert all(s.loaded for s in find_dataset("tiny", needed=("test",)).lists["train"])
