"""The learning curves of runs, as a figure. Nothing else is written.

    python docs/curves.py runs/NUAA-SIRST/long runs/NUDT-SIRST/long

Left: the loss of each output, a running mean over 2 % of the run. Right: IoU of each output on 16 fixed
training crops, by the moving average of the weights.
"""

import argparse
import json
import re
import sys
from pathlib import Path

import numpy as np
from tensorboardX import proto

sys.path.insert(0, str(Path(__file__).parent.parent))
from ismallnet.cli import HelpFormatter, UserError, command
from ismallnet.report.paper_figures import pyplot, save
from net import OUTPUTS

SHARE = 0.02  # of a run's steps, averaged
COLOURS = dict(zip(OUTPUTS, ("tab:green", "tab:orange", "tab:blue")))


def begun(path: Path) -> tuple[int, int]:
    """When a file of events was begun: by its name, in seconds, as copies have other times; then by its
    own time."""
    number = re.search(r"tfevents\.(\d+)", path.name)
    return int(number[1]) if number else 0, path.stat().st_mtime_ns


def read_scalar(folder: Path | str, name: str) -> list[tuple[int, float]]:
    """(step, value) of a scalar in a run's folder, as TensorBoard shows them: a file takes the place of
    all that earlier ones hold from its first step on."""
    values = []
    for path in sorted(Path(folder).glob("events*"), key=begun):
        raw = memoryview(path.read_bytes())
        while raw:  # records: 8 bytes length, 4 checksum, the event, 4 checksum
            size = int.from_bytes(raw[:8], "little")
            if len(raw) < 16 + size:  # cut off by a kill: TensorBoard, too, leaves the file there
                break
            event = proto.event_pb2.Event.FromString(raw[12 : 12 + size])
            raw = raw[16 + size :]
            if event.session_log.status == proto.event_pb2.SessionLog.START:
                values = [(step, value) for step, value in values if step < event.step]
            values += [(event.step, v.simple_value) for v in event.summary.value if v.tag == name]
    return values


def read_curve(folder: Path, name: str) -> np.ndarray:
    """Steps and values, 2xN."""
    pairs = read_scalar(folder, name)
    if not pairs:
        raise UserError(
            f"{folder}: found no values of {name} in TensorBoard files (events*); expected the folder "
            "of a run, as train.py writes it: runs/NAME/RUN"
        )
    return np.transpose(pairs)


def smooth(curve: np.ndarray, share: float = SHARE) -> np.ndarray:
    """The mean of each `share` of the curve's points, 2xM: neighbouring means overlap."""
    width = max(1, round(share * curve.shape[1]))
    return np.array([np.convolve(row, np.full(width, 1 / width), "valid") for row in curve])


def mark_larger_crops(folder: Path, panel, steps: int) -> None:
    """A line where the last, larger crops begin, if a run has them."""
    args = json.loads((folder / "config.json").read_text(encoding="utf-8"))["args"]
    if last_crop := args.get("last_crop"):
        panel.axvline((1 - args["last_share"]) * steps, color="grey", linestyle="--")
        panel.set_xlabel(f"step; crops of {last_crop} px from the dashed line on")


def draw(folders: list[Path], path: Path) -> None:
    """A row a run."""
    shape = {"figsize": (9, 2.6 * len(folders)), "squeeze": False, "layout": "constrained"}
    figure, rows = pyplot().subplots(len(folders), 2, **shape)
    for folder, (left, right) in zip(folders, rows):
        for output, colour in COLOURS.items():
            left.plot(*smooth(read_curve(folder, f"loss/{output}")), label=output, color=colour)
            steps, iou = read_curve(folder, f"outputs/{output}_IoU")
            right.plot(steps, 100 * iou, ".-", label=output, color=colour)
        title = f"{folder.parent.name}, run {folder.name}: loss"
        left.set(ylabel="loss", xlabel="step", title=title, yscale="log")
        for set_formatter in (left.yaxis.set_major_formatter, left.yaxis.set_minor_formatter):
            set_formatter("{x:g}")
        right.set(ylabel="IoU, %", xlabel="step", title="IoU on training crops", ylim=(0, 100))
        for panel in (left, right):
            panel.grid(alpha=0.3)
            mark_larger_crops(folder, panel, steps[-1])
        right.legend(loc="lower right")
    save(figure, path.with_suffix(""), ("png",), dpi=120)


@command()
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folders of runs")
    parser.add_argument("--output", default="docs/curves.png", metavar="FILE", help="the figure, PNG")
    args = parser.parse_args(argv)
    draw(args.runs, Path(args.output))


if __name__ == "__main__":
    main()
