"""What mask values mean is decided once for a data set."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from conftest import fails, make_set, target_mask, write
from PIL import Image

from eval import main as evaluate
from ismallnet.cli import DataError
from ismallnet.datasets.find import find_dataset
from ismallnet.datasets.masks import check_aspect, decide, read_mask
from train import main as train

ON = target_mask() > 0
NAMES = "abcd"


def masks(make, suffix="png") -> Path:
    """data/tiny with the masks that `make` gives for 0, 1, 2, 3."""
    root = make_set(Path("data/tiny"))
    for k, name in enumerate(NAMES):
        (root / f"masks/{name}.png").unlink()
        path = root / f"masks/{name}.{suffix}"
        pixels = make(k)
        if isinstance(pixels, Image.Image):
            pixels.save(path)
        elif suffix == "tif":
            tifffile.imwrite(path, pixels)
        else:
            write(path, pixels)
    return root


def read(data) -> list[np.ndarray]:
    return [read_mask(s, ON.shape) for part in ("train", "test") for s in data.samples(part)]


def palette(colours, on=ON) -> Image.Image:
    image = Image.fromarray(on.astype(np.uint8), "P")
    image.putpalette(colours)
    return image


def alpha(on=ON) -> np.ndarray:
    return np.dstack([np.full((*on.shape, 3), 255, np.uint8), on.astype(np.uint8) * 255])


FORMS = {
    "0/2": lambda k: ON.astype(np.uint8) * 2,
    "0/1 and 0/2": lambda k: ON.astype(np.uint8) * (1 + k % 2),
    "0/38": lambda k: ON.astype(np.uint8) * 38,
    "instances": lambda k: ON.astype(np.uint8) * (k + 1),
    "16-bit 0/255": lambda k: ON.astype(np.uint16) * 255,
    "16-bit 0/65535": lambda k: ON.astype(np.uint16) * 65535,
    "16-bit instances": lambda k: ON.astype(np.uint16) * (k + 1),
    "dark palette": lambda k: palette([0, 0, 0, 0, 0, 60]),
    "grey palette": lambda k: palette([0, 0, 0, 255, 255, 255]),
    "dark colours": lambda k: np.dstack([ON * 0, ON * 0, ON * 40]).astype(np.uint8),
    "alpha": lambda k: alpha(),
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_masks_of_a_whole_set(form):
    masks(FORMS[form])
    for mask in read(find_dataset("tiny")):
        assert (mask == ON * 255).all()


@pytest.mark.parametrize("top", [1, 3, 255])
@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_forms_of_tiff_masks(kind, top):
    masks(lambda k: ON.astype(kind) * top, "tif")
    assert all((mask == ON * 255).all() for mask in read(find_dataset("tiny")))


def test_one_rule_for_all_masks_of_a_set():
    """One mask reaches 255, so that a 1 elsewhere is a grey value, not a class."""
    masks(lambda k: (ON * (255 if k == 0 else 1)).astype(np.uint8))
    data = find_dataset("tiny")
    assert [mask.any() for mask in read(data)] == [True, False, False, False]
    assert data.targets == {"train": int(ON.sum()), "test": 0}
    (note,) = [note for note in data.notes if "--mask-threshold" in note]
    assert note.startswith("note: 3 masks") and "b.png (at most 1), c.png" in note


def test_soft_masks_are_named_and_the_threshold_is_the_persons():
    masks(lambda k: (ON * (90 + 20 * k)).astype(np.uint8))
    data = find_dataset("tiny")
    assert [bool(mask.any()) for mask in read(data)] == [False, False, True, True]
    assert "a.png (at most 90), b.png (at most 110)" in "\n".join(data.notes)
    data = find_dataset("tiny", mask_threshold=100)
    assert data.targets["train"] == int(ON.sum())
    assert "target from 100 up" in data.notes[0]


def test_what_is_printed():
    assert decide([np.array([0, 255], np.uint8)]).values == "0 and 255"
    assert decide([np.array([0, 1], np.uint8), np.array([0, 2], np.uint8)]).values == "0, 1, 2"
    assert decide([np.arange(256, dtype=np.uint8)]).values == "0, 1, 2 … 255"
    assert decide([]).values == ""


def test_inverted_masks_stop():
    masks(lambda k: np.where(ON, 0, 255).astype(np.uint8))
    with pytest.raises(DataError, match="in all masks of the train list more than half"):
        find_dataset("tiny")
    masks(lambda k: np.where(ON, 0, 255).astype(np.uint8) if k == 2 else ON.astype(np.uint8) * 255)
    assert "c.png" in find_dataset("tiny").notes[-1]


def test_no_target_at_all(capsys):
    root = masks(lambda k: (ON * 0).astype(np.uint8))
    message = fails(train, "--dataset", "tiny", "--run-name", "x", capsys=capsys)
    assert "no training mask holds a target pixel" in message
    assert "mask values 0; no mask holds a target" in find_dataset("tiny").notes
    for name in "cd":
        write(Path("results/tiny") / f"{name}.png", np.zeros(ON.shape, np.uint8))
    evaluate(["--dataset", "tiny", "--workers", "1"])
    assert "no mask of the test list holds a target pixel" in capsys.readouterr().out
    assert root.exists()


def test_swapped_sides_name_the_exif_orientation():
    with pytest.raises(DataError, match="EXIF orientation"):
        check_aspect("m.png", (40, 48), (48, 40))
    with pytest.raises(DataError, match=r"within 2%$"):
        check_aspect("m.png", (40, 48), (40, 90))


def test_label_maps_are_made_again_where_the_masks_are_read_otherwise():
    from utils import main

    root = masks(lambda k: ON.astype(np.uint8) * 2)
    main(["--dataset", "tiny", "--workers", "1"])
    assert cv2.imread(str(root / "interior/b.png"), 0).max() == 255
    write(root / "masks/a.png", ON.astype(np.uint8) * 255)  # now a 2 is a dark grey
    main(["--dataset", "tiny", "--workers", "1"])
    assert cv2.imread(str(root / "interior/b.png"), 0).max() == 0


def test_a_black_palette_counts_by_its_numbers():
    root = make_set(Path("data") / "tiny")
    for name in "abcd":
        Image.fromarray(ON.astype(np.uint8), "P").save(root / f"masks/{name}.png")
    data = find_dataset("tiny")
    assert data.targets == {"train": 2 * int(ON.sum()), "test": 2 * int(ON.sum())}
    assert any("class or instance numbers" in note for note in data.notes)


def test_an_alpha_mask_without_a_target_is_empty():
    """Its colours are white and its alpha is 0 throughout: all of it was target."""
    masks(lambda k: alpha(ON & (k != 1)))
    assert [int(mask.astype(bool).sum()) for mask in read(find_dataset("tiny"))] == [12, 0, 12, 12]
    masks(lambda k: np.full((*ON.shape, 4), 255, np.uint8) * (ON[..., None] & (k > 2)))
    assert [bool(mask.any()) for mask in read(find_dataset("tiny"))] == [False] * 3 + [True]


def test_signed_bytes_hold_255_as_minus_1():
    masks(lambda k: (ON * -1).astype(np.int8), "tif")
    assert all((mask == ON * 255).all() for mask in read(find_dataset("tiny")))


def test_cut_outs_of_targets_are_masks_by_their_alpha():
    """The target's own grey values before a transparent background, as image editors save them."""
    grey = np.where(ON, np.arange(ON.size).reshape(ON.shape) % 200 + 20, 0).astype(np.uint8)
    masks(lambda k: np.dstack([grey, grey, grey, (ON * 255).astype(np.uint8)]))
    assert all((mask == ON * 255).all() for mask in read(find_dataset("tiny")))
    red = np.dstack([ON * 255, ON * 0, ON * 0, ON * 102]).astype(np.uint8)  # half transparent
    masks(lambda k: red)
    assert all((mask == ON * 255).all() for mask in read(find_dataset("tiny")))
    # A mask on a canvas with a transparent border: what is not clear is mostly black.
    inner = np.zeros(ON.shape, np.uint8)
    inner[2:-2, 2:-2] = 255
    white = (ON * 255).astype(np.uint8)
    masks(lambda k: np.dstack([white, white, white, inner]))
    assert all((mask == ON * 255).all() for mask in read(find_dataset("tiny")))
