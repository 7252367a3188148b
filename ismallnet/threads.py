"""How OpenMP's threads wait for work. Scripts import this module first: PyTorch's OpenMP reads the
environment when it is loaded. As a library the repository leaves it alone."""

import os

# By default a thread that waits spins, for milliseconds: it takes a core from other programs, and on a
# machine that is not idle a step of training waits for it.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # GNU's
    os.environ.setdefault("KMP_BLOCKTIME", "1")  # LLVM's and Intel's, milliseconds
