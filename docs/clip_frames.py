"""Three frames of each clip of a folder, at 1/6, 1/2 and 5/6 of its length, as PNG, and their boxes:

python docs/clip_frames.py data/drone-clips data/clip-frames
python detect.py data/clip-frames --threshold 0.1 --name clips
python eval.py --detections results/clips --boxes data/clip-frames.csv
"""

import csv
import sys
from pathlib import Path

import cv2

sys.path.insert(0, str(Path(__file__).parent.parent))
from ismallnet.files import write_csv, write_png

SHARES = (1 / 6, 1 / 2, 5 / 6)
COLUMNS = ("file", "x", "y", "width", "height")


def frames_of(clip: Path) -> dict[int, object]:
    """Frame number -> HxW grey frame, uint8."""
    video = cv2.VideoCapture(str(clip.resolve()))
    frames = []
    while (read := video.read())[0]:
        frames.append(cv2.cvtColor(read[1], cv2.COLOR_BGR2GRAY))
    return {number: frames[number] for number in (int(share * len(frames)) for share in SHARES)}


def main(clips: Path, output: Path) -> None:
    boxes: dict[tuple[str, int], list[list[str]]] = {}
    with open(clips / "boxes.csv", newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            box = [row[key] for key in ("x", "y", "width", "height")]
            boxes.setdefault((row["clip"], int(row["frame"])), []).append(box)
    rows = []
    for clip in sorted(clips.glob("*.mp4")):
        for number, frame in frames_of(clip).items():
            name = f"{clip.stem}_{number:06}.png"
            write_png(output / name, frame)
            rows += [(name, *box) for box in boxes.get((clip.stem, number), [])]
    write_csv(output.with_suffix(".csv"), COLUMNS, rows)
    print(f"{output}: {3 * len(list(clips.glob('*.mp4')))} frames, {len(rows)} boxes")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
