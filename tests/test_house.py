"""The rules of the house: what may import what, and that other people's modules do not get in.

All imports count, also those within functions and under TYPE_CHECKING.
"""

import ast
import graphlib
import json
import os
import subprocess
import sys
from pathlib import Path

from ismallnet.inference.weights import SHIPPED
from net import load_weights

REPOSITORY = Path(__file__).parent.parent
PACKAGE = REPOSITORY / "ismallnet"
ROOT = {path.stem for path in REPOSITORY.glob("*.py")}
FOUNDATION = {"net", "dataset"}  # the scripts of the root that others may import
ORDER = (  # the package, lowest first: each imports only what stands above it
    *("threads", "cli", "parallel", "files", "distributed", "unet", "checkpoints", "images"),
    *("datasets", "evaluation", "labels", "arguments", "inference", "baselines", "training"),
    *("detection", "report"),
)
BUILDS_NETWORKS = "ismallnet.inference.weights"  # of the package, this alone may import `net`
MOST_LEVELS, MOST_ROOMS, MOST_SCRIPTS = 10, 32, 12
MODULES = {
    ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__"): path
    for path in [*PACKAGE.rglob("*.py"), *REPOSITORY.glob("*.py")]
}


def imports(path: Path) -> set[str]:
    """The modules of this repository that a file imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            inner = {f"{node.module}.{alias.name}" for alias in node.names} & set(MODULES)
            names |= inner or {node.module}
    return names & set(MODULES)


def room(module: str) -> str:
    """A script of the root; or a wing of the package, or a file right in it."""
    return module.split(".")[1] if module.startswith("ismallnet.") else module


def allowed(importer: str, imported: str) -> bool:
    if importer in ROOT:
        return imported not in ROOT - FOUNDATION  # stages meet on disk
    if imported in ROOT:
        return importer == BUILDS_NETWORKS and imported == "net"
    lower, upper = room(imported), room(importer)
    if lower == upper:
        return True
    return {lower, upper} <= set(ORDER) and ORDER.index(lower) < ORDER.index(upper)


ARROWS = sorted((name, other) for name, path in MODULES.items() for other in imports(path) - {name})


def graph_of(arrows: list[tuple[str, str]]) -> dict[str, set[str]]:
    graph: dict[str, set[str]] = {}
    for importer, imported in arrows:
        graph.setdefault(importer, set()).add(imported)
    return graph


def test_imports_lead_upwards_alone_and_never_back():
    assert not [arrow for arrow in ARROWS if not allowed(*arrow)]
    graphlib.TopologicalSorter(graph_of(ARROWS)).prepare()  # raises where there is a circle


def test_imports_have_few_levels():
    """A room stands one level above the highest of those that it imports."""
    rooms = {(room(importer), room(imported)) for importer, imported in ARROWS}
    graph = graph_of([(upper, lower) for upper, lower in rooms if upper != lower])
    levels: dict[str, int] = {}
    for name in graphlib.TopologicalSorter(graph).static_order():
        levels[name] = 1 + max((levels[lower] for lower in graph.get(name, ())), default=0)
    assert max(levels.values()) <= MOST_LEVELS, sorted(levels.items(), key=lambda item: item[1])


def test_the_house_has_few_rooms():
    rooms = {room(name) for name in MODULES} - {"ismallnet"}
    assert len(rooms) <= MOST_ROOMS and rooms - ROOT <= set(ORDER), sorted(rooms - ROOT - set(ORDER))
    assert len(ROOT) <= MOST_SCRIPTS, sorted(ROOT)


def test_importing_the_package_runs_nothing():
    assert not any(path.read_text() for path in PACKAGE.rglob("__init__.py"))


def test_the_tests_of_this_file_see_what_they_forbid(tmp_path):
    (tmp_path / "x.py").write_text("def f():\n    import train\nif 0:\n    from ismallnet import cli\n")
    assert imports(tmp_path / "x.py") == {"train", "ismallnet.cli"}
    assert allowed("ismallnet.files", "ismallnet.cli")
    assert not allowed("ismallnet.cli", "ismallnet.files")
    assert not allowed("train", "test") and not allowed("ismallnet.inference.predict", "net")


# --- beside other people's files -------------------------------------------------------------------


def run(code: str, folder: Path) -> dict:
    """Runs a program in a folder, which is first on its path; returns what it printed, JSON."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    program = [sys.executable, "-c", code]
    done = subprocess.run(program, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_the_detector_beside_a_stranger_s_modules(tmp_path):
    for name in ("metrics", "utils", "images", "dataset", "cli", "weights", "files", "inference"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a stranger was imported')\n")
    code = f"""
import json, sys
assert sys.path[0] == ""
sys.path.append({str(REPOSITORY)!r})
import numpy as np
from detect import Detector
detector = Detector.from_weights(device="cpu")
print(json.dumps(len(detector.detect(np.zeros((32, 48), np.uint16)))))
"""
    assert run(code, tmp_path) >= 0


def test_torch_hub_beside_a_stranger_s_modules(tmp_path):
    """Its `net` is imported between the calls, and stays."""
    (tmp_path / "utils.py").write_text("raise SystemExit('a stranger was imported')\n")
    (tmp_path / "net.py").write_text("class Net:\n    pass\n")
    code = f"""
import json, shutil, sys
import numpy as np, torch
repository = {str(REPOSITORY)!r}
shutil.copy({str(SHIPPED / "NUDT-SIRST.safetensors")!r}, "mine.safetensors")
network = torch.hub.load(repository, "ismallnet", weights="IRSTD-1k", source="local")
from net import Net
mine = torch.hub.load(repository, "ismallnet", "mine.safetensors", source="local")
detector = torch.hub.load(
    repository, "detector", weights="NUAA-SIRST", device="cpu", threshold=0.7, source="local"
)
assert repository not in sys.path and sys.modules["net"].Net is Net
image = torch.full((1, 3, 32, 48), 100.0)
with torch.inference_mode():
    shapes = [list(logits.shape) for logits in network(network.normalise(image))]
targets = detector.detect(np.zeros((32, 48), np.uint8))
facts = [network.training, network.mean.tolist(), shapes, detector.settings.threshold]
print(json.dumps([*facts, mine.info["dataset"]]))
"""
    training, mean, shapes, threshold, dataset = run(code, tmp_path)
    assert not training and shapes == 3 * [[1, 1, 32, 48]] and threshold == 0.7
    assert mean == load_weights(SHIPPED / "IRSTD-1k.safetensors").mean.tolist()
    assert dataset == ["NUDT-SIRST"]
