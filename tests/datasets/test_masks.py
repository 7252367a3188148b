"""What mask values mean: of one file, and decided once for a data set."""

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
from ismallnet.datasets.masks import decide, read_mask, read_mask_values
from ismallnet.datasets.sample import Sample
from train import main as train
from utils import main as utils

ON = target_mask() > 0


def sample(pixels, name="m.png") -> Sample:
    """A sample whose mask file holds these pixels."""
    if isinstance(pixels, Image.Image):
        pixels.save(name)
    elif name.endswith("tif"):
        tifffile.imwrite(name, pixels)
    else:
        write(Path(name), pixels)
    return Sample("m", Path(name), Path(name))


def masks(make, suffix="png") -> Path:
    """data/tiny with the masks that `make` gives for 0, 1, 2, 3."""
    root = make_set(Path("data/tiny"))
    for k, name in enumerate("abcd"):
        (root / f"masks/{name}.png").unlink()
        sample(make(k), f"{root}/masks/{name}.{suffix}")
    return root


def read(data) -> list[np.ndarray]:
    return [read_mask(s, ON.shape) for part in ("train", "test") for s in data.samples(part)]


def palette(colours, on=ON) -> Image.Image:
    image = Image.fromarray(on.astype(np.uint8), "P")
    if colours:
        image.putpalette(colours)
    return image


def alpha(on=ON) -> np.ndarray:
    return np.dstack([np.full((*on.shape, 3), 255, np.uint8), on.astype(np.uint8) * 255])


# --- one file --------------------------------------------------------------------------------------


def test_thresholds():
    one = sample(np.array([[0, 64, 127, 128, 255]], np.uint8))
    assert read_mask(one, (1, 5)).tolist() == [[0, 0, 0, 255, 255]]
    assert read_mask(one, (1, 5), 64).tolist() == [[0, 255, 255, 255, 255]]
    one = sample(np.where(ON, 32896, 32895).astype(np.uint16))
    assert (read_mask(one, ON.shape) == ON * 255).all()


def test_float_masks():
    one = sample(np.array([[-0.5, 0, 0.4, 1, np.nan]], np.float32), "m.tif")
    assert read_mask_values(one, (1, 5)).tolist() == [[0, 0, 102, 255, 0]]
    one = sample(np.array([[-3, 0, 127.9, 128, 255]], np.float32), "m.tif")
    assert read_mask_values(one, (1, 5)).tolist() == [[0, 0, 127, 128, 255]]


def test_a_mask_of_another_size_is_resized_by_opencv_s_nearest():
    large = np.zeros((400, 592), np.uint8)
    large[207:217, 260:275] = 255
    expected = cv2.resize(large, (325, 220), interpolation=cv2.INTER_NEAREST)
    assert (read_mask(sample(large), (220, 325)) == expected).all() and expected.any()
    with pytest.raises(DataError, match=r"592x400.*300x220.*EXIF orientation"):
        read_mask(sample(large), (220, 300))


def test_a_mask_is_resized_before_its_values_are_looked_at():
    pixels = np.zeros((40, 40), np.uint8)
    pixels[10:14, 10:14] = 1
    pixels[1, 1] = 200  # between the pixels that nearest neighbour takes
    assert read_mask_values(sample(pixels), pixels.shape).max() == 200
    small = read_mask_values(sample(pixels), (20, 20))
    assert small.sum() == 4 * 255 and (small[5:7, 5:7] == 255).all()


# --- a data set ------------------------------------------------------------------------------------

FORMS = {
    "0/1": lambda k: ON.astype(np.uint8),
    "0/1 and 0/2": lambda k: ON.astype(np.uint8) * (1 + k % 2),
    "0/38": lambda k: ON.astype(np.uint8) * 38,
    "instances": lambda k: ON.astype(np.uint8) * (k + 1),
    "16-bit 0/255": lambda k: ON.astype(np.uint16) * 255,
    "16-bit 0/65535": lambda k: ON.astype(np.uint16) * 65535,
    "16-bit instances": lambda k: ON.astype(np.uint16) * (k + 1),
    "palette": lambda k: palette([0, 0, 0, 200, 0, 0]),
    "dark palette": lambda k: palette([0, 0, 0, 0, 0, 60]),
    "grey palette": lambda k: palette([0, 0, 0, 255, 255, 255]),
    "black palette": lambda k: palette([]),
    "dark colours": lambda k: np.dstack([ON * 0, ON * 0, ON * 40]).astype(np.uint8),
    "red": lambda k: np.dstack([ON * 0, ON * 0, ON * 255]).astype(np.uint8),
    "alpha": lambda k: alpha(),
    "opaque": lambda k: np.dstack([ON * 200] * 3 + [np.full(ON.shape, 255)]).astype(np.uint8),
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_masks_of_a_whole_set(form):
    masks(FORMS[form])
    assert all((mask == ON * 255).all() for mask in read(find_dataset("tiny")))


@pytest.mark.parametrize(
    ("kind", "top"), [(np.int32, 3), (np.int32, 255), (np.float32, 1), (np.float32, 255)]
)
def test_forms_of_tiff_masks(kind, top):
    masks(lambda k: ON.astype(kind) * kind(top), "tif")
    assert all((mask == ON * 255).all() for mask in read(find_dataset("tiny")))


def test_an_alpha_mask_without_a_target_is_empty():
    masks(lambda k: alpha(ON & (k != 1)))
    assert [bool(mask.any()) for mask in read(find_dataset("tiny"))] == [True, False, True, True]


def test_one_rule_for_all_masks_of_a_set():
    """One mask reaches 255, so that a 1 elsewhere is a grey value, not a class."""
    masks(lambda k: (ON * (255 if k == 0 else 1)).astype(np.uint8))
    data = find_dataset("tiny")
    assert [mask.any() for mask in read(data)] == [True, False, False, False]
    assert data.targets == {"train": int(ON.sum()), "test": 0}
    (note,) = [note for note in data.notes if "--mask-threshold" in note]
    assert note.startswith("note: 3 masks") and "b.png, c.png" in note


def test_soft_masks_are_named_and_the_threshold_is_the_persons():
    masks(lambda k: (ON * (90 + 20 * k)).astype(np.uint8))
    data = find_dataset("tiny")
    assert [bool(mask.any()) for mask in read(data)] == [False, False, True, True]
    notes = "\n".join(data.notes)
    assert "a.png, b.png" in notes
    assert "note: 2 masks are not binary: c.png, d.png" in notes
    data = find_dataset("tiny", mask_threshold=100)
    assert data.targets["train"] == int(ON.sum())
    assert "target from 100 up" in data.notes[0]


def test_the_values_that_are_printed():
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
    masks(lambda k: (ON * 0).astype(np.uint8))
    message = fails(train, "--dataset", "tiny", "--run-name", "x", capsys=capsys)
    assert "no training mask holds a target pixel" in message
    assert "mask values 0; no mask holds a target" in find_dataset("tiny").notes
    for name in "cd":
        write(Path("results/tiny") / f"{name}.png", np.zeros(ON.shape, np.uint8))
    evaluate(["--dataset", "tiny", "--workers", "1"])
    assert "no mask of the test list holds a target pixel" in capsys.readouterr().out


def test_label_maps_are_made_again_where_the_masks_are_read_otherwise():
    root = masks(lambda k: ON.astype(np.uint8) * 2)
    utils(["--dataset", "tiny", "--workers", "1"])
    assert cv2.imread(str(root / "interior/b.png"), 0).max() == 255
    write(root / "masks/a.png", ON.astype(np.uint8) * 255)  # now a 2 is a dark grey
    utils(["--dataset", "tiny", "--workers", "1"])
    assert cv2.imread(str(root / "interior/b.png"), 0).max() == 0
