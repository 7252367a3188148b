"""What the documents promise: links lead somewhere, commands have the flags that are typed, the ONNX
example runs."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

REPOSITORY = Path(__file__).parent.parent
NAMES = ("README.md", "RESULTS.md", "CONTRIBUTING.md", "data/README.md")
DOCUMENTS = [*(REPOSITORY / name for name in NAMES), *sorted((REPOSITORY / "docs").glob("*.md"))]
COMMAND = re.compile(r"(?:python|torchrun[^\n`]*?) (\w+)\.py([^\n`#|]*)")
FLAG = re.compile(r"(?<!\S)--[a-z][a-z-]*")


def anchors(path: Path) -> set[str]:
    """The names that GitHub gives to a document's headings."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if link.startswith("https://"):
            continue
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def typed_commands() -> dict[str, set[str]]:
    """The flags that the documents type, by script."""
    found: dict[str, set[str]] = {}
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8").replace("\\\n", " ")
        for name, value in re.findall(r'^ {4}([A-Z0-9]+)="(.*)"$', text, re.MULTILINE):
            text = text.replace(f"${name}", value)
        for script, rest in COMMAND.findall(text):
            found.setdefault(script, set()).update(FLAG.findall(rest))
    return found


@pytest.mark.parametrize("script", sorted(typed_commands()))
def test_commands_have_the_flags_that_the_documents_type(script, capsys):
    if script == "onnx_example":
        return
    assert (REPOSITORY / f"{script}.py").is_file()
    with pytest.raises(SystemExit):
        importlib.import_module(script).main(["--help"])
    known = set(re.findall(r"--[a-z][a-z-]*", capsys.readouterr().out))
    assert typed_commands()[script] <= known


def test_the_readme_is_short():
    assert len((REPOSITORY / "README.md").read_text(encoding="utf-8").split()) <= 1050


def test_the_onnx_example_gives_the_detector_s_probabilities():
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    from detect import Detector
    from export import main as export
    from net import iSmallNet

    torch.manual_seed(0)
    torch.save({"state_dict": iSmallNet(4).state_dict()}, "w.pt")
    export(["--weights", "w.pt", "--output", "w.onnx"])
    detector = Detector.from_weights("w.pt", device="cpu")
    for shape in ((40, 56), (33, 50, 3)):
        frame = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        np.save("frame.npy", frame)
        script = str(REPOSITORY / "docs" / "onnx_example.py")
        subprocess.run([sys.executable, script, "w.onnx", "frame.npy", "p.npy"], check=True)
        assert np.abs(np.load("p.npy") - detector.probability(frame)).max() < 1e-3
