"""Files of data sets that tests make."""

from pathlib import Path

import cv2
from conftest import picture, target_mask, write

PICTURES = [cv2.imencode(".png", pixels)[1].tobytes() for pixels in (picture(), target_mask())]


def names(data, split: str) -> list[str]:
    return [sample.name for sample in data.lists[split]]


def image(root: Path, folder: str, *stems: str) -> None:
    for stem in stems:
        write(root / folder / f"{stem}.png", PICTURES[0])


def mask(root: Path, folder: str, *stems: str) -> None:
    for stem in stems:
        write(root / folder / f"{stem}.png", PICTURES[1])


def pairs(root: Path, images: str, masks: str, *stems: str) -> None:
    image(root, images, *stems)
    mask(root, masks, *stems)
