"""Cameras and streams, places that do not count, hot pixels, and a threshold from empty frames."""

import os
import signal
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
from conftest import fails, picture, write
from streaming import bright_pixels, folder, results, run, video

from detect import Detector, main
from ismallnet.cli import DataError
from ismallnet.detection import live
from ismallnet.detection.detector import threshold_for
from ismallnet.detection.live import Camera, public
from ismallnet.detection.records import read_records
from ismallnet.detection.sources import Frame, Source
from ismallnet.files import read_json
from net import iSmallNet

pytestmark = pytest.mark.usefixtures("network_file")


class Stream(HTTPServer):
    """Sends a video to this machine itself, as often as it is asked, and refuses after that."""

    def __init__(self, path: Path, times: int):
        super().__init__(("127.0.0.1", 0), Sender)
        self.data, self.times = path.read_bytes(), times
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://user:secret@127.0.0.1:{self.server_port}/live"


class Sender(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.times -= 1
        if self.server.times < 0:
            return self.send_error(404)
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.server.data)))
        self.end_headers()
        self.wfile.write(self.server.data)

    def log_message(self, *_):
        pass


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(live, "PAUSE", 0.05)
    monkeypatch.setattr(live, "TRIES", 2)


def test_a_stream_is_read_until_it_gives_no_more(capsys):
    video("clip.avi", 6)
    stream = Stream(Path("clip.avi"), times=2)
    assert run("--camera", stream.address) == 1
    said = capsys.readouterr().err
    frames = read_json(Path("results/camera/frames.json"))["images"]
    indices = [frame["index"] for frame in frames]
    assert indices and indices == sorted(set(indices)) and indices[-1] < 12
    assert all(frame["seconds"] >= 0 for frame in frames)
    assert "12 frames came" in said and "no frame" in said
    about = read_json(Path("results/camera/about.json"))
    assert "secret" not in str(about) and "secret" not in said


def test_a_stream_that_is_interrupted_ends_well():
    video("clip.avi", 6)
    stream = Stream(Path("clip.avi"), times=10**6)
    timer = threading.Timer(3, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    assert run("--camera", stream.address, "--threshold", 0.004, "--confirm", "2:3") == 0
    entries = list(read_records(Path("results/camera")))
    tracks = [t["track"] for entry in entries for t in entry["targets"]]
    assert 0 < len(set(tracks)) < len(tracks)
    assert Path("results/camera/detections.csv").read_text().splitlines()[0].endswith(",track")


def test_without_a_camera_nothing_is_written(capsys):
    for address in ("http://127.0.0.1:9/none", "no-address"):
        message = fails(main, "--camera", address, "--weights", "w.pt", capsys=capsys)
        assert "--camera" in message and "rtsp://" in message
    assert not Path("results").exists()
    assert public("rtsp://a:b@host/c") == "rtsp://host/c"
    with pytest.raises(DataError):
        Camera("http://127.0.0.1:9/none")


# --- what does not count ----------------------------------------------------------------------------


def test_ignored_places_hold_no_targets(capsys):
    folder(2)
    assert run("f", "--name", "all") == 0
    places = [(float(row["x"]), float(row["y"])) for row in results("all")[0]]
    mask = np.zeros((40, 48), np.uint8)
    mask[:, 24:] = 255
    write(Path("mask.png"), mask)
    assert run("f", "--name", "left", "--ignore", "mask.png") == 0
    left = [(float(row["x"]), float(row["y"])) for row in results("left")[0]]
    assert left and all(x < 24 for x, _ in left) and any(x > 30 for x, _ in places)
    write(Path("mask.png"), mask[:20])
    message = fails(
        main, "f", "--weights", "w.pt", "--ignore", "mask.png", "--name", "x", capsys=capsys
    )
    assert "mask.png" in message and "(20, 48)" in message


def test_a_hot_pixel_that_stays_in_place_is_left_out(monkeypatch, capsys):
    """A target of one pixel that moves, a wider one that stays, and a hot pixel."""
    for k in range(12):
        frame = np.full((64, 64), 60, np.uint8)
        frame[20:23, 30:33] = 250
        frame[5, 5 + k] = frame[40, 50] = 250
        write(Path(f"f/frame_{k:02d}.png"), frame)
    monkeypatch.setattr(iSmallNet, "forward", bright_pixels)
    assert run("f", "--format", "mot", "--confirm", "3:5") == 0
    places = {(round(float(row["x"])), round(float(row["y"]))) for row in results("f")[0]}
    assert (31, 21) in places and (10, 5) in places and (50, 40) not in places
    assert "(40, 50)" in capsys.readouterr().err.replace("[", "(").replace("]", ")")
    lines = Path("results/f/mot/f.txt").read_text().splitlines()
    assert len(lines) == 24 and lines[0].split(",")[0] == "1"
    assert len({line.split(",")[1] for line in lines}) == 2


# --- a threshold for so many false alarms ---------------------------------------------------------


def frames(*maxima: float) -> list[Frame]:
    source = Source(Path("a.png"), "image")
    return [Frame(source, 0, np.full((32, 32), round(255 * p), np.uint8)) for p in maxima]


class Known(Detector):
    """A detector whose map has one pixel as high as the frame says."""

    def probability(self, frame):
        probability = np.zeros((32, 32), np.float32)
        probability[3, 3] = frame.max() / 255
        return probability


@pytest.mark.parametrize(("most", "threshold"), [(1, 0.05), (0.5, 0.65), (0.25, 0.85), (0.2, 0.95)])
def test_the_lowest_threshold_with_so_few_false_alarms(most, threshold, capsys):
    assert threshold_for(Known(iSmallNet(4)), frames(0.6, 0.8, 0.9, 0.61), most, "empty") == threshold
    assert f"--threshold {threshold:g}" in capsys.readouterr().out


def test_no_threshold_may_be_high_enough():
    with pytest.raises(DataError, match="--ignore"):
        threshold_for(Known(iSmallNet(4)), frames(1.0, 1.0), 0.1, "empty")


def test_the_threshold_is_used_for_the_frames(capsys):
    folder(3)
    write(Path("empty/a.png"), picture(9))
    assert run("--background", "empty", "--false-alarms", "1000") == 0
    assert "--threshold 0.05" in capsys.readouterr().out and not Path("results").exists()
    assert run("f", "--background", "empty", "--false-alarms", "1000") == 0
    assert read_json(Path("results/f/about.json"))["threshold"] == 0.05
    message = fails(main, "f", "--weights", "w.pt", "--false-alarms", "1", capsys=capsys)
    assert "--background" in message


def hot_frame(k: int) -> None:
    frame = np.full((64, 64), 60, np.uint8)
    frame[40, 50] = 250 if k < 10 else 60
    write(Path(f"f/frame_{k:02d}.png"), frame)


def test_what_is_no_hot_pixel_after_more_frames_is_a_target_again(monkeypatch):
    monkeypatch.setattr(iSmallNet, "forward", bright_pixels)
    for k in range(10):
        hot_frame(k)
    assert run("f") == 0
    assert not results("f")[0]
    for k in range(10, 20):
        hot_frame(k)
    assert run("f", "--resume") == 0
    assert len(results("f")[0]) == 10
