"""Frames as tables of numbers: what is no number, and what a camera's program writes around them."""

from pathlib import Path

import numpy as np
import pytest
from conftest import write

from ismallnet.cli import DataError
from ismallnet.images.arrays import read_csv

TABLE = np.random.default_rng(0).integers(7000, 9000, (9, 12))
LINES = [",".join(map(str, row)) for row in TABLE]


@pytest.fixture(autouse=True)
def _first_notes(monkeypatch):
    monkeypatch.setattr("ismallnet.cli._noted", set())


def table_of(lines: list[str], encoding: str = "utf-8") -> np.ndarray:
    Path("t.csv").write_text("\n".join(lines), encoding=encoding)
    return read_csv(Path("t.csv"))


def test_tables_of_numbers():
    write(Path("t.csv"), "\ufefffile;x\nmean;3\n1,5;2,5\n3,5;4,5\n")
    assert read_csv(Path("t.csv")).tolist() == [[1.5, 2.5], [3.5, 4.5]]
    for text in ("a,b\nno,numbers\n", "1\n2\n3\n", "", "1,2\n"):
        write(Path("t.csv"), text)
        with pytest.raises(ValueError, match="no table"):
            read_csv(Path("t.csv"))


@pytest.mark.parametrize("mark", [",", ", ", ";", "; ", "\t", " ", "   "])
def test_what_stands_between_the_numbers(mark):
    assert np.array_equal(table_of([line.replace(",", mark) for line in LINES]), TABLE)
    if mark.strip() != ",":  # then it is the decimal sign
        lines = [line.replace(",", f",5{mark}") + ",5" for line in LINES]
        assert np.array_equal(table_of(lines), TABLE + 0.5)
    lines = [line.replace(",", mark) + mark for line in LINES]
    assert np.array_equal(table_of(lines), TABLE)


def test_what_stands_around_the_table():
    around = ["File,a.jpg", "Emissivity,0.95", "Distance;1,0", "12,9", "", *LINES, "", "Max,35.2", "ok"]
    assert np.array_equal(table_of(around), TABLE)
    assert np.array_equal(table_of(LINES, "utf-16"), TABLE)
    assert np.array_equal(table_of([text for line in LINES for text in (line, "")]), TABLE)


@pytest.mark.parametrize("cell", ["", "--", "n/a", "#REF!", "nan"])
@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_a_cell_without_a_number_is_a_pixel_without_one(cell, mark, capsys):
    """The whole row was left out, and all targets below it moved up."""
    expected = TABLE.astype(np.float32)
    expected[[3, 3, 8], [0, 4, 11]] = np.nan
    cells = [line.split(",") for line in LINES]
    cells[3][0] = cells[3][4] = cells[8][11] = cell
    found = table_of([mark.join(row) for row in cells])
    assert np.array_equal(found, expected, equal_nan=True)
    said = capsys.readouterr().err
    assert "t.csv: 3 cells hold no number, the first in line 4, number 1 of 12" in said


@pytest.mark.parametrize(("line", "length"), [(4, 5), (4, 13), (8, 5), (8, 1)])
def test_a_row_of_another_length_is_an_error(line, length):
    """It was left out; of a file that was cut off all rows but the last were."""
    lines = LINES.copy()
    lines[line] = ",".join((lines[line] + ",7").split(",")[:length])
    with pytest.raises(DataError, match=f"line {line + 1} has {length} cells, others have 12"):
        table_of(lines)


def test_row_and_column_numbers_are_no_pixels(capsys):
    assert np.array_equal(table_of([",".join(map(str, range(12))), *LINES]), TABLE)
    assert "t.csv: the first row counts from 0; left out" in capsys.readouterr().err
    numbered = [f"{k},{line}" for k, line in enumerate(LINES, start=1)]
    for mark in (",", "\t"):  # as pandas writes it
        lines = [mark.join(["", *map(str, range(12))]), *(x.replace(",", mark) for x in numbered)]
        assert np.array_equal(table_of(lines), TABLE)
    assert "t.csv: the first column counts from 1; left out" in capsys.readouterr().err
