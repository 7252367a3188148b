"""A threshold for a wanted number of false alarms, from frames that hold no target."""

from collections.abc import Iterable

import numpy as np

from ismallnet.cli import DataError, progress
from ismallnet.detection.detector import Detector, find_targets
from ismallnet.detection.sources import Frame

THRESHOLDS = (*(k / 20 for k in range(1, 20)), 0.97, 0.98, 0.99, 0.995, 1.0)


def threshold_for(detector: Detector, frames: Iterable[Frame], most: float, name: str) -> float:
    """The lowest of THRESHOLDS that gives at most so many false alarms a frame, as all higher ones do;
    says what it and 0.5 give.

    Raises:
        DataError: none does; a frame cannot be read, or there is none.
    """
    s, counts = detector.settings, []
    for frame in progress(frames, name, None, "frame"):
        if frame.problem:
            raise DataError(frame.problem)
        probability = detector.probability(frame.pixels)
        settings = (s.min_area, s.max_targets)
        found = (find_targets(probability, frame.pixels, t, *settings) for t in THRESHOLDS)
        counts.append([len(targets) for targets in found])
    if not counts:
        raise DataError(f"--background {name}: found no frame")
    rates, of = np.mean(counts, axis=0), f"on {len(counts)} frames of {name}"
    fitting = [k for k in range(len(rates)) if rates[k:].max() <= most]
    if not fitting:
        raise DataError(
            f"--false-alarms {most:g}: found {rates[-1]:.2f} a frame at the highest threshold {of}; "
            "type --ignore MASK.png for what stays in place, --confirm 3:5, or other --weights"
        )
    threshold, rate, usual = THRESHOLDS[fitting[0]], rates[fitting[0]], rates[THRESHOLDS.index(0.5)]
    print(f"--threshold {threshold:g}: {rate:.2f} false alarms a frame {of} (0.5: {usual:.2f})")
    if len(counts) * most < 3:
        print(f"note: too few frames for {most:g} a frame; {round(3 / most)} or more are better")
    return threshold
