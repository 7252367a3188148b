"""What the documents promise: links lead somewhere, commands have the flags that are typed, the ONNX
example runs."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

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
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert len(re.sub(r"!\[.*\]\(.*\)", "", text).split()) <= 1050  # without what pictures are called


def test_the_onnx_example_prints_the_detector_s_targets(network_file):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    from detect import Detector
    from export import main as export

    export(["--weights", network_file, "--output", "w.onnx"])
    detector = Detector.from_weights(network_file, device="cpu")
    for shape, kind in (((40, 56), np.uint8), ((33, 50, 3), np.uint8), ((35, 48), np.uint16)):
        frame = np.random.default_rng(0).integers(0, np.iinfo(kind).max + 1, shape, dtype=kind)
        np.save("frame.npy", frame)
        script = [sys.executable, str(REPOSITORY / "docs" / "onnx_example.py")]
        files = ["w.onnx", "frame.npy", "p.npy"]
        done = subprocess.run([*script, *files], check=True, capture_output=True, text=True)
        assert np.abs(np.load("p.npy") - detector.probability(frame)).max() < 1e-3
        words = [line.split() for line in done.stdout.splitlines()]
        rows = sorted(tuple(float(w) for w in line[1::2]) for line in words)
        expected = sorted(  # rounded, as they are printed, so that equal places are in one order
            (round(t.x, 2), round(t.y, 2), t.score, t.area) for t in detector.detect(frame)
        )
        assert len(expected) > 1 and len(rows) == len(expected)
        assert np.allclose(rows, expected, atol=0.02)
