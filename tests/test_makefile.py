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


@pytest.fixture
def folder(tmp_path) -> Path:
    """A virtual environment that was made with PYTHON, newer than the requirements."""
    shutil.copy(MAKEFILE, "Makefile")
    interpreter(".venv/bin/python", PYTHON)
    interpreter("same", PYTHON)
    interpreter("other", "/usr/bin/python3.12 3.12")
    Path("requirements.txt").touch()
    os.utime("requirements.txt", (0, 0))
    Path(".venv/run").write_text(PYTHON + "\n")
    return tmp_path


def would_run(*argv: str) -> list[str]:
    """The commands of `make .venv/run`, or none."""
    ours = ("PYTHON", "MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES")  # of `make test`
    environment = {key: value for key, value in os.environ.items() if key not in ours}
    done = subprocess.run(
        ["make", "-n", ".venv/run", *argv], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.splitlines() if not line.startswith("make:")]


def makes(commands: list[str]) -> list[str]:
    return [line for line in commands if "-m venv" in line]


def test_what_is_there_and_works_is_kept(folder):
    assert would_run() == [] == would_run("PYTHON=./same")
    Path(".venv/run").write_text("")  # the stamp of an earlier Makefile
    assert would_run() == []


def test_another_interpreter_makes_it_again(folder):
    assert makes(would_run("PYTHON=./other")) == ["./other -m venv --clear .venv"]
    assert makes(would_run("PYTHON=./none")) == ["./none -m venv --clear .venv"]  # and says so


def test_another_version_in_the_same_place_makes_it_again(folder):
    interpreter(".venv/bin/python", "/usr/bin/python3.11 3.12")
    assert makes(would_run()) == ["python3 -m venv --clear .venv"]


def test_an_interpreter_that_is_gone_makes_it_again(folder):
    Path(".venv/bin/python").unlink()
    assert makes(would_run()) == ["python3 -m venv --clear .venv"]
    shutil.rmtree(".venv")
    assert makes(would_run()) == ["python3 -m venv --clear .venv"]


def test_new_requirements_are_installed_into_it(folder):
    os.utime(".venv/run", (0, 0))
    Path("requirements.txt").touch()
    commands = would_run()
    assert not makes(commands) and any("pip install" in line for line in commands)
