"""`detect.py --watch`, interruptions, and several processes."""

import os
import shutil
import signal
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import picture, write
from PIL import Image
from streaming import folder, results, run, start, stopped, video, waits

pytestmark = pytest.mark.usefixtures("network_file")


def test_interrupted_and_resumed():
    folder(60)
    process = start("f")
    waits(lambda: len(list(Path("results/f/maps").glob("*.png"))) > 3)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=300)
    done = len(results()[2]["images"])
    assert process.returncode == 130 and "type the same command with --resume" in out
    assert 3 < done < 60
    run("f", "--resume")
    run("f", "--name", "whole")
    for name in ("detections.csv", "detections.json", "frames.json"):
        assert Path("results/f", name).read_bytes() == Path("results/whole", name).read_bytes()


def test_two_processes_write_the_same_files_as_one():
    folder(7)
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2"]
    process = start("f", launcher=launcher)
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0, out
    assert len(list(Path("results/f").glob("records-*.jsonl"))) == 2
    run("f", "--name", "whole")
    for name in ("detections.csv", "detections.json", "frames.json"):
        assert Path("results/f", name).read_bytes() == Path("results/whole", name).read_bytes()


def test_watch_takes_files_as_they_are_complete_and_stops_cleanly():
    Path("in").mkdir()
    process = start("--watch", "in")
    raw = cv2.imencode(".png", picture(1))[1].tobytes()
    with open("in/slow.png", "wb") as file:  # arrives in pieces, for two seconds
        for part in range(4):
            file.write(raw[part * len(raw) // 4 : (part + 1) * len(raw) // 4])
            file.flush()
            time.sleep(0.3)
    write(Path("in/second.png"), picture(2))
    waits(lambda: len(list(Path("results/in/maps").glob("*.png"))) == 2)
    os.kill(process.pid, signal.SIGTERM)
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0 and "error" not in out, out
    assert {i["frame"] for i in results("in")[2]["images"]} == {"slow", "second"}
    write(Path("in/third.png"), picture(3))
    process = start("--watch", "in", "--resume")
    waits(lambda: Path("results/in/maps/third.png").exists())
    os.kill(process.pid, signal.SIGTERM)
    process.communicate(timeout=300)
    assert [i["frame"] for i in results("in")[2]["images"]][-1] == "third"
    assert len(results("in")[2]["images"]) == 3


def test_watch_tries_a_file_again_that_came_slowly_and_takes_every_nth_frame_of_a_video():
    Path("in").mkdir()
    raw = cv2.imencode(".png", picture(1))[1].tobytes()
    Path("in/slow.png").write_bytes(raw[:200])  # its copy stalls
    video("in/v.avi", 7)
    process = start("--watch", "in", "--every", 3)
    waits(lambda: Path("results/in/v.mp4").exists())
    assert not Path("results/in/maps/slow.png").exists()
    Path("in/slow.png").write_bytes(raw)
    waits(lambda: Path("results/in/maps/slow.png").exists())
    out = stopped(process)
    assert "slow.png: not a readable image" in out and "tried again when it changes" in out
    assert process.returncode == 0, out  # it was read in the end
    images = results("in")[2]["images"]
    assert [i["frame"] for i in images] == ["v_000000", "v_000003", "v_000006", "slow"]
    assert [i["seconds"] for i in images] == [0, 0.3, 0.6, None]


def test_what_one_of_two_processes_left_is_shared_by_both():
    """Of 8 frames those of the first process are done: the other four are shared out anew."""
    folder(8)
    run("f", "--name", "whole")
    run("f")
    records = Path("results/f/records-0.jsonl")
    records.write_bytes(b"".join(records.read_bytes().splitlines(keepends=True)[::2]))
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2"]
    out, _ = start("f", "--resume", launcher=launcher).communicate(timeout=300)
    counts = [
        len(path.read_bytes().splitlines()) for path in sorted(Path("results/f").glob("records-*"))
    ]
    assert counts == [4 + 2, 2], out
    for name in ("detections.csv", "detections.json", "frames.json"):
        assert Path("results/f", name).read_bytes() == Path("results/whole", name).read_bytes()


def test_watch_reads_the_pages_that_come_later_and_survives_files_that_leave():
    Path("in").mkdir()
    write(Path("in/._x.png"), b"what another system keeps there")
    write(Path("in/leaves.png"), picture(9))
    pages = [Image.fromarray(picture(k)) for k in range(6)]
    pages[0].save("in/s.tif", save_all=True, append_images=pages[1:3])
    process = start("--watch", "in")
    waits(lambda: Path("results/in/maps/s_000002.png").exists())
    Path("in/leaves.png").rename("elsewhere.png")
    pages[0].save("new.tif", save_all=True, append_images=pages[1:])
    Path("in/s.tif").write_bytes(Path("new.tif").read_bytes())  # after a pause there are more
    waits(lambda: Path("results/in/maps/s_000005.png").exists())
    out = stopped(process)
    assert process.returncode == 0 and "error" not in out, out
    frames = [image["frame"] for image in results("in")[2]["images"]]
    assert sorted(frames) == ["leaves", *(f"s_{k:06d}" for k in range(6))]


def test_watch_says_that_a_file_was_replaced():
    write(Path("in/a.png"), picture(1))
    process = start("--watch", "in")
    waits(lambda: Path("results/in/overlays/a.png").exists())
    write(Path("in/a.png"), picture(2))
    write(Path("in/b.png"), np.zeros((20, 20), np.uint8))  # is taken in a look after that
    waits(lambda: Path("results/in/overlays/b.png").exists())
    out = stopped(process)
    assert process.returncode == 0 and "in/a.png was replaced" in out
    assert [image["frame"] for image in results("in")[2]["images"]] == ["a", "b"]


def test_a_watched_folder_that_is_gone_ends_the_run_with_what_was_done():
    write(Path("in/a.png"), picture(1))
    process = start("--watch", "in")
    waits(lambda: Path("results/in/overlays/a.png").exists())
    shutil.rmtree("in")
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 1 and "error: in: cannot be read any more" in out
    assert "1 frames, " in out and "type the same command with --resume" in out
    rows, _, companion = results("in")
    assert {row["frame"] for row in rows} == {"a"}
    assert [image["frame"] for image in companion["images"]] == ["a"]


def test_watch_is_for_one_process():
    Path("in").mkdir()
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2"]
    out, _ = start("--watch", "in", launcher=launcher).communicate(timeout=300)
    assert "error: --watch: found 2 processes, expected one" in out
