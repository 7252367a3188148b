"""Inference: weights and a data set's test images -> probability maps and the standard figures.

    python test.py --dataset NUAA-SIRST

Writes RESULTS/NAME/X.png, round(255·p) at the image's own size, images.csv with each image's counts,
and about.json, which says what weights the maps came from.
"""

import argparse
import csv
import hashlib
import io
import sys
from collections import Counter
from pathlib import Path

import cv2
import torch

from cli import DataError, HelpFormatter, atomic_write, command, progress, write_json
from dataset import Frames, add_data_arguments, open_datasets
from inference import infer, pick_device
from layouts import DatasetFolder
from metrics import UNIT, count_standard, figures_standard, table
from net import WeightsError, iSmallNet, load_weights

SHIPPED = Path(__file__).parent / "weights"


def find_weights(args: argparse.Namespace, name: str) -> Path:
    """--weights; else the newest run on this data set (or on all that were named); else the
    weights that come with the repository.

    Raises:
        DataError: there are none of these.
    """
    if args.weights:
        path = Path(args.weights)
        return path / "last.pt" if (path / "last.pt").is_file() else path
    folders = [Path(args.runs) / n for n in dict.fromkeys([name, "+".join(args.dataset)])]
    runs = [path for folder in folders for path in folder.glob("*/last.pt")]
    if runs:
        return max(runs, key=lambda path: path.stat().st_mtime)
    for path in (
        SHIPPED / f"{stem}{end}" for stem in (name, "joint") for end in (".safetensors", ".pt")
    ):
        if path.exists():
            return path
    raise DataError(
        f"{folders[0]}: found no trained weights; train first: python train.py --dataset {name}, or "
        "name a file: --weights FILE"
    )


def describe(path: Path, model: iSmallNet) -> str:
    """One line on where weights come from; what was chosen on the test list is said."""
    info = model.info
    parts = [f"width {model.width}"]
    if not info:
        return f"weights {path} (width {model.width}, the authors' format or bare weights)"
    for key in ("dataset", "recipe", "seed", "epoch"):
        value = info.get(key, "unknown")
        value = "+".join(map(str, value)) if isinstance(value, list) else value
        parts.append(f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}")
    if info.get("step") != info.get("steps"):
        parts.append(f"unfinished: step {info.get('step')} of {info.get('steps')}")
    if info.get("selected_on", "nothing") != "nothing":
        parts.append(f"CHOSEN ON {str(info['selected_on']).upper()}")
    return f"weights {path} ({', '.join(parts)})"


def predict_dataset(
    model: iSmallNet, data: DatasetFolder, folder: Path, args: argparse.Namespace
) -> dict[str, float | int | None]:
    """Writes the maps and images.csv of a test list; returns its standard figures."""
    frames = Frames(data, "test", args.mask_threshold, args.range)
    total, rows = Counter(), []
    bar = progress((), f"{data.name} test", len(frames))
    for i, pred, planes in infer(model, frames, args.batch_size, args.amp, args.resize):
        name = frames.samples[i].name
        with atomic_write(folder / f"{name}.png") as file:
            file.write(cv2.imencode(".png", pred)[1].tobytes())
        counts = count_standard(pred, planes[..., 0])
        total.update(counts)
        iou = f"{counts['image_iou'] / UNIT:.6f}"
        rows.append((i, [name, iou, *(counts[k] for k in ("targets", "matched", "false_pixels"))]))
        bar.update()
    bar.close()
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow(["image", "iou", "targets", "matched", "false_pixels"])
    out.writerows(row for _, row in sorted(rows))
    with atomic_write(folder / "images.csv") as file:
        file.write(text.getvalue().encode())
    return figures_standard(total)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0],
        formatter_class=HelpFormatter,
    )
    add_data_arguments(parser)
    add = parser.add_argument
    add("--weights", metavar="FILE", help="default: the newest run in RUNS/NAME, else weights/NAME.*")
    add("--width", type=int, help="that the weights must have; default: any")
    add("--results", default="results", metavar="DIR", help="maps go to DIR/NAME")
    add("--runs", default="runs", metavar="DIR", help="where runs are kept")
    add("--batch-size", type=int, default=1, metavar="N", help="images of equal padded size together")
    add("--resize", type=int, metavar="PX", help="run at PX x PX, as the authors do at 352")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, …")
    add("--amp", choices=("auto", "bf16", "fp16", "off"), default="auto", help="mixed precision")
    return parser


@command(WeightsError)
def main(argv: list[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    if args.batch_size < 1 or (args.resize is not None and args.resize < 1):
        raise DataError("expected --batch-size and --resize of 1 or more")
    figures = {}
    for data in open_datasets(args):
        path = find_weights(args, data.name)
        model = load_weights(path, args.width)
        print(describe(path, model))
        device = pick_device(args.device)
        folder = Path(args.results) / data.name
        (folder / "about.json").unlink(missing_ok=True)  # until all maps are of these weights
        model = model.to(device, memory_format=torch.channels_last)
        figures[data.name] = predict_dataset(model, data, folder, args)
        about = {
            "weights": str(path),
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "selected_on": model.info.get("selected_on", "unknown"),
            "resize": args.resize,
            "images": [s.name for s in data.samples("test")],
        }
        write_json(folder / "about.json", about)
        print(f"maps, images.csv: {folder}")
    print(table(figures))


if __name__ == "__main__":
    sys.exit(main())
