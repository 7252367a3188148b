"""Small data sets and helpers that the tests share; everything is made in tmp_path."""

import io
import json
import os
import shutil
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from net import iSmallNet

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the tests run side by side
SOAK = bool(os.environ.get("SOAK"))  # the long runs: make soak
GOLDEN = Path(__file__).parent / "golden"


def pytest_configure() -> None:
    """Started in the background (`nohup make test &`), this process ignores SIGINT, and those that the
    tests start would inherit that: all begin with Python's handler, as in a terminal."""
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _in_tmp_path(tmp_path, monkeypatch):
    """Every test starts in its own empty folder, so that no default path leads into the repository."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True, scope="session")
def _threads():
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


def picture(seed: int = 0, shape=(40, 48)) -> np.ndarray:
    """An 8-bit grey image with a bright 3x4 target whose top-left corner is at (10, 12)."""
    rng = np.random.default_rng(seed)
    image = rng.integers(60, 90, shape).astype(np.uint8)
    if min(shape) >= 16:
        image[10:13, 12:16] = 230
    return image


def target_mask(shape=(40, 48)) -> np.ndarray:
    mask = np.zeros(shape, np.uint8)
    if min(shape) >= 16:
        mask[10:13, 12:16] = 255
    return mask


def canvas(*pixels, shape=(200, 200), onto=None) -> np.ndarray:
    """An empty mask, or a copy of another, with single pixels (y, x) of 255."""
    image = np.zeros(shape, np.uint8) if onto is None else onto.copy()
    for y, x in pixels:
        image[y, x] = 255
    return image


def box(top: int, left: int, height: int, width: int, shape=(40, 40), onto=None) -> np.ndarray:
    """An empty mask, or a copy of another, with a rectangle of 255."""
    image = np.zeros(shape, np.uint8) if onto is None else onto.copy()
    image[top : top + height, left : left + width] = 255
    return image


def write(path: Path, pixels) -> Path:
    """Writes an image (array) or a text file (str or bytes), with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(pixels, str):
        path.write_text(pixels, newline="")
    elif isinstance(pixels, bytes):
        path.write_bytes(pixels)
    else:
        assert cv2.imwrite(str(path), pixels)
    return path


def make_set(root: Path, names=("a", "b", "c", "d"), train=2, shape=(40, 48)) -> Path:
    """A data set in DNANet's layout: the first `train` names are the training list."""
    for i, name in enumerate(names):
        write(root / "images" / f"{name}.png", picture(i, shape))
        write(root / "masks" / f"{name}.png", target_mask(shape))
    write(root / "50_50" / "train.txt", "".join(f"{n}\n" for n in names[:train]))
    write(root / "50_50" / "test.txt", "".join(f"{n}\n" for n in names[train:]))
    return root


@pytest.fixture
def data(tmp_path) -> Path:
    """data/tiny, four images."""
    return make_set(tmp_path / "data" / "tiny")


def fails(main, *argv: str, capsys) -> str:
    """Runs a main that must end in exit code 2; returns its message."""
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in argv])
    assert stop.value.code == 2
    return capsys.readouterr().err


@pytest.fixture(scope="session")
def network_bytes() -> bytes:
    """A small plain network whose bias lets through about a tenth of the pixels."""
    torch.manual_seed(0)
    model, content = iSmallNet(4, "plain").eval(), io.BytesIO()
    with torch.no_grad():
        x = model.normalise(torch.from_numpy(picture()).expand(3, -1, -1)[None].float())
        model.mask_head[3].bias -= torch.quantile(model(x).mask, 0.9)
    torch.save({"state_dict": model.state_dict()}, content)
    return content.getvalue()


@pytest.fixture
def network_file(network_bytes) -> str:
    """w.pt, that network."""
    Path("w.pt").write_bytes(network_bytes)
    return "w.pt"


@pytest.fixture(scope="session")
def chromium(tmp_path_factory):
    programs = [shutil.which("chromium"), shutil.which("chromedriver")]
    if not all(programs):
        pytest.skip("no chromium and chromedriver here (Debian: chromium, chromium-driver)")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    for flag in ("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run"):
        options.add_argument(f"--{flag}")
    for flag in ("disable-background-networking", "disable-component-update", "disable-sync"):
        options.add_argument(f"--{flag}")
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('chromium')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(programs[1]))
    yield driver
    driver.quit()


@pytest.fixture
def browser(chromium):
    """One browser for all tests, 1400 px wide; what an earlier page logged is forgotten."""
    chromium.get("about:blank")
    chromium.get_log("browser")
    wide(chromium, 1400)
    return chromium


def report_data(page: Path) -> dict:
    """What the report's page knows."""
    return json.loads(page.read_text(encoding="utf-8").split('id="data">')[1].split("</script>")[0])


def wide(browser, width: int) -> None:
    """Gives the window a width, below 500 px that of a telephone."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def names_of(browser) -> list[str]:
    """The names on the report's cards, in order."""
    return [node.text for node in browser.find_elements("css selector", "#gallery h3")]


@pytest.fixture
def tell(record_property):
    """Adds a line to the table that a run of the long tests ends with."""
    return lambda work, found: record_property("soak", f"{work} | {found}")


def pytest_terminal_summary(terminalreporter):
    if SOAK:
        reports = terminalreporter.getreports("passed") + terminalreporter.getreports("failed")
        lines = [value for report in reports for key, value in report.user_properties if key == "soak"]
        terminalreporter.section("soak")
        for line in ["work | found", "--- | ---", *sorted(lines)]:
            terminalreporter.write_line(f"| {line} |")
