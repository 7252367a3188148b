"""The tests do not depend on how they were started."""

import os
import signal
import subprocess
import sys

import pytest
from conftest import pytest_configure

HEARS = "import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_ctrl_c_is_heard_here_and_in_children_also_where_it_was_ignored():
    """As after `nohup bash -c 'make test' &`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pytest_configure()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert subprocess.check_output([sys.executable, "-c", HEARS], text=True).strip() == "True"
