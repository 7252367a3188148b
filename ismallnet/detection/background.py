"""A threshold for a wanted number of false alarms, from frames that hold no target."""

from collections.abc import Iterable

from ismallnet.cli import DataError, progress
from ismallnet.detection.detector import Detector, find_targets, highest
from ismallnet.detection.sources import Frame

THRESHOLDS = (*(k / 20 for k in range(1, 20)), 0.97, 0.98, 0.99, 0.995, 1.0)


def false_alarms(detector: Detector, frames: Iterable[Frame], name: str) -> tuple[list[float], int]:
    """False alarms a frame at each of THRESHOLDS, and how many frames there are.

    Raises:
        DataError: a frame cannot be read, or there is none.
    """
    s, counts, total = detector.settings, [0] * len(THRESHOLDS), 0
    for frame in progress(frames, name, None, "frame"):
        if frame.problem:
            raise DataError(frame.problem)
        probability = highest(detector.maps([frame.pixels])[0])
        for k, threshold in enumerate(THRESHOLDS):
            if probability.max() < threshold:
                break
            counts[k] += len(
                find_targets(probability, frame.pixels, threshold, s.min_area, s.max_targets)
            )
        total += 1
    if not total:
        raise DataError(f"--background {name}: found no frame")
    return [count / total for count in counts], total


def threshold_for(detector: Detector, frames: Iterable[Frame], most: float, name: str) -> float:
    """The lowest of THRESHOLDS that gives at most so many false alarms a frame; says what it and 0.5
    give.

    Raises:
        DataError: none does.
    """
    rates, total = false_alarms(detector, frames, name)
    fitting = [k for k, rate in enumerate(rates) if all(later <= most for later in rates[k:])]
    of = f"on {total} frames of {name}"
    if not fitting:
        raise DataError(
            f"--false-alarms {most:g}: found {rates[-1]:.2f} a frame at the highest threshold {of}; "
            "type --ignore MASK.png for what stays in place, --confirm 3:5, or other --weights"
        )
    threshold, usual = THRESHOLDS[fitting[0]], rates[THRESHOLDS.index(0.5)]
    rate = rates[fitting[0]]
    print(f"--threshold {threshold:g}: {rate:.2f} false alarms a frame {of} (0.5: {usual:.2f})")
    if total * most < 3:
        print(
            f"note: {total} frames are few for {most:g} a frame; {round(3 / most)} or more are better"
        )
    return threshold
