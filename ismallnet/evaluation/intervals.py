"""95 % intervals of a set's metrics, and of differences between two runs: the bootstrap over images.

A draw picks as many images as the set has, with replacement, and has the metrics of those. 1,000 draws
show how far the metrics depend on which images happen to be in the set. Runs that are compared are
drawn alike: draw 7 of one has the same images as draw 7 of the other.

Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13 (percentiles).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ismallnet.evaluation.protocols import PROTOCOLS

METRICS = ("iou", "niou", "pd", "fa", "hiou")  # that get an interval
DRAWS = 1000
TAILS = (2.5, 97.5)  # percentiles

Drawn = dict[str, np.ndarray]  # a metric's value in each draw; NaN where it is not defined


def bootstrap(counts: Sequence[Mapping[str, float]], protocol: str, seed: int = 0) -> Drawn:
    """The values of a protocol's metrics, of those in METRICS, in draws from images.

    Args:
        counts: of each image, the same keys in the same order.
    """
    table, images = np.array([list(n.values()) for n in counts], np.float64), len(counts)
    random, sums = np.random.default_rng(seed), np.empty((DRAWS, table.shape[1]))
    random.random(DRAWS)  # RESULTS.md's intervals were drawn after so many numbers
    for row in sums:
        row[:] = np.bincount(random.integers(images, size=images), minlength=images) @ table
    metrics = PROTOCOLS[protocol].metrics(dict(zip(counts[0], sums.T)))
    return {key: metrics[key] for key in METRICS if key in metrics}


def interval(drawn: np.ndarray, images: int) -> list[float] | None:
    """[low, high] of the middle 95 % of the draws that define a metric; None where none does. One
    image alone says nothing of others: None."""
    defined = drawn[~np.isnan(drawn)]
    return np.percentile(defined, TAILS).tolist() if len(defined) and images > 1 else None


def intervals(drawn: Drawn, images: int) -> dict[str, list[float] | None]:
    return {key: interval(values, images) for key, values in drawn.items()}


@dataclass(frozen=True)
class Difference:
    """Of a metric of two runs: the second's less the first's, and its interval."""

    value: float
    low: float
    high: float

    @property
    def certain(self) -> bool:
        """Whether the interval leaves out 0: the choice of images does not explain the difference."""
        return self.low > 0 or self.high < 0


def differences(
    first: tuple[dict, Drawn], second: tuple[dict, Drawn], images: int
) -> dict[str, Difference | None]:
    """The difference of each metric between two runs on the same images in the same order; None where
    one of them does not define it.

    Args:
        first, second: the metrics of a protocol, and their values in each draw.
    """
    result: dict[str, Difference | None] = {}
    for key, drawn in second[1].items():
        before, after = first[0].get(key), second[0].get(key)
        ends = interval(drawn - first[1][key], images)
        undefined = None in (before, after, ends)
        result[key] = None if undefined else Difference(after - before, *ends)
    return result
