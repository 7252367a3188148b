"""What scripts set before anything else is imported, and the library does not."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
SCRIPTS = sorted(path for path in REPOSITORY.glob("*.py") if "__main__" in path.read_text())
NAMES = ("GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_WAIT_POLICY")


def environment_after(code: str, **given: str) -> dict[str, str]:
    """Those of NAMES that are set when a program has run."""
    environment = {key: value for key, value in os.environ.items() if key not in NAMES} | given
    command = [sys.executable, "-c", f"{code}\nimport json, os\nprint(json.dumps(dict(os.environ)))"]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    after = json.loads(done.stdout.splitlines()[-1])
    return {name: after[name] for name in NAMES if name in after}


def test_scripts_set_it_before_anything_else_and_only_as_scripts():
    for path in SCRIPTS:
        first = ast.parse(path.read_text()).body[1]  # after the docstring
        assert ast.unparse(first) == "if __name__ == '__main__':\n    import ismallnet.threads", path
    sources = [p for p in REPOSITORY.rglob("*.py") if ".venv" not in p.parts]
    importing = [p for p in sources if "ismallnet.threads" in p.read_text(encoding="utf-8")]
    assert {p.name for p in importing} == {p.name for p in SCRIPTS} | {"test_threads.py"}


@pytest.mark.parametrize(
    "given, expected",
    [
        ({}, {"GOMP_SPINCOUNT": "10000", "KMP_BLOCKTIME": "1"}),
        ({"GOMP_SPINCOUNT": "7"}, {"GOMP_SPINCOUNT": "7", "KMP_BLOCKTIME": "1"}),
        ({"OMP_WAIT_POLICY": "active"}, {"OMP_WAIT_POLICY": "active"}),
    ],
)
def test_what_a_person_has_set_stays(given, expected):
    assert environment_after("import ismallnet.threads", **given) == expected
