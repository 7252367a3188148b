"""Figures as people read them: headings, units, tables as text."""

from collections.abc import Iterable, Mapping
from statistics import mean, stdev

NAMES = {  # headings
    **{"iou": "IoU", "niou": "nIoU", "pd": "Pd", "fa": "Fa·1e6", "hiou": "hIoU"},
    **{"precision": "precision", "recall": "recall", "f1": "F1"},
    **{"target_precision": "target P", "target_f1": "target F1", "md": "MD·1e6", "auc": "AUC"},
}
SEGMENTATION = {  # the two factors of hIoU, and where the rest of each is lost: docs/METRICS.md
    **{"seg_iou": "seg IoU", "seg_mrg_err": "merged", "seg_itf_err": "interference"},
    **{"seg_pcp_err": "missed px"},
}
LOCALISATION = {
    **{"loc_iou": "loc IoU", "loc_itf_err": "false components", "loc_pcp_err": "missed targets"},
    **{"loc_m2s_err": "wrong: extra component", "loc_s2m_err": "wrong: shared component"},
}
MILLIONTHS = ("fa", "md")


def spread(runs: list[dict]) -> dict[str, tuple[float, float] | None]:
    """Mean and standard deviation (of a sample, n - 1) of each figure over two or more runs; None
    where a run has none. Intervals, which are of one run, are left out."""
    keys = [key for key, value in runs[0].items() if not isinstance(value, dict)]
    values = {key: [figures[key] for figures in runs] for key in keys}
    return {
        key: None if None in found else (mean(found), stdev(found)) for key, found in values.items()
    }


def shown(
    key: str, value: float | tuple[float, float] | None, interval=None, signed: bool = False
) -> str:
    """A figure as people read it: fractions in %, Fa and MD in 1e-6, undefined ones n/a.

    Args:
        value: a pair is mean ± standard deviation.
        interval: its (low, high), which follows in brackets.
        signed: a plus where it is not negative, for differences.
    """
    if value is None:
        return "n/a"
    if isinstance(value, tuple):
        return " ± ".join(shown(key, part) for part in value)
    text = f"{(1e6 if key in MILLIONTHS else 100) * value:{'+' if signed else ''}.2f}"
    if interval is None:
        return text
    low, high = (shown(key, end, signed=signed) for end in interval)
    return f"{text} ({low} to {high})" if signed else f"{text} ({low}–{high})"


def summary(figures: dict) -> str:
    """IoU 71.23 nIoU 70.10 Pd 95.06 Fa·1e6 12.10, as people read it."""
    return " ".join(f"{NAMES[k]} {shown(k, figures[k])}" for k in ("iou", "niou", "pd", "fa"))


def columns(names: Mapping[str, str], figures: Iterable[dict]) -> list[str]:
    """Those of the named figures that at least one row has, in order."""
    rows = list(figures)
    return [key for key in names if any(key in row for row in rows)]


def lay_out(cells: list[list[str]]) -> str:
    """Rows of cells as text, each column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*cells)]
    return "\n".join("  ".join(c.rjust(w) for c, w in zip(row, widths)) for row in cells)


def table(rows: dict[str, dict], interval: bool = False) -> str:
    """Figures of several protocols or sets side by side, as text; "-" where one does not define it.
    Below them the error split, of those that have one.

    Args:
        interval: also the 95 % intervals, of the figures that have one.
    """

    def cell(key: str, figures: dict) -> str:
        ends = figures.get("interval", {}).get(key) if interval else None
        return shown(key, figures[key], ends) if key in figures else "-"

    def block(names: Mapping[str, str], part: dict[str, dict]) -> str:
        keys = columns(names, part.values())
        head = ["", *(names[key] for key in keys)]
        return lay_out([head, *([name, *(cell(k, row) for k in keys)] for name, row in part.items())])

    text = block(NAMES, rows)
    if split := {name: figures for name, figures in rows.items() if "seg_iou" in figures}:
        text += "\n\nhIoU = seg IoU × loc IoU; what each lacks to 100, by cause:\n"
        text += block(SEGMENTATION | LOCALISATION, split)
    return text


def difference_table(rows: dict[str, dict]) -> str:
    """Differences between runs, with their intervals, as text.

    Args:
        rows: by the runs' names, of each figure its `intervals.Difference`; None where it is not
            defined.
    """
    keys = columns(NAMES, rows.values())

    def cell(key: str, row: dict) -> str:
        if key not in row or row[key] is None:
            return "n/a" if key in row else "-"
        found = row[key]
        mark = " *" if found.certain else "  "
        return shown(key, found.value, (found.low, found.high), signed=True) + mark

    cells = [["", *(f"{NAMES[key]}  " for key in keys)]]
    cells += [[name, *(cell(key, row) for key in keys)] for name, row in rows.items()]
    return (
        "differences between runs, and their 95 % intervals over the choice of images (paired);\n"
        f"*: the interval does not hold 0\n{lay_out(cells)}"
    )
