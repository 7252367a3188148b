"""Files that are whole or absent, what is cleaned up of those that are not, and encodings."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from ismallnet.cli import DataError
from ismallnet.files import (
    atomic_write,
    check_place,
    lock,
    read_json,
    sweep,
    write_csv,
    write_json,
    write_png,
)


def test_a_file_is_written_whole_or_not_at_all():
    with atomic_write("folder/x") as file:
        file.write(b"first")
    with pytest.raises(ZeroDivisionError), atomic_write("folder/x") as file:
        file.write(b"second")
        raise ZeroDivisionError
    assert Path("folder/x").read_bytes() == b"first" and len(os.listdir("folder")) == 1


def test_an_error_of_the_disk_names_the_file_that_it_was_written_for():
    with pytest.raises(OSError) as full, atomic_write("folder/x") as file:
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert full.value.filename == "folder/x" and not os.listdir("folder")
    with pytest.raises(OSError) as other, atomic_write("folder/x"):
        Path("not there").read_bytes()
    assert other.value.filename == "not there"


def test_a_place_that_cannot_be_written_to_is_named(monkeypatch):
    Path("file").write_bytes(b"")
    Path("folder").mkdir()
    check_place(Path("folder/new/x"))
    for place in ("folder", "file/x"):
        with pytest.raises(DataError, match=f"^{place}: "):
            check_place(Path(place))
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "folder")
    with pytest.raises(DataError, match=r"folder/x: .*yours"):
        check_place(Path("folder/x"))


def test_only_what_dead_processes_left_is_removed():
    """Of a file with the longest name, too."""
    name = "n" * 251 + ".png"
    code = (
        "import os; from ismallnet.files import atomic_write\n"
        f"with atomic_write({name!r}) as file: os._exit(1)"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment)
    process.wait()
    (left,) = os.listdir()
    others = [".notes.tmp", f".a.png.{process.pid}.tmp", f"{left}.bak", left.removeprefix(".")]
    for path in others:
        Path(path).write_text("x")
    sweep(Path())
    assert sorted(os.listdir()) == sorted(others)


@pytest.mark.parametrize("content", ["{damaged", "[1]", "null", b"\xff\xfe"])
def test_json_that_cannot_be_used_reads_as_nothing(content):
    Path("x.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    assert read_json(Path("x.json")) == {} == read_json(Path("none.json")) == read_json(Path())
    write_json(Path("f/x.json"), {"a": [1, None]})
    assert read_json(Path("f/x.json")) == {"a": [1, None]}


def test_a_table_by_hand():
    write_csv(Path("f/x.csv"), ["image", "iou"], [["a,b", None], ["f\udcff", 0.5]])
    assert Path("f/x.csv").read_bytes() == b'image,iou\n"a,b",\nf\\udcff,0.5\n'


def test_pictures_are_rgb():
    pixels = np.zeros((2, 3, 3), np.uint8)
    pixels[..., 0] = 200
    assert write_png(Path("f/x.png"), pixels) == Path("f/x.png").stat().st_size
    assert cv2.imread("f/x.png")[0, 0].tolist() == [0, 0, 200]
    write_png(Path("f/x.png"), pixels[..., 0])
    assert cv2.imread("f/x.png", cv2.IMREAD_UNCHANGED).shape == (2, 3)


def test_two_programs_do_not_write_to_one_folder(monkeypatch):
    monkeypatch.setattr("ismallnet.files.LOCK_SECONDS", 0.1)
    with lock(Path("results/a"), "a detection is running"):
        with lock(Path("results/b"), "a detection is running"):
            pass
        with (
            pytest.raises(DataError, match="results/a: a detection is running"),
            lock(Path("results/a"), "a detection is running"),
        ):
            pass
    with lock(Path("results/a"), "a detection is running"):
        pass


# --- the encoding of texts -------------------------------------------------------------------------

REPOSITORY = Path(__file__).parents[1]


def test_a_training_logs_in_utf_8_whatever_the_system_s_encoding(data):
    """The log's first evaluation, which holds a dot, ended it where the locale has none."""
    environment = os.environ | {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
    data.rename(data.with_name("红外"))
    flags = "--width 2 --variant plain --crop 32 --batch-size 2 --epochs 1 --device cpu --run-name r"
    command = [sys.executable, REPOSITORY / "train.py", "--dataset", "红外", *flags.split()]
    done = subprocess.run([*command, "--workers", "1"], env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    assert "·" in Path("runs/红外/r/log.txt").read_text(encoding="utf-8")
