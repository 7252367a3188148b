"""Classical methods on frames of docs/clip_frames.py; window and threshold of NUAA-SIRST's list:

python docs/clip_baselines.py data/clip-frames
"""

import csv
import sys
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))
from dataset import Frames
from ismallnet.baselines.choose import choose, scores
from ismallnet.datasets.find import find_dataset
from ismallnet.evaluation.boxes import RATES, BoxedFrame, recall_at, scores_of


def main(folder: Path) -> None:
    boxes: dict[str, list[tuple[float, ...]]] = {}
    with open(folder.with_suffix(".csv"), newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            box = tuple(float(row[key]) for key in ("x", "y", "width", "height"))
            boxes.setdefault(row["file"], []).append(box)
    train = Frames(find_dataset("NUAA-SIRST"), "train")
    for method in ("tophat", "maxmedian"):
        window, threshold, _ = choose(train, method, 1)
        frames = []
        for path in sorted(folder.glob("*.png")):
            score = scores(cv2.imread(str(path)), method, window) / (2 * threshold)
            count, labels = cv2.connectedComponents((score >= 0.1).astype(np.uint8), connectivity=8)
            frames.append(BoxedFrame(boxes.get(path.name, [])))
            for k in range(1, count):
                y, x = np.nonzero(labels == k)
                s = score[y, x].astype(float)
                found = (float(s @ x / s.sum()), float(s @ y / s.sum()), float(s.max()))
                frames[-1].detections.append(found)
        result = scores_of(frames)
        recalls = [f"{100 * recall_at(result.curve(), rate):.1f}" for rate in RATES]
        print(method, window, result.at(0.5), dict(zip(RATES, recalls)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
