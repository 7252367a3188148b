"""Files of data sets that tests make."""

from pathlib import Path

from conftest import picture, target_mask, write


def names(data, split: str) -> list[str]:
    return [sample.name for sample in data.lists[split]]


def image(root: Path, folder: str, name: str, ending=".png") -> None:
    write(root / folder / f"{name}{ending}", picture())


def mask(root: Path, folder: str, name: str) -> None:
    write(root / folder / f"{name}.png", target_mask())
