"""Processor time of each classical baseline for one image of NUAA-SIRST's test list, median of 8.

OMP_NUM_THREADS=1 python docs/baseline_times.py
"""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np

from dataset import Frames
from ismallnet.baselines.choose import BASELINES
from ismallnet.datasets.find import find_dataset

WINDOWS = {"tophat": 13, "maxmedian": 41, "lcm": 9, "mpcm": 27, "tllcm": 27}  # as chosen there


def main() -> None:
    frames = Frames(find_dataset("NUAA-SIRST", "data"), "test")
    images = [np.ascontiguousarray(frames[i].image.mean(axis=2), np.float32) for i in range(0, 200, 25)]
    for name, method in BASELINES.items():
        seconds = []
        for image in images:
            start = time.process_time()
            method.score(image, WINDOWS.get(name, method.windows[0]))
            seconds.append(time.process_time() - start)
        print(f"{name}: {np.median(seconds):.2g} s")


if __name__ == "__main__":
    main()
