"""When make makes the virtual environment again: dry runs, interpreters that only say who they are."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

MAKEFILE = Path(__file__).parent.parent / "Makefile"
PYTHON = "/usr/bin/python3.11 3.11"

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="no make here")


def interpreter(path: str, identity: str) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(f"#!/bin/sh\necho '{identity}'\n")
    Path(path).chmod(0o755)


@pytest.fixture(autouse=True)
def _environment():
    """A virtual environment that was made with PYTHON, newer than the requirements."""
    shutil.copy(MAKEFILE, "Makefile")
    interpreter(".venv/bin/python", PYTHON)
    interpreter("same", PYTHON)
    interpreter("other", "/usr/bin/python3.12 3.12")
    Path("requirements.txt").touch()
    os.utime("requirements.txt", (0, 0))
    Path(".venv/run").write_text(PYTHON + "\n")


def would_run(*argv: str) -> list[str]:
    """The commands of `make .venv/run` that make an environment or install into it, or none."""
    ours = ("PYTHON", "MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES")  # of `make test`
    environment = {key: value for key, value in os.environ.items() if key not in ours}
    command = ["make", "-n", ".venv/run", *argv]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if not line.startswith("make:")]
    assert not lines or any("pip install" in line for line in lines)
    return [line for line in lines if "-m venv" in line] if lines else ["nothing"]


def test_what_is_there_and_works_is_kept():
    assert would_run() == ["nothing"] == would_run("PYTHON=./same")
    Path(".venv/run").write_text("")  # the stamp of an earlier Makefile
    assert would_run() == ["nothing"]
    Path("requirements.txt").touch()
    os.utime(".venv/run", (0, 0))  # new requirements are installed into it
    assert would_run() == []


def test_another_interpreter_makes_it_again():
    assert would_run("PYTHON=./other") == ["./other -m venv --clear .venv"]
    assert would_run("PYTHON=./none") == ["./none -m venv --clear .venv"]  # and says so
    interpreter(".venv/bin/python", "/usr/bin/python3.11 3.12")  # another version in the same place
    assert would_run() == ["python3 -m venv --clear .venv"]


def test_an_interpreter_that_is_gone_makes_it_again():
    Path(".venv/bin/python").unlink()
    assert would_run() == ["python3 -m venv --clear .venv"]
    shutil.rmtree(".venv")
    assert would_run() == ["python3 -m venv --clear .venv"]
