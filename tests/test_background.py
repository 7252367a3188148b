"""The tests do not depend on how they were started."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
HEARS = "import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")


def test_ctrl_c_is_heard_here_and_in_children():
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert subprocess.check_output([sys.executable, "-c", HEARS], text=True).strip() == "True"


@pytest.mark.parametrize("options", [[], ["-n", "1"]])
def test_they_pass_where_sigint_is_ignored(options):
    """As after `nohup bash -c 'make test' &`."""
    if options:
        pytest.importorskip("xdist")
    ignoring = ["sh", "-c", 'trap \'\' INT; exec "$0" "$@"', sys.executable]
    assert subprocess.check_output([*ignoring, "-c", HEARS], text=True).strip() == "False"
    chosen = [
        f"{TESTS}/training/test_processes.py",
        f"{TESTS}/test_background.py",
        "-k",
        "sigterm or ctrl_c",
    ]
    argv = [*ignoring, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, *chosen]
    done = subprocess.run(argv, cwd=TESTS.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
