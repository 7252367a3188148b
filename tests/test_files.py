"""Files that are whole or absent, what is cleaned up of those that are not, and encodings."""

import ast
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
    HOST,
    atomic_write,
    check_place,
    lock,
    read_json,
    sweep,
    temporary_for,
    write_csv,
    write_json,
    write_png,
)


def dead_process() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


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
    for place, message in (
        ("folder", "folder: a folder; expected the name of a file"),
        ("file/x", "file: a file; expected a folder"),
    ):
        with pytest.raises(DataError, match=message):
            check_place(Path(place))
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "folder")
    with pytest.raises(DataError, match="folder: cannot be written to; expected a folder of yours"):
        check_place(Path("folder/new/x"))


@pytest.mark.skipif(os.name != "posix", reason="asks for processes by signal 0")
def test_only_what_this_machine_s_dead_processes_left_is_removed():
    dead, alive = dead_process(), os.getpid()
    ours = Path(f".a.png.{HOST}.{dead}.tmp")
    others = [
        Path(name)
        for name in (
            ".notes.tmp",
            f".a.png.{dead}.tmp",  # another program's
            f".a.png.{HOST}x.{dead}.tmp",  # another machine's
            f".a.png.{HOST}.{alive}.tmp",  # at work
            f".a.png.{HOST}.{dead}.tmp.bak",
            f".{HOST}.{dead}.tmp",
            f"a.png.{HOST}.{dead}.tmp",
        )
    ]
    for path in (ours, *others):
        path.write_text("x")
    sweep(Path())
    assert not ours.exists() and all(path.exists() for path in others)


@pytest.mark.skipif(os.name != "posix", reason="asks for processes by signal 0")
def test_what_atomic_write_leaves_when_it_is_killed_is_swept():
    code = (
        "import os; from ismallnet.files import atomic_write\n"
        "with atomic_write('x.y.png') as file: os._exit(1)"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    subprocess.run([sys.executable, "-c", code], env=environment)
    assert len(os.listdir()) == 1
    sweep(Path())
    assert os.listdir() == []


@pytest.mark.parametrize("content", ["{damaged", "[1]", "null", b"\xff\xfe"])
def test_json_that_cannot_be_used_reads_as_nothing(content):
    Path("x.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    assert read_json(Path("x.json")) == {} == read_json(Path("none.json")) == read_json(Path())


def test_json_is_read_as_it_was_written():
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


def test_the_longest_names_can_be_written_and_swept():
    name = "n" * 251 + ".png"
    write_png(Path(name), np.zeros((4, 4), np.uint8))
    assert Path(name).exists() and len(os.listdir()) == 1
    left = temporary_for(Path(name)).name.replace(str(os.getpid()), str(dead_process()))
    Path(left).touch()
    sweep(Path())
    assert os.listdir() == [name]


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
TEXTS = ("open", "fdopen", "read_text", "write_text")


def without_encoding(source: str) -> list[str]:
    """The calls that read or write text in the encoding of the system, which may be any."""
    found = []
    for call in ast.walk(ast.parse(source)):
        if not isinstance(call, ast.Call):
            continue
        name = getattr(call.func, "attr", getattr(call.func, "id", ""))
        picture = ast.unparse(call.func).split(".")[0] in ("Image", "fits")
        modes = [str(a.value) for a in call.args[:2] if isinstance(a, ast.Constant)]
        binary = "open" in name and any("b" in mode for mode in modes)
        named = any(keyword.arg == "encoding" for keyword in call.keywords)
        if name in TEXTS and not (picture or binary or named):
            found.append(ast.unparse(call))
    return found


def test_every_text_file_is_read_and_written_as_utf_8():
    calls = "open('a'); p.read_text(); open('b', 'rb'); open('c', encoding='x')"
    assert without_encoding(calls) == ["open('a')", "p.read_text()"]
    sources = [p for p in REPOSITORY.rglob("*.py") if not {"tests", ".venv"} & {*p.parts}]
    found = {str(p): without_encoding(p.read_text(encoding="utf-8")) for p in sources}
    assert len(found) > 30 and not {p: calls for p, calls in found.items() if calls}


def test_a_training_logs_in_utf_8_whatever_the_system_s_encoding(data):
    """The log's first evaluation, which holds a dot, ended it where the locale has none."""
    environment = os.environ | {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
    data.rename(data.with_name("红外"))
    small = "--width 2 --crop 32 --batch-size 2 --epochs 1 --device cpu --run-name r"
    for script, flags in (("utils.py", ""), ("train.py", small)):
        command = [sys.executable, REPOSITORY / script, "--dataset", "红外", "--workers", "1"]
        done = subprocess.run([*command, *flags.split()], env=environment, capture_output=True)
        assert done.returncode == 0, done.stderr.decode(errors="replace")
    assert "·" in Path("runs/红外/r/log.txt").read_text(encoding="utf-8")
