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
    assert "3 masks hold values above 0, but no target: b.png (at most 1)" in "\n".join(data.notes)
    assert "--mask-threshold" in "\n".join(data.notes)


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
    assert "more than half of the pixels are target in 1 masks: c.png" in find_dataset("tiny").notes[-1]


def test_soft_masks_that_never_reach_128_are_no_silent_class_numbers():
    soft = cv2.GaussianBlur(ON.astype(np.float32) * 110, (0, 0), 2)
    root = masks(lambda k: soft.astype(np.uint8))
    data = find_dataset("tiny")
    values = len(np.unique(soft.astype(np.uint8))) - 1
    note = next(note for note in data.notes if "different values" in note)
    assert f"4 masks hold more than 12 different values above 0: a.png ({values})" in note
    half = int(note.split("--mask-threshold ")[1])
    assert half == int(soft.max()) // 2
    data = find_dataset("tiny", mask_threshold=half)  # what the note says is of use
    assert not any("different values" in note for note in data.notes)
    expected = 4 * int((soft.astype(np.uint8) >= half).sum())
    assert sum(data.targets.values()) == expected and root.exists()


def test_a_dozen_instances_are_numbers():
    pixels = ON.astype(np.uint8)
    pixels[0, :12] = np.arange(1, 13)
    masks(lambda k: pixels)
    assert not any("different values" in note for note in find_dataset("tiny").notes)


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


@pytest.mark.parametrize(("inside", "text"), [(255, "fill their boxes"), (0, "are outlines of boxes")])
def test_masks_that_are_drawn_boxes_are_said(inside, text):
    def box(k: int) -> np.ndarray:
        pixels = np.zeros((40, 48), np.uint8)
        pixels[5 : 10 + k, 6:14], pixels[6 : 9 + k, 7:13] = 255, inside
        return pixels

    masks(box)
    note = next(note for note in find_dataset("tiny").notes if "boxes" in note)
    assert note.startswith(f"note: all 4 targets of 4x4 px and more {text}")
    masks(lambda k: box(k) if k else cv2.circle(box(k) * 0, (20, 20), 6, 255, -1))
    assert not any("boxes" in note for note in find_dataset("tiny").notes)


def test_dark_colours_that_jpeg_has_changed_are_said():
    on = np.zeros_like(ON)
    on[8:18, 10:21] = True
    colours = np.dstack([np.zeros_like(on, np.uint8)] * 3)
    colours[on] = 128, 0, 0
    masks(lambda k: Image.fromarray(colours), "jpg")
    note = next(text for text in find_dataset("tiny").notes if "largest value" in text)
    threshold = int(note.rpartition("--mask-threshold ")[2])
    assert 48 <= threshold <= 80
    data = find_dataset("tiny", mask_threshold=threshold)
    assert not any("largest value" in text for text in data.notes)
    found = [read_mask(s, ON.shape, threshold) > 0 for s in data.samples("test")]
    assert all((one & on).sum() >= 0.9 * (one | on).sum() for one in found)


@pytest.mark.parametrize("values", [(255, 100), (140, 20)])
def test_other_values_below_the_threshold_are_not(values):
    soft = np.where(ON, values[0], 0).astype(np.uint8)
    soft[20:23, 20:24] = values[1]
    masks(lambda k: soft)
    assert not any("largest value" in text for text in find_dataset("tiny").notes)


def instances(values, k=0) -> np.ndarray:
    """A mask with a square of 4x4 px for each value."""
    pixels = np.zeros(ON.shape, np.array(values).dtype if isinstance(values, np.ndarray) else np.uint8)
    for n, value in enumerate(values):
        pixels[4 + 3 * k : 8 + 3 * k, 4 + 10 * n : 8 + 10 * n] = value
    return pixels


@pytest.mark.parametrize(
    ("values", "suffix", "seen"),
    [
        ([50, 100, 150, 200], "png", "50, 100"),
        (np.array([28001, 52004], np.uint16), "png", "108"),
        ([[0, 100, 0], [0, 0, 200], [70, 70, 70]], "png", "70, 100"),
    ],
)
def test_targets_on_both_sides_of_the_threshold_are_said(values, suffix, seen):
    """Half of the targets were gone without a word."""
    if isinstance(values[0], list):
        parts = [instances([value[c] for value in values]) for c in range(3)]
        masks(lambda k: np.dstack(parts))
    else:
        masks(lambda k: instances(values), suffix)
    note = next(note for note in find_dataset("tiny").notes if "stay below 128" in note)
    lost = seen.count(",") + 1
    assert (
        f"note: {4 * lost} groups of pixels in 4 masks stay below 128 (at most {seen} of 255)" in note
    )
    data = find_dataset("tiny", mask_threshold=1)  # what the note says is of use
    assert data.targets["train"] == 2 * 16 * len(values)
    assert not any("stay below" in note for note in data.notes)


def test_soft_edges_and_traces_of_jpeg_are_no_lost_targets():
    soft = cv2.GaussianBlur(ON.astype(np.float32) * 255, (0, 0), 1).astype(np.uint8)
    masks(lambda k: soft)
    assert not any("stay below" in note for note in find_dataset("tiny").notes)
    for quality in (20, 90):
        large = cv2.resize(ON.astype(np.uint8) * 255, None, fx=3, fy=3)
        found = cv2.imdecode(cv2.imencode(".jpg", large, [1, quality])[1], 0)
        masks(lambda k, found=found: found)
        assert not any("stay below" in note for note in find_dataset("tiny").notes)


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


@pytest.mark.parametrize("classes", [1, 12])
def test_classes_beside_a_border_that_does_not_count_are_said(classes):
    ring = cv2.dilate(ON.astype(np.uint8), np.ones((3, 3), np.uint8)) > ON
    masks(lambda k: (ON * (38 + k % classes) + ring * 255).astype(np.uint8))
    (note,) = [note for note in find_dataset("tiny").notes if "are not target, though" in note]
    assert "note: values 38" in note and "--mask-threshold 38" in note
