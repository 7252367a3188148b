"""Targets in frames of any size and depth, for other programs:

from detect import Detector

detector = Detector.from_weights()
for target in detector.detect(frame):
    print(target.x, target.y, target.score)
"""

from ismallnet.detection.detector import Detector, Target, find_targets

__all__ = ["Detector", "Target", "find_targets"]
