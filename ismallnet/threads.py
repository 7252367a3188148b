"""How OpenMP's threads wait for work, and what Ctrl-C does while a script is still being imported.
Scripts import this module first: PyTorch's OpenMP reads the environment when it is loaded. As a library
the repository leaves both alone."""

import os
import sys

# By default a thread that waits spins, for milliseconds: it takes a core from other programs, and on a
# machine that is not idle a step of training waits for it.
CALM = {"GOMP_SPINCOUNT": "10000", "KMP_BLOCKTIME": "1"}  # GNU's; LLVM's and Intel's, milliseconds

if "OMP_WAIT_POLICY" not in os.environ:
    for variable, value in CALM.items():
        os.environ.setdefault(variable, value)


def report(kind: type, error: BaseException, trace) -> None:
    """Ctrl-C before `main` begins ends a script without a traceback."""
    if issubclass(kind, KeyboardInterrupt):
        raise SystemExit(130)
    sys.__excepthook__(kind, error, trace)


sys.excepthook = report
