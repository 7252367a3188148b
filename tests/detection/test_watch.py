"""`detect.py --watch`, interruptions, and several processes."""

import shutil
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import cv2
import pytest
from conftest import picture, write
from PIL import Image
from streaming import beside, folder, results, run, same, start, video, waits

from detect import DetectionSettings
from ismallnet.detection.run import Request, Worker
from ismallnet.detection.sources import Source

pytestmark = pytest.mark.usefixtures("network_file")


def there(name: str) -> None:
    waits(Path("results/in", name).exists)


def frames_of(name="in") -> list[str]:
    return [image["frame"] for image in results(name)[1]["images"]]


# --- interruptions, and several processes ------------------------------------------------------------


def test_interrupted_and_resumed(capsys):
    folder(60)
    maps = Path("results/f/maps")
    code = beside(lambda: waits(lambda: len(list(maps.glob("*"))) > 3), "f", number=signal.SIGINT)
    assert code == 130 and "--resume" in capsys.readouterr().out
    assert 3 < len(frames_of("f")) < 60
    run("f", "--resume")
    run("f", "--name", "whole")
    same("f", "whole")


def test_two_processes_write_the_same_files_as_one():
    folder(5)
    video("f/v.avi", 4)
    process = start("f", launcher=["-m", "torch.distributed.run", "--nproc-per-node", "2"])
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0, out
    assert [path.name for path in Path("results/f").glob("records-*")] == ["records-0.jsonl"]  # merged
    run("f", "--name", "whole")
    same("f", "whole")


def shares(sources: list[Source], counts: list[int], done=(), **options) -> list[list[tuple]]:
    """Which frames (file, index) each of two processes takes."""
    request = Request(["f"], Path("f"), Path("w.pt"), **options)
    detector = SimpleNamespace(settings=DetectionSettings())
    workers = [
        Worker(request, detector, [], list(done), SimpleNamespace(rank=rank, world=2))
        for rank in (0, 1)
    ]
    frames = [(s, k) for s, count in zip(sources, counts) for k in range(count)]
    return [[(s.path.name, k) for s, k in frames if worker.wants(s, k)] for worker in workers]


def test_processes_take_turns_frame_by_frame():
    pictures = [Source(Path(f"f/{k}.png"), "image") for k in range(3)]
    clip = Source(Path("v.avi"), "video")
    one, two = shares([*pictures, clip], [1, 1, 1, 4], every=2)
    assert one == [("0.png", 0), ("2.png", 0), ("v.avi", 2)] and two == [("1.png", 0), ("v.avi", 0)]
    done = [{"file": "f/0.png", "index": 0, "frame": "0"}]
    one, two = shares(pictures, [1, 1, 1], done)  # the others are shared out anew
    assert one == [("1.png", 0)] and two == [("2.png", 0)]


# --- a watched folder --------------------------------------------------------------------------------


def test_watch_takes_files_as_they_are_complete_and_stops_cleanly(capsys):
    Path("in").mkdir()

    def steps() -> None:
        raw = cv2.imencode(".png", picture(1))[1].tobytes()
        with open("in/slow.png", "wb") as file:  # arrives in pieces, for a second
            for part in range(4):
                file.write(raw[part * len(raw) // 4 : (part + 1) * len(raw) // 4])
                file.flush()
                time.sleep(0.3)
        write(Path("in/second.png"), picture(2))
        there("maps/second.png")
        there("maps/slow.png")

    assert beside(steps, "--watch", "in") == 0 and "error" not in capsys.readouterr().err
    assert set(frames_of()) == {"slow", "second"}
    write(Path("in/third.png"), picture(3))
    assert beside(lambda: there("maps/third.png"), "--watch", "in", "--resume") == 0
    assert frames_of()[-1] == "third" and len(frames_of()) == 3


def test_watch_looks_again_at_what_came_slowly_or_grew_and_survives_what_leaves(capsys):
    write(Path("in/._x.png"), b"what another system keeps there")
    write(Path("in/leaves.png"), picture(9))
    raw = cv2.imencode(".png", picture(1))[1].tobytes()
    Path("in/slow.png").write_bytes(raw[:200])  # its copy stalls
    video("in/v.avi", 7)
    pages = [Image.fromarray(picture(k)) for k in range(4)]
    pages[0].save("in/s.tif", save_all=True, append_images=pages[1:2])
    pages[0].save("new.tif", save_all=True, append_images=pages[1:])

    def steps() -> None:
        there("overlays/v_000006.png")
        assert not Path("results/in/maps/slow.png").exists()
        Path("in/leaves.png").rename("elsewhere.png")
        Path("in/slow.png").write_bytes(raw)
        Path("in/s.tif").write_bytes(Path("new.tif").read_bytes())  # after a pause there are more
        there("maps/slow.png")
        there("maps/s_000003.png")

    assert beside(steps, "--watch", "in", "--every", 3) == 0  # all was read in the end
    assert "slow.png: not a readable image" in capsys.readouterr().err
    times = {image["frame"]: image["seconds"] for image in results("in")[1]["images"]}
    assert [times.pop(f"v_00000{k}") for k in (0, 3, 6)] == [0, 0.3, 0.6]
    assert times == dict.fromkeys(("leaves", "s_000000", "s_000003", "slow"))
    assert Path("results/in/v.mp4").is_file()


def test_a_watched_folder_that_is_gone_ends_the_run_with_what_was_done(capsys):
    write(Path("in/a.png"), picture(1))

    def steps() -> None:
        there("overlays/a.png")
        shutil.rmtree("in")
        there("detections.csv")

    try:
        code = beside(steps, "--watch", "in", number=signal.SIGWINCH)  # which does nothing
    finally:
        message = capsys.readouterr().err
    assert code == 1 and "error: in: cannot be read any more" in message and "--resume" in message
    assert frames_of() == ["a"]
