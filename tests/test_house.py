"""The rules of the house: what may import what, and that other people's modules do not get in."""

import ast
import graphlib
import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ismallnet.inference.weights import SHIPPED

REPOSITORY = Path(__file__).parent.parent
PACKAGE = REPOSITORY / "ismallnet"
ROOT = {path.stem for path in REPOSITORY.glob("*.py")}
FOUNDATION = {"net", "dataset"}  # the package may import these two of the root
MODULES = {
    ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__"): path
    for path in [*PACKAGE.rglob("*.py"), *REPOSITORY.glob("*.py")]
}


def typing_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def statements(node: ast.AST, everywhere: bool) -> list[ast.AST]:
    """The statements of a module; without `everywhere` those that run when it is imported."""
    found = []
    for child in ast.iter_child_nodes(node):
        if typing_only(child) or (not everywhere and isinstance(child, (ast.FunctionDef, ast.Lambda))):
            continue
        found += [child, *statements(child, everywhere)]
    return found


def imports(path: Path, everywhere: bool = True) -> set[str]:
    """The modules of this repository that a file imports; in functions, too, if `everywhere`."""
    found = set()
    for node in statements(ast.parse(path.read_text(encoding="utf-8")), everywhere):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found & set(MODULES)


def test_at_most_twelve_files_are_at_the_root():
    assert len(ROOT) <= 12, sorted(ROOT)


def test_importing_the_package_runs_nothing():
    assert (PACKAGE / "__init__.py").read_text() == ""


@pytest.mark.parametrize("name", sorted(set(MODULES) - ROOT))
def test_the_package_imports_no_script(name):
    scripts = ROOT - FOUNDATION
    assert not imports(MODULES[name]) & scripts


@pytest.mark.parametrize("name", sorted(ROOT))
def test_scripts_do_not_import_each_other(name):
    """Stages meet on disk."""
    assert not imports(MODULES[name]) & (ROOT - FOUNDATION)


def test_no_import_leads_back_to_where_it_began():
    graph = {name: imports(path, everywhere=False) - {name} for name, path in MODULES.items()}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError


def test_the_tests_of_this_file_see_what_they_forbid(tmp_path):
    file = tmp_path / "x.py"
    file.write_text("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import net\n")
    assert imports(file) == set()
    file.write_text("def f():\n    import train\n\nfrom ismallnet import cli\n")
    assert imports(file) == {"train", "ismallnet", "ismallnet.cli"}
    assert imports(file, everywhere=False) == {"ismallnet", "ismallnet.cli"}


@pytest.mark.parametrize("name", sorted(ROOT - FOUNDATION - {"hubconf"}))
def test_help_shows_no_python_lists(name):
    module = importlib.import_module(name)
    if not hasattr(module, "build_parser"):
        pytest.skip("no command line")
    text = " ".join(module.build_parser().format_help().split())
    assert not re.search(r"default: (\[|None)", text)


# --- beside other people's files -------------------------------------------------------------------


@pytest.fixture
def elsewhere(tmp_path) -> Path:
    """A folder with modules of a stranger that have the names of ours."""
    for name in ("metrics", "utils", "images", "dataset", "cli", "weights", "files", "inference"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a stranger was imported')\n")
    return tmp_path


def run(code: str, folder: Path) -> dict:
    """Runs a program in a folder, which is first on its path; returns what it printed, JSON."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    program = [sys.executable, "-c", code]
    done = subprocess.run(program, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_the_detector_beside_a_stranger_s_modules(elsewhere):
    code = f"""
import sys
assert sys.path[0] == ""
sys.path.append({str(REPOSITORY)!r})
import json
import numpy as np
from detect import Detector
detector = Detector.from_weights(device="cpu")
print(json.dumps(len(detector.detect(np.zeros((32, 48), np.uint16)))))
"""
    assert run(code, elsewhere) >= 0


def test_torch_hub_from_another_folder(elsewhere):
    code = f"""
import json, sys
import numpy as np, torch
repository = {str(REPOSITORY)!r}
network = torch.hub.load(repository, "ismallnet", weights="joint", source="local")
detector = torch.hub.load(
    repository, "detector", weights="NUAA-SIRST", device="cpu", threshold=0.7, source="local"
)
assert repository not in sys.path
image = torch.full((1, 3, 32, 48), 100.0)
with torch.inference_mode():
    shapes = [list(logits.shape) for logits in network(network.normalise(image))]
targets = detector.detect(np.zeros((32, 48), np.uint8))
print(json.dumps([network.training, network.mean.tolist(), shapes, detector.settings.threshold]))
"""
    training, mean, shapes, threshold = run(code, elsewhere)
    assert not training and shapes == 3 * [[1, 1, 32, 48]] and threshold == 0.7
    from net import load_weights

    assert mean == load_weights(SHIPPED / "joint.safetensors").mean.tolist()


def test_torch_hub_with_a_weights_file_of_one_s_own(elsewhere):
    code = f"""
import json, shutil, torch
shutil.copy({str(SHIPPED / "NUDT-SIRST.safetensors")!r}, "mine.safetensors")
network = torch.hub.load({str(REPOSITORY)!r}, "ismallnet", "mine.safetensors", source="local")
print(json.dumps(network.info["dataset"]))
"""
    assert run(code, elsewhere) == ["NUDT-SIRST"]
