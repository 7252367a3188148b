"""Label decoupling: a data set's masks -> interior and boundary maps.

    python utils.py --dataset NUAA-SIRST

The maps go to data/NAME/{interior,boundary}/X.png, with maps.json beside them, which records what
they were made from: maps that are still good are kept.
"""

import argparse
import sys

from dataset import (
    add_data_arguments,
    open_datasets,
)
from ismallnet.cli import HelpFormatter, command, cores
from ismallnet.labels import METHODS, decouple, decouple_dataset

__all__ = ["decouple", "main"]


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0],
        formatter_class=HelpFormatter,
    )
    add_data_arguments(parser, images=False, maps=True)
    add = parser.add_argument
    add("--method", "--labels", choices=METHODS, default="authors", help="published code or formula")
    add("--workers", type=int, default=cores(), metavar="N", help="processes")
    add("--force", action="store_true", help="make all maps again")
    return parser


@command("maps that are done are kept; type the same command to continue")
def main(argv: list[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    for data in open_datasets(args):
        print(
            decouple_dataset(
                data, args.maps_root, args.method, args.mask_threshold, max(args.workers, 1), args.force
            )
        )


if __name__ == "__main__":
    sys.exit(main())
