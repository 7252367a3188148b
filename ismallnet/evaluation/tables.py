"""Metrics as people read them: headings, units, tables as text."""

import shutil
import sys
from collections.abc import Callable, Mapping
from functools import partial
from statistics import mean, stdev

# Headings, in the order of the columns.
NAMES = {"iou": "IoU", "niou": "nIoU", "pd": "Pd", "fa": "Fa·1e6", "hiou": "hIoU"}
NAMES |= {"precision": "precision", "recall": "recall", "f1": "F1", "target_precision": "target P"}
NAMES |= {"target_f1": "target F1", "md": "MD·1e6", "auc": "AUC"}
# The two factors of hIoU, and where the rest of each is lost: docs/METRICS.md.
SEGMENTATION = {"seg_iou": "seg IoU", "seg_mrg_err": "merged", "seg_itf_err": "interference"}
SEGMENTATION |= {"seg_pcp_err": "missed px"}
LOCALISATION = {"loc_iou": "loc IoU", "loc_itf_err": "false components"}
LOCALISATION |= {"loc_pcp_err": "missed targets", "loc_m2s_err": "wrong: extra component"}
LOCALISATION |= {"loc_s2m_err": "wrong: shared component"}
MILLIONTHS = ("fa", "md")


def spread(runs: list[dict]) -> dict[str, tuple[float, float] | None]:
    """Mean and standard deviation (of a sample, n - 1) of each metric over two or more runs; None
    where a run has none. Intervals, which are of one run, are left out."""
    values = {key: [run[key] for run in runs] for key in runs[0] if key != "interval"}
    return {key: None if None in of else (mean(of), stdev(of)) for key, of in values.items()}


def text_of(
    key: str, value: float | tuple[float, float] | None, interval=None, signed: bool = False
) -> str:
    """A metric as people read it: fractions in %, Fa and MD in 1e-6, undefined ones n/a.

    Args:
        value: a pair is mean ± standard deviation.
        interval: its (low, high), which follows in brackets.
        signed: a plus where it is not negative, for differences.
    """
    if value is None:
        return "n/a"
    if isinstance(value, tuple):
        return " ± ".join(text_of(key, number) for number in value)
    text = f"{(1e6 if key in MILLIONTHS else 100) * value:{'+' if signed else ''}.2f}"
    if interval is None:
        return text
    low, high = (text_of(key, end, signed=signed) for end in interval)
    return f"{text} ({low} to {high})" if signed else f"{text} ({low}–{high})"


def one_line(metrics: dict) -> str:
    """IoU 71.23 nIoU 70.10 Pd 95.06 Fa·1e6 12.10, as people read it."""
    return " ".join(f"{NAMES[k]} {text_of(k, metrics[k])}" for k in ("iou", "niou", "pd", "fa"))


def lay_out(cells: list[list[str]], width: int | None = None) -> str:
    """Rows of cells as text, each column as wide as its widest cell; columns that do not fit beside
    the others follow below, with the first column again.

    Args:
        width: in characters; by default the terminal's, in a file no limit.
    """
    width = width or (shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize)
    first, *others = [[c.rjust(max(map(len, column))) for c in column] for column in zip(*cells)]
    blocks = [[first]]
    for column in others:
        if len(blocks[-1]) > 1 and sum(2 + len(c[0]) for c in (*blocks[-1], column)) > width + 2:
            blocks.append([first])
        blocks[-1].append(column)
    return "\n\n".join("\n".join("  ".join(row) for row in zip(*block)) for block in blocks)


def cell_of(key: str, metrics: dict, interval: bool = True) -> str:
    """The text of a metric, with its 95 % interval where there is one."""
    return text_of(key, metrics[key], metrics.get("interval", {}).get(key) if interval else None)


def cells_of(
    names: Mapping[str, str], rows: dict[str, dict], cell: Callable[..., str] = cell_of
) -> list[list[str]]:
    """Rows of metrics as text, below the headings `names` of those that at least one row has; "-" where
    a row does not have one. `cell` gives the text of a metric from its key and its row."""
    keys = [key for key in names if any(key in row for row in rows.values())]
    cells = [["", *(names[key] for key in keys)]]
    for name, row in rows.items():
        cells.append([name, *(cell(key, row) if key in row else "-" for key in keys)])
    return cells


def table(rows: dict[str, dict], interval: bool = False) -> str:
    """Metrics of several protocols or sets side by side, as text. Below them the error split, of those
    that have one.

    Args:
        interval: also the 95 % intervals, of the metrics that have one.
    """
    cell = partial(cell_of, interval=interval)
    text = lay_out(cells_of(NAMES, rows, cell))
    if split := {name: metrics for name, metrics in rows.items() if "seg_iou" in metrics}:
        text += "\n\nhIoU = seg IoU × loc IoU; what each lacks to 100, by cause:\n"
        text += lay_out(cells_of(SEGMENTATION | LOCALISATION, split, cell))
    return text


def difference_table(rows: dict[str, dict]) -> str:
    """Differences between runs, with their intervals, as text: by the runs' names, of each metric its
    `intervals.Difference`; None where it is not defined."""

    def cell(key: str, row: dict) -> str:
        if (gap := row[key]) is None:
            return "n/a"
        text = text_of(key, gap.value, (gap.low, gap.high), signed=True)
        return f"{text} {'*' if gap.certain else ' '}"

    return (
        "differences between runs, and their 95 % intervals over the choice of images (paired);\n"
        f"*: the interval does not hold 0\n{lay_out(cells_of(NAMES, rows, cell))}"
    )
