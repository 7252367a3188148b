"""What all command lines share."""

import argparse
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ismallnet.cli import DataError, Launch, command, counted, gone, launch
from ismallnet.parallel import memory_limit

REPOSITORY = Path(__file__).parents[1]
NO_COMMANDS = {"net", "dataset", "hubconf"}
NOT_AGAIN = {  # a repeated call without the flag would delete or refuse what is there
    "train": "continue with --resume",
    "detect": "type the same command with --resume",
}


@pytest.mark.parametrize("name", ["utils", "train", "test", "eval", "visualization", "detect"])
def test_an_interruption_says_what_to_type(name, monkeypatch, capsys):
    script = importlib.import_module(name)

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    for start in ("build_parser", "parse"):
        monkeypatch.setattr(script, start, interrupted, raising=False)
    with pytest.raises(SystemExit) as stop:
        script.main([])
    assert stop.value.code == 130
    assert NOT_AGAIN.get(name, "type the same command") in capsys.readouterr().err


def test_errors_of_people_have_no_traceback_and_others_do(capsys):
    @command()
    def main(argv):
        raise argv[0]

    with pytest.raises(SystemExit) as stop:
        main([DataError("a.png: found text, expected an image")])
    assert stop.value.code == 2
    assert capsys.readouterr().err == "error: a.png: found text, expected an image\n"
    with pytest.raises(ZeroDivisionError):
        main([ZeroDivisionError()])


def test_scripts_without_a_network_do_not_wait_for_torch():
    code = "import utils, eval, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY).returncode == 0


TORCHRUN = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
TORCHRUN |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


def started_with(monkeypatch, variables: dict[str, str]) -> None:
    for name in TORCHRUN:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("name", ["utils", "test", "eval", "visualization", "synthetic"])
def test_scripts_that_do_not_share_their_work_refuse_several_processes(name, monkeypatch, capsys):
    started_with(monkeypatch, TORCHRUN)
    with pytest.raises(SystemExit) as stop:
        importlib.import_module(name).main(["--dataset", "x"])
    assert stop.value.code == 2 and "found 2 processes, expected one" in capsys.readouterr().err


@pytest.mark.parametrize("live", [["--camera", "0"], ["--watch", "."]])
def test_live_frames_are_refused_by_several_processes_before_a_camera_is_opened(
    live, monkeypatch, capsys
):
    started_with(monkeypatch, TORCHRUN)
    with pytest.raises(SystemExit) as stop:
        importlib.import_module("detect").main(live)
    message = capsys.readouterr().err
    assert stop.value.code == 2 and "torchrun" in message and "could be opened" not in message


@pytest.mark.parametrize(
    "variables, expected",
    [
        ({}, Launch()),
        ({"RANK": "1", "WORLD_SIZE": ""}, Launch()),  # of another program
        ({"RANK": "1", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "4"}, Launch()),
        (TORCHRUN, Launch(1, 2, 1, 2)),
        (TORCHRUN | {"LOCAL_RANK": "", "LOCAL_WORLD_SIZE": ""}, Launch(1, 2, 0, 1)),
    ],
)
def test_what_torchrun_says_counts_where_all_of_it_is_there(variables, expected, monkeypatch):
    started_with(monkeypatch, variables)
    assert launch() == expected


@pytest.mark.parametrize(
    "variables",
    [
        {"WORLD_SIZE": "2"},
        {"WORLD_SIZE": "two"},
        TORCHRUN | {"RANK": "2"},
        TORCHRUN | {"RANK": ""},
        TORCHRUN | {"MASTER_ADDR": ""},
    ],
)
def test_several_processes_without_torchrun_are_refused_in_one_line(variables, monkeypatch, capsys):
    started_with(monkeypatch, variables)
    with pytest.raises(SystemExit) as stop:
        command(several=True)(lambda argv: 0)([])
    message = capsys.readouterr().err
    assert stop.value.code == 2 and message.count("\n") == 1
    assert all(name in message for name in ("RANK", "WORLD_SIZE", "torchrun"))


def test_a_containers_limit_counts(monkeypatch):
    monkeypatch.setattr(Path, "read_text", lambda self, encoding: "1048576\n")
    assert memory_limit() == 2**20
    monkeypatch.setattr(Path, "read_text", lambda self, encoding: "max\n")
    assert memory_limit() > 2**28


def test_a_flag_that_went_is_refused_with_what_to_type(capsys):
    parser = argparse.ArgumentParser()
    gone(parser, "--tiles", "type --tile")
    assert vars(parser.parse_args([])) == {} and "--tiles" not in parser.format_help()
    with pytest.raises(SystemExit) as stop:
        parser.parse_args(["--tiles", "3"])
    assert stop.value.code == 2 and "type --tile" in capsys.readouterr().err


@pytest.mark.parametrize("name", sorted({p.stem for p in REPOSITORY.glob("*.py")} - NO_COMMANDS))
def test_help_without_docstrings(name, capsys):
    """PYTHONOPTIMIZE=2 takes them out."""
    script = {"__name__": name}
    source = (REPOSITORY / f"{name}.py").read_text(encoding="utf-8")
    exec(compile(source, name, "exec", optimize=2), script)
    with pytest.raises(SystemExit) as stop:
        script["main"](["--help"])
    text = capsys.readouterr().out
    assert not stop.value.code and "usage: " in text
    assert not re.search(r"default:\s+(\[|None)", text)  # no lists of Python's


def test_one_of_a_thing_is_no_plural():
    assert [counted(n, "frame") for n in (0, 1, 2)] == ["0 frames", "1 frame", "2 frames"]
