"""Checkpoint files: written whole or not at all, read without executing anything from them."""

import contextlib
import io
import json
import os
import re
import warnings
import zipfile
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from ismallnet.cli import UserError, some
from ismallnet.files import atomic_write, disguise

# Under these names programs keep a state dict in a checkpoint.
WRAPPINGS = (
    *("state_dict", "model_state_dict", "model_state", "model", "network", "net", "module"),
    *("params", "weights"),
)
# The authors' letters for the streams: "b" is the interior ("body"), "d" the boundary ("detail").
STREAMS = {"b": "interior", "d": "boundary"}
# The authors' normalisation of 0-255 images; their checkpoints carry none, so these go with them.
AUTHORS_MEAN = (124.55, 118.90, 102.94)
AUTHORS_STD = (56.77, 55.97, 57.50)
# The authors' names -> ours.
AUTHORS_NAMES = [
    (r"([bd])bkbone\.conv(\d_\d)\.", r"{stream}.nodes.\2."),
    (r"decoder([bd])1\.conv(\d_\d)\.", r"{stream}.nodes.\2."),
    (r"decoder([bd])2\.conv0_4_final\.0\.", r"{stream}.aggregate."),
    (r"decoder([bd])2\.conv0_(\d)_1x1\.", r"{stream}.lateral.\2."),
    (r"decoder3\.conv_final\.0\.", r"fusion.aggregate."),
    (r"decoder3\.conv(\d)_1x1\.", r"fusion.lateral.\1."),
    (r"linear([bd])\.", r"{stream}_head."),
    (r"linear\.", r"mask_head."),
]
# The name of the first convolution, ours or the authors', and what is before it.
FIRST = re.compile(
    r"(.*?)(?:(?:(?:interior|boundary|single)\.nodes\.|[bd]bkbone\.conv)0_0\.0\.conv1"
    r"|plain\.encoder\.0\.0)\.weight"
)
PARAMETERS = 10_000  # of any variant, at least, in squares of the width
SAVE = "in the program that made it type torch.save(model.state_dict(), 'weights.pt')"


class WeightsError(UserError):
    """A weights file that cannot be read, or holds another network; the message says which."""


def save_checkpoint(checkpoint: dict, path: Path) -> None:
    """Writes a checkpoint, whole or not at all; a full disk is an OSError, the old file stays."""
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    with atomic_write(path, sync=True) as file:
        file.write(buffer.getbuffer())


def save_weights(state: dict[str, Tensor], info: dict, path: Path) -> None:
    """Writes weights alone as safetensors, with `info` in the header: fp16, but for what has at most
    one dimension (biases, batch norm and its statistics, normalisation)."""
    small = {k: (v.half() if v.ndim > 1 else v).contiguous() for k, v in state.items()}
    with atomic_write(path) as file:
        file.write(save(small, {"format": "pt", "info": json.dumps(info)}))


# --- reading ---------------------------------------------------------------------------------------


def read_checkpoint(path: str | os.PathLike) -> dict:
    """Reads a checkpoint file without executing anything from it.

    Raises:
        WeightsError: no such file, not a checkpoint, or one that holds more than tensors, numbers and
            texts.
    """
    path = Path(path)
    if path.is_dir():
        raise WeightsError(f"{path}: a folder, expected a weights file; runs keep theirs in last.pt")
    if not path.is_file():
        raise WeightsError(f"{path}: no such weights file; train first: python train.py --help")
    check_archive(path)
    try:
        if path.suffix == ".safetensors":
            return read_safetensors(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of other protocols of pickle, of TorchScript
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen types here, from EOFError to UnpicklingError
        raise WeightsError(
            f"{path}: not a readable checkpoint ({reason(path, str(error))}); expected a file written "
            f"by train.py or the authors' weights. Nothing in it was executed. Or {SAVE}"
        ) from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: found a {type(content).__name__}, expected a state dict")
    return content


def read_safetensors(path: Path) -> dict:
    with safe_open(path, "pt") as file:
        info = json.loads((file.metadata() or {}).get("info", "{}"))
        return {"state_dict": {k: file.get_tensor(k) for k in file.keys()}, "info": info}  # noqa: SIM118


def check_archive(path: Path) -> None:
    """WeightsError where an entry of torch.save's archive is compressed, which may become a thousand
    times as large, or damaged: torch looks at neither."""
    with contextlib.suppress(zipfile.BadZipFile), zipfile.ZipFile(path) as archive:  # or another kind
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise WeightsError(f"{path}: found compressed entries (TorchScript); {SAVE}")
        if damaged := archive.testzip():
            raise WeightsError(f"{path}: damaged: {damaged}; copy it again")


def reason(path: Path, error: str) -> str:
    """Why a file cannot be read; torch's own text ends in advice on how to run the file after all."""
    if path.suffix == ".onnx":
        return "an ONNX file"
    if named := re.search(r"(?:GLOBAL|global|class) `?([\w.]+)`? ", error):
        return f"it holds Python objects, {named[1]}, and to read these may run code"
    if "zip" in (what := disguise(path)):  # as torch.save's files are
        return "cut off, so copy it again; or an archive, so unpack it"
    return what or "damaged, or another program's file"


# --- the network in it -----------------------------------------------------------------------------


def network_tensors(path: str | os.PathLike) -> tuple[dict[str, Tensor], dict]:
    """The tensors of our network in a file, under our names, and what the file says of itself; out of
    wrappings (`state_dict`, `model`, …) and without what is before the names (`module.`, `_orig_mod.`).

    Raises:
        WeightsError: unreadable, another network, or several.
    """
    checkpoint = read_checkpoint(path)
    refuse_own(path, checkpoint)
    state = unwrapped(checkpoint)
    state = {k: v for k, v in state.items() if isinstance(k, str) and isinstance(v, Tensor)}
    state = without_prefix(path, {key.replace("_orig_mod.", ""): v for key, v in state.items()})
    if any(key.startswith("bbkbone.") for key in state):
        state = from_authors(state)
    info = checkpoint.get("info")
    return state, info if isinstance(info, dict) else {}


def refuse_own(path: str | os.PathLike, checkpoint: dict) -> None:
    """WeightsError where they are of a network of the user's own, in a file that has to be named."""
    info = checkpoint.get("info")
    if isinstance(own := isinstance(info, dict) and info.get("network"), dict):
        raise WeightsError(
            f"{path}: weights of the network {own.get('class')} in {own.get('file')}; train.py, "
            f"test.py and export.py run it with --network {own.get('file')}:{own.get('class')}"
        )


def unwrapped(checkpoint: dict) -> dict:
    """The state dict in a checkpoint, out of the first of the wrappings in use."""
    state = checkpoint
    for _ in range(4):  # one in another, at most so deep
        state = next((state[name] for name in WRAPPINGS if isinstance(state.get(name), dict)), state)
    return state


def without_prefix(path: str | os.PathLike, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the network in a state dict, without what is before their names.

    Raises:
        WeightsError: another network, several, or tensors that are larger than the file.
    """
    prefixes = sorted({m[1] for key, v in state.items() if v.ndim == 4 and (m := FIRST.match(key))})
    if len(prefixes) != 1:
        networks = " and ".join(f"the network {prefix}" for prefix in prefixes)
        names = networks or ", ".join(list(state)[:3]) or "no tensors"
        raise WeightsError(
            f"{path}: not iSmallNet weights: found {names}, expected one network's tensors; name "
            f"another file, or {SAVE}"
        )
    ours = {k.removeprefix(prefixes[0]): v for k, v in state.items() if k.startswith(prefixes[0])}
    claimed, size = sum(v.numel() * v.element_size() for v in ours.values()), os.path.getsize(path)
    if claimed > size:  # one number may stand for a whole tensor
        raise WeightsError(f"{path}: damaged: its tensors claim {claimed} bytes, the file has {size}")
    return ours


def width_of(path: str | os.PathLike, state: dict[str, Tensor], expected: int | None = None) -> int:
    """The width of the network whose tensors these are.

    Raises:
        WeightsError: it is another one than expected, or too wide for what is in the file.
    """
    sizes = (v.shape[0] for k, v in state.items() if FIRST.match(k) and v.ndim == 4)
    head = state.get("mask_head.0.weight")  # the first convolution of a plain U-Net is wider
    width = next(sizes) if head is None else head.shape[0]
    if expected not in (None, width):
        raise WeightsError(
            f"{path}: found a network of width {width}, expected width {expected}; type --width "
            f"{width} or name other weights"
        )
    if (count := sum(v.numel() for v in state.values())) < PARAMETERS * width**2:
        raise WeightsError(f"{path}: found {count} numbers, a network of width {width} has more")
    return width


def variant_of(state: dict[str, Tensor]) -> str:
    """Which of net.VARIANTS a state dict holds, told by its names."""
    parts = {key.split(".")[0] for key in state}
    streams = parts & {"single", "plain", *STREAMS.values()}
    if len(streams) == 1:
        return streams.pop()
    if not any(".nodes.0_1." in key for key in state):
        return "unet"
    return "full" if "fusion" in parts else "sum"


def check_tensors(
    path: str | os.PathLike, state: dict[str, Tensor], expected: dict[str, Tensor]
) -> None:
    """WeightsError where tensors are missing, unknown, of other shapes, or not finite."""
    wrong = [f"{k} is missing" for k in expected if k not in state]
    for key, value in state.items():
        if key not in expected:
            wrong.append(f"{key} is not part of the network")
        elif value.shape != expected[key].shape:
            shapes = tuple(value.shape), tuple(expected[key].shape)
            wrong.append(f"{key}: found {shapes[0]}, expected {shapes[1]}")
    if wrong:
        raise WeightsError(f"{path}: not iSmallNet weights: {some(wrong)}")
    bad = [k for k, v in state.items() if v.is_floating_point() and not v.isfinite().all()]
    if bad:
        raise WeightsError(f"{path}: values that are not finite in {bad[0]} ({len(bad)} tensors)")


def from_authors(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The authors' checkpoint under our names, with their normalisation. Their fusion runs g0 through
    `decoder3.conv1_1x1` and never uses `decoder3.conv0_1x1`, so the former goes to both places: the
    result is their network to the last digit."""
    renamed = {}
    for key, value in state.items():
        for pattern, ours in AUTHORS_NAMES:
            if match := re.match(pattern, key):
                stream = STREAMS.get(match[1]) if match.re.groups else None
                key = match.expand(ours).format(stream=stream) + key[match.end() :]
                break
        renamed[key] = value
    for part in ("weight", "bias"):
        if f"fusion.lateral.1.{part}" in renamed:
            renamed[f"fusion.lateral.0.{part}"] = renamed[f"fusion.lateral.1.{part}"]
    return renamed | {"mean": torch.tensor(AUTHORS_MEAN), "std": torch.tensor(AUTHORS_STD)}
