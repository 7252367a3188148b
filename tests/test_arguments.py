"""The flags of data sets."""

import numpy as np
import pytest
from conftest import write

import test
from dataset import Frames
from ismallnet.arguments import grey_range
from ismallnet.cli import DataError
from ismallnet.datasets.find import find_dataset
from ismallnet.images.grey import GreyRange
from train import build_parser


@pytest.mark.parametrize(
    "flags, named",
    [
        (["--percentiles", "5", "5"], "--percentiles: found 5 5"),
        (["--percentiles", "0", "101"], "--percentiles: found 0 101"),
        (["--range", "5", "5"], "--range: found 5 5"),
        (["--range", "0", "3", "--percentiles", "0", "100"], "--range and --percentiles"),
    ],
)
def test_wrong_percentiles_and_ranges(flags, named):
    with pytest.raises(DataError, match=named):
        grey_range(build_parser().parse_args(flags))


def test_the_grey_values_of_the_weights_training_are_compared(data):
    for name in "cd":
        write(data / f"images/{name}.png", np.arange(7000, 8920, dtype=np.uint16).reshape(40, 48))
    own = {"dataset": ["tiny"], "args": {"range": [7000, 9000]}}
    for info, grey, told in (
        (own, GreyRange(), "--range 7000 9000; type it here too"),
        (own, GreyRange((7000, 9000)), ""),
        ({"dataset": ["o"], "args": {"range": None}}, GreyRange((7000, 9000)), ""),  # o had 8 bits
    ):
        frames = Frames(find_dataset("tiny"), "test", grey=grey)
        assert told in "".join(test.training_notes(info, "tiny", frames, None))
        assert bool(told) == bool(list(test.training_notes(info, "tiny", frames, None)))
