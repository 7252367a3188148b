"""Which weights are meant, the network in them, and what they say of themselves."""

import os
from collections.abc import Iterable
from pathlib import Path

from ismallnet.checkpoints import WeightsError
from ismallnet.cli import DataError
from ismallnet.files import disguise
from ismallnet.inference.onnx import Exported, check_amp, to_onnx
from ismallnet.inference.own import KEPT, load_own
from ismallnet.inference.predict import Network

SHIPPED = Path(__file__).parents[2] / "weights"
DEFAULT = "NUAA-SIRST"  # for frames of other sources: RESULTS.md, "On sources that they have not seen"
MOST_BYTES = 2**31 - 1  # of an ONNX file: protobuf's own limit


def open_network(
    path: str | os.PathLike,
    backend: str = "torch",
    width: int | None = None,
    amp: str = "auto",
    own: str | None = None,
) -> Network:
    """The network of a weights file, or of an ONNX file, on a backend: the package builds networks here
    alone.

    Args:
        amp: as in `Exported`, without effect on PyTorch's, which take it at each call.
        own: FILE.py:CLASS of a network of the user's own.

    Raises:
        WeightsError: as `net.load_weights`, or an ONNX file that cannot be used.
        DataError: a package is missing, or the backend has no such precision.
    """
    from net import load_weights

    path, is_onnx = Path(path), Path(path).suffix == ".onnx"
    if backend == "torch":
        if is_onnx:
            raise WeightsError(
                f"{path}: an ONNX file; type --backend onnxruntime, or name other weights"
            )
        return load_own(path, own) if own else load_weights(path, width)
    check_amp(backend, amp)
    if not is_onnx:
        model = load_own(path, own) if own else load_weights(path, width)
        return Exported(to_onnx(model), backend, amp)
    try:
        model = Exported(read_onnx(path), backend, amp)
    except WeightsError as error:
        raise WeightsError(f"{path}: {disguise(path) or error}") from error
    if width not in (None, model.width):
        raise WeightsError(f"{path}: found a network of width {model.width}, expected width {width}")
    return model


def read_onnx(path: Path) -> bytes:
    """
    Raises:
        WeightsError: no such file, or larger than an ONNX file can be; without the path.
    """
    if not path.is_file():
        raise WeightsError(
            f"no such file; make it: python export.py --weights FILE --output {path.name}"
        )
    if (size := path.stat().st_size) > MOST_BYTES:
        raise WeightsError(f"found {size / 2**30:.1f} GiB, expected an ONNX file of at most 2 GiB")
    return path.read_bytes()


def named_weights(text: str) -> Path:
    """A weights file, or the last.pt of a run's folder."""
    path = Path(text)
    return path / "last.pt" if (path / "last.pt").is_file() else path


def default_weights() -> Path:
    """The shipped weights for frames of a source that none of them has seen."""
    return SHIPPED / f"{DEFAULT}.safetensors"


def find_weights(runs: str, datasets: list[str], name: str, training: str) -> Path:
    """The newest run on the data set `name`, or on all `datasets` together; else the weights that come
    with the repository.

    Args:
        runs: the folder of runs.
        training: the command that trains some, for the error.

    Raises:
        DataError: there are none of these.
    """
    folders = [Path(runs) / n for n in dict.fromkeys([name, "+".join(datasets)])]
    if found := [path for folder in folders for path in folder.glob("*/last.pt")]:
        return max(found, key=lambda path: path.stat().st_mtime)
    for stem in (name, DEFAULT):
        for path in (SHIPPED / f"{stem}.safetensors", SHIPPED / f"{stem}.pt"):
            if path.exists():
                return path
    raise DataError(
        f"{folders[0]}: no trained weights; train first: {training}, or name a file: --weights FILE"
    )


def describe(path: Path, model: Network) -> str:
    """One line on where weights come from; what was chosen on the test list is said."""
    info, facts = model.info, [f"width {model.width}"]
    if KEPT in info:
        facts = ["{class} of {file}".format(**info[KEPT])]
    if not info:
        facts.append("the authors' format or bare weights")
    for key in ("dataset", "recipe", "seed", "epoch") if info else ():
        value = info.get(key, "unknown")
        value = "+".join(map(str, value)) if isinstance(value, list) else value
        facts.append(f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}")
    if info.get("init"):
        facts.append("initialised from other weights")
    if info.get("step") != info.get("steps"):
        facts.append(f"unfinished: step {info.get('step')} of {info.get('steps')}")
    if info.get("selected_on", "nothing") != "nothing":
        facts.append(f"CHOSEN ON {str(info['selected_on']).upper()}")
    return f"weights {path} ({', '.join(facts)})"


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
    """Those of a data set's images, by name, that a network, or those that it was initialised from,
    learned from; None where its weights, or theirs, do not say."""
    if not isinstance(info.get("seen"), dict):
        return None
    return sorted({*names} & {*merged(info["seen"]).get(dataset, ())})
