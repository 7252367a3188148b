"""95 % intervals of a set's figures, and of differences between two runs: the bootstrap over images.

A draw picks as many images as the set has, with replacement, and takes the figures of those. 1,000
draws show how far the figures depend on which images happen to be in the set. Runs that are compared
are drawn alike: draw 7 of one has the same images as draw 7 of the other.

The sums of all draws are kept, not the images' counts: memory does not grow with the set.
Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13 (percentiles).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ismallnet.evaluation.metrics import UNIT
from ismallnet.evaluation.protocols import PROTOCOLS

FIGURES = ("iou", "niou", "pd", "fa", "hiou")  # that get an interval
DRAWS = 1000
LEVEL = 0.95
SEED = 0
BLOCK = 1024  # images that are drawn from at once: 16 MiB
COARSE = UNIT >> 30  # means in fixed point keep 30 bits, so that sums are exact in floating point

Drawn = dict[str, np.ndarray]  # a figure's value in each draw; NaN where it is not defined


class Bootstrap:
    """Sums of counts over images that are drawn with replacement.

    Images are added one after another. Of each block it is drawn first how many of the draws' images
    lie in it (binomial), then which ones: together, the multinomial distribution of drawing them all
    at once.
    """

    def __init__(self, images: int, draws: int = DRAWS, seed: int = SEED) -> None:
        """
        Args:
            images: how many will be added.
        """
        self.images, self.coming = images, images
        self.missing = np.full(draws, images)  # images that each draw has yet to pick
        self.random = np.random.default_rng(seed)
        self.keys: list[tuple[str, str]] = []
        self.rows: list[list[int]] = []
        self.sums = np.zeros((draws, 0))

    def add(self, counts: Mapping[str, Mapping[str, int]]) -> None:
        """The counts of one image, by protocol: the same keys in the same order for all."""
        if not self.keys:
            self.keys = [(name, key) for name, found in counts.items() for key in found]
            self.sums = np.zeros((len(self.missing), len(self.keys)))
        self.rows.append([value for found in counts.values() for value in found.values()])
        if len(self.rows) == min(BLOCK, self.coming):
            self._draw(np.array(self.rows, np.float64))
            self.rows.clear()

    def _draw(self, counts: np.ndarray) -> None:
        """Draws from a block of images, (images, counts)."""
        size, draws = len(counts), len(self.missing)
        picked = self.random.binomial(self.missing, size / self.coming)
        places = np.repeat(np.arange(draws) * size, picked) + self.random.integers(
            size, size=picked.sum()
        )
        times = np.bincount(places, minlength=draws * size).reshape(draws, size)
        means = counts >= 2**32  # more than any number of pixels: fixed point
        counts[means] = np.rint(counts[means] / COARSE) * COARSE
        self.sums += times.astype(np.float64) @ counts
        self.missing -= picked
        self.coming -= size

    def figures(self) -> dict[str, Drawn]:
        """By protocol, the value of each figure of FIGURES in each draw.

        Raises:
            ValueError: fewer images were added than were announced.
        """
        if self.coming:
            raise ValueError(f"found {self.images - self.coming} images, expected {self.images}")
        sums: dict[str, dict[str, np.ndarray]] = {}
        for (name, key), values in zip(self.keys, self.sums.T):
            sums.setdefault(name, {})[key] = values
        figures = {name: PROTOCOLS[name].figures(found) for name, found in sums.items()}
        return {
            name: {key: found[key] for key in FIGURES if key in found}
            for name, found in figures.items()
        }


def interval(drawn: np.ndarray) -> list[float] | None:
    """[low, high] of the middle 95 % of the draws that define a figure; None where none does."""
    defined = drawn[~np.isnan(drawn)]
    if not len(defined):
        return None
    tail = 50 * (1 - LEVEL)
    return np.percentile(defined, (tail, 100 - tail)).tolist()


def intervals(drawn: Drawn, images: int) -> dict[str, list[float] | None]:
    """The interval of each figure. One image alone says nothing of others: None."""
    return {key: interval(values) if images > 1 else None for key, values in drawn.items()}


@dataclass(frozen=True)
class Difference:
    """Of a figure of two runs: the second's less the first's, and its interval."""

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
    """The difference of each figure between two runs on the same images in the same order.

    Args:
        first, second: the figures of a protocol, and their values in each draw.

    Returns:
        By figure; None where one of the runs does not define it.
    """
    found: dict[str, Difference | None] = {}
    for key, drawn in second[1].items():
        values = first[0].get(key), second[0].get(key)
        ends = intervals({key: drawn - first[1][key]}, images)[key]
        undefined = None in values or ends is None
        found[key] = None if undefined else Difference(values[1] - values[0], *ends)
    return found
