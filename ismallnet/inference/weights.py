"""Which weights are meant, the network in them, and what they say of themselves."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from ismallnet.checkpoints import WeightsError
from ismallnet.files import disguise
from ismallnet.inference.onnx import BACKENDS, Exported, check_amp, to_onnx
from ismallnet.inference.own import KEPT, load_own
from ismallnet.inference.predict import AMP, Network

SHIPPED = Path(__file__).parents[2] / "weights"
DEFAULT = "frames"  # for frames of other sources: RESULTS.md, "On sources that they have not seen"


def add_network_arguments(add: Callable, weights: str) -> None:
    """The flags of the scripts that run a network on images; `weights` says which are the default."""
    add("--weights", metavar="FILE", help=f"default: {weights}")
    add("--flips", action="store_true", help="mean over the image and its three mirror images")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, …")
    add("--backend", choices=BACKENDS, default="torch", help="others: optional packages, on the CPU")
    amp = "mixed precision; auto: on CUDA, off on the CPU; beside --backend openvino: bf16 or off"
    add("--amp", choices=AMP, default="auto", help=amp)


def open_network(
    path: str | os.PathLike,
    backend: str = "torch",
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
            raise WeightsError(f"{path}: an ONNX file; type --backend onnxruntime, or other weights")
        return load_own(path, own) if own else load_weights(path)
    check_amp(backend, amp)
    if not is_onnx:
        model = load_own(path, own) if own else load_weights(path)
        return Exported(to_onnx(model), backend, amp)
    try:
        return Exported(path.read_bytes(), backend, amp)
    except WeightsError as error:
        raise WeightsError(f"{path}: {disguise(path) or error}") from error


def named_weights(text: str) -> Path:
    """A weights file, the last.pt of a run's folder, or a shipped file by its name."""
    path = Path(text)
    names = (path, path / "last.pt", SHIPPED / f"{text}.safetensors")
    return next((name for name in names if name.is_file()), path)


def default_weights() -> Path:
    """The shipped weights for frames of a source that none of them has seen."""
    return SHIPPED / f"{DEFAULT}.safetensors"


def find_weights(runs: str, datasets: list[str], name: str) -> Path:
    """The newest run in the folder `runs` on the data set `name`, or on all `datasets` together; else
    the weights that come with the repository."""
    folders = [Path(runs) / n for n in dict.fromkeys([name, "+".join(datasets)])]
    if found := [path for folder in folders for path in folder.glob("*/last.pt")]:
        return max(found, key=lambda path: path.stat().st_mtime)
    shipped = SHIPPED / f"{name}.safetensors"
    return shipped if shipped.exists() else default_weights()


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


def merged_names(*sources: dict[str, list[str]] | None) -> dict[str, list[str]]:
    """Names of images by data set, of several such dictionaries."""
    names: dict[str, set[str]] = {}
    for source in sources:
        for dataset, images in (source or {}).items():
            names.setdefault(dataset, set()).update(images)
    return {dataset: sorted(images) for dataset, images in names.items()}


def seen_of(info: dict, dataset: str, names: Iterable[str]) -> list[str] | None:
    """Those of a data set's images, by name, that a network, or those that it was initialised from,
    learned from; None where its weights, or theirs, do not say."""
    if not isinstance(info.get("seen"), dict):
        return None
    return sorted({*names} & {*info["seen"].get(dataset, ())})
