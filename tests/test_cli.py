"""What all command lines share."""

import argparse
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from ismallnet.cli import DataError, command, gone
from ismallnet.parallel import memory_limit

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


@pytest.mark.parametrize("name", ["utils", "eval"])
def test_scripts_without_a_network_do_not_wait_for_torch(name):
    code = f"import {name}, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1]).returncode == 0


@pytest.mark.parametrize("name", ["utils", "test", "eval", "visualization", "synthetic"])
def test_scripts_that_do_not_share_their_work_refuse_several_processes(name, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SystemExit) as stop:
        importlib.import_module(name).main(["--dataset", "x"])
    assert stop.value.code == 2 and "found 2 processes, expected one" in capsys.readouterr().err


def test_a_containers_limit_counts(monkeypatch):
    monkeypatch.setattr(Path, "read_text", lambda self: "1048576\n")
    assert memory_limit() == 2**20
    monkeypatch.setattr(Path, "read_text", lambda self: "max\n")
    assert memory_limit() > 2**28


def test_a_flag_that_went_is_refused_with_what_to_type(capsys):
    parser = argparse.ArgumentParser()
    gone(parser, "--tiles", "type --tile")
    assert vars(parser.parse_args([])) == {} and "--tiles" not in parser.format_help()
    with pytest.raises(SystemExit) as stop:
        parser.parse_args(["--tiles", "3"])
    assert stop.value.code == 2 and "type --tile" in capsys.readouterr().err
