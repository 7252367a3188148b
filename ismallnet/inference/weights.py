"""Which weights are meant, and what they say of themselves."""

import argparse
from collections.abc import Iterable
from pathlib import Path

import torch

from ismallnet.cli import DataError
from ismallnet.inference.onnx import Exported
from ismallnet.inference.predict import prepared
from net import iSmallNet

SHIPPED = Path(__file__).parents[2] / "weights"
DEFAULT = "NUAA-SIRST"  # for frames of other sources: RESULTS.md, "On sources that they have not seen"


def named_weights(text: str) -> Path:
    """A weights file, or the last.pt of a run's folder."""
    path = Path(text)
    return path / "last.pt" if (path / "last.pt").is_file() else path


def default_weights() -> Path:
    """The shipped weights for frames of a source that none of them has seen."""
    return SHIPPED / f"{DEFAULT}.safetensors"


def find_weights(args: argparse.Namespace, name: str, training: str) -> Path:
    """--weights; else the newest run on this data set (or on all that were named); else the
    weights that come with the repository.

    Args:
        training: the command that trains some, for the error.

    Raises:
        DataError: there are none of these.
    """
    if args.weights:
        return named_weights(args.weights)
    folders = [Path(args.runs) / n for n in dict.fromkeys([name, "+".join(args.dataset)])]
    runs = [path for folder in folders for path in folder.glob("*/last.pt")]
    if runs:
        return max(runs, key=lambda path: path.stat().st_mtime)
    for path in (
        SHIPPED / f"{stem}{end}" for stem in (name, DEFAULT) for end in (".safetensors", ".pt")
    ):
        if path.exists():
            return path
    raise DataError(
        f"{folders[0]}: found no trained weights; train first: {training}, or "
        "name a file: --weights FILE"
    )


def describe(path: Path, model: iSmallNet | Exported) -> str:
    """One line on where weights come from; what was chosen on the test list is said."""
    info = model.info
    parts = [f"width {model.width}"]
    if not info:
        return f"weights {path} (width {model.width}, the authors' format or bare weights)"
    for key in ("dataset", "recipe", "seed", "epoch"):
        value = info.get(key, "unknown")
        value = "+".join(map(str, value)) if isinstance(value, list) else value
        parts.append(f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}")
    if info.get("init"):
        parts.append("initialised from other weights")
    if info.get("teacher"):
        parts.append(f"distilled from {info['teacher'].get('file', 'another network')}")
    if info.get("step") != info.get("steps"):
        parts.append(f"unfinished: step {info.get('step')} of {info.get('steps')}")
    if info.get("selected_on", "nothing") != "nothing":
        parts.append(f"CHOSEN ON {str(info['selected_on']).upper()}")
    return f"weights {path} ({', '.join(parts)})"


def merged(*sources: object) -> dict[str, list[str]]:
    """Names of images by data set, of several such dictionaries; a weights file's `seen` may be
    anything."""
    names: dict[str, set[str]] = {}
    for source in sources:
        for dataset, images in source.items() if isinstance(source, dict) else ():
            if isinstance(images, list):
                names.setdefault(dataset, set()).update(n for n in images if isinstance(n, str))
    return {dataset: sorted(images) for dataset, images in names.items()}


def seen_of(info: dict, dataset: str, names: Iterable[str]) -> list[str] | None:
    """Those of a data set's images, by name, that a network, or those that it was initialised or
    distilled from, learned from; None where its weights, or theirs, do not say."""
    if not isinstance(info.get("seen"), dict):
        return None
    return sorted({*names} & {*merged(info["seen"]).get(dataset, ())})


def on_device(model: iSmallNet | Exported, device: torch.device) -> iSmallNet | Exported:
    """PyTorch's networks on a device; those of other backends stay where they are."""
    if isinstance(model, Exported):
        return model
    return prepared(model, device)
