"""What lies in RESULTS/NAME: whether it is finished, which network it is of, and its maps."""

from pathlib import Path

import numpy as np

from ismallnet.checkpoints import TEST_LIST
from ismallnet.cli import DataError
from ismallnet.files import read_json
from ismallnet.images import decode

UNFINISHED = "unfinished.json"  # in a folder of maps while test.py is at work there


def check_finished(maps: Path) -> None:
    """
    Raises:
        DataError: test.py was interrupted, so that the maps may be of two networks.
    """
    if (maps / UNFINISHED).exists() and not (maps / "about.json").exists():
        raise DataError(
            f"{maps}: test.py was interrupted there, or is still at work; some maps may be of an "
            "earlier call. Type its command again"
        )


def read_about(maps: Path) -> dict:
    """What test.py says of a folder of maps, less the images' names; nothing of another program's."""
    about = read_json(maps / "about.json")
    return {key: value for key, value in about.items() if key != "images"}


def read_map(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """A probability map, HxW uint8.

    Raises:
        DataError: missing, unreadable, not 8-bit grey, or of another size than its image.
    """
    if not path.exists():
        raise DataError(f"{path}: missing")
    pixels = decode(path)
    if pixels.ndim == 3 and (pixels == pixels[..., :1]).all():
        pixels = pixels[..., 0]
    if pixels.dtype != np.uint8 or pixels.ndim != 2:
        raise DataError(f"{path}: found {pixels.dtype} {pixels.shape}, expected an 8-bit grey PNG")
    if pixels.shape != shape:
        (h, w), (height, width) = pixels.shape, shape
        raise DataError(f"{path}: found {w}x{h} (width x height), expected {width}x{height}")
    return pixels


def results_folder(results: str, name: str | None, paths: list[str]) -> Path:
    """Where results of frames go: RESULTS/NAME, without a name that of the only path, or frames."""
    default = Path(paths[0]).stem if len(paths) == 1 and "*" not in paths[0] else ""
    return Path(results) / (name or (default if default not in ("", "..") else "frames"))


def chosen_on_test(maps: Path) -> bool:
    """Whether test.py says that the maps' weights were chosen on the test list."""
    return read_about(maps).get("selected_on") == TEST_LIST
