"""Label decoupling: a data set's masks -> interior and boundary maps.

    python utils.py --dataset NUAA-SIRST
    python utils.py --dataset mine --from-annotations instances.json    # masks first, of outlines

The maps go to data/NAME/{interior,boundary}/X.png, with maps.json beside them, which records what
they were made from: maps that are still good are kept.
"""

if __name__ == "__main__":
    import ismallnet.threads  # noqa: F401  before PyTorch

import argparse
import sys

from ismallnet.arguments import add_data_arguments, given_reading, open_datasets, refuse_idle
from ismallnet.cli import DataError, HelpFormatter, command, gone, positive, summary
from ismallnet.datasets.polygons import draw_masks
from ismallnet.labels import METHODS, decouple, decouple_dataset, maps_lock
from ismallnet.parallel import cores

__all__ = ["decouple", "main"]


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=summary(__doc__), formatter_class=HelpFormatter)
    add_data_arguments(parser, images=False, maps=True)
    add = parser.add_argument
    methods = {"choices": tuple(METHODS), "default": "authors"}
    add("--method", "--labels", **methods, help="the authors' code, or the formula of Wei et al.")
    add("--workers", type=positive, default=cores(), metavar="N", help="processes")
    add("--force", action="store_true", help="make all maps again")
    add = parser.add_argument_group("masks from annotations").add_argument
    files = "COCO or labelme .json, or a folder of them: write NAME/masks first"
    add("--from-annotations", metavar="FILE", help=files)
    add("--overwrite", action="store_true", help="replace masks that are there")
    gone(parser, "--outline-pixels", "draw outlines of findContours with cv2.fillPoly, as PNG masks")
    return parser


def make_masks(args: argparse.Namespace) -> None:
    """Masks from annotations, where they are asked for."""
    if not args.from_annotations:
        refuse_idle(build_parser(), args, ("overwrite",), "without --from-annotations")
        return
    if len(args.dataset) != 1:
        raise DataError(f"--from-annotations: found {len(args.dataset)} data sets, expected one")
    options = args.split, given_reading(args), args.overwrite
    print(*draw_masks(args.dataset[0], args.data_root, args.from_annotations, *options), sep="\n")


@command("maps that are done are kept; type the same command to continue")
def main(argv: list[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    make_masks(args)
    for data in open_datasets(args):
        options = (args.method, args.mask_threshold, args.workers, args.force)
        with maps_lock([data], args.maps_root):
            print(decouple_dataset(data, args.maps_root, *options))


if __name__ == "__main__":
    sys.exit(main())
