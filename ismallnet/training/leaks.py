"""Test images that a network has seen in its training, which makes its figures too good."""

from dataset import Frames
from ismallnet.cli import some
from ismallnet.datasets.oddities import same_files
from ismallnet.inference.weights import seen_of


def copies_note(train: list[Frames], test: list[Frames]) -> str:
    """A warning where a training image, of any data set, is byte for byte a test image of any; empty
    where none is."""
    seen, tested = ([s for frames in lists for s in frames.samples] for lists in (train, test))
    pairs = [f"{sample.image} = {other.image}" for sample, other in same_files(seen, tested)]
    if not pairs:
        return ""
    return (
        f"warning: {len(pairs)} images that are tested on are copies of training images: "
        f"{some(pairs, 3)}. The figures are too good: take them out of one of the lists"
    )


def seen_note(flag: str, file: str, info: dict, tested: dict[str, list[str]], hold_out: int) -> str:
    """A warning where other weights have learned from images that this training is tested on; empty
    where they have not, or where they do not say.

    Args:
        flag: --init or --distill.
        info: what the weights say of themselves.
        tested: the names of the images, by data set.
    """
    known = {dataset: seen_of(info, dataset, names) for dataset, names in tested.items()}
    if None not in known.values():
        seen = [name for names in known.values() for name in names]
        if not seen:
            return ""
        return (
            f"warning: {flag} {file} has learned from {len(seen)} of the "
            f"{sum(map(len, tested.values()))} images that are tested on here, {some(seen)}, so their "
            "figures are too good; take weights of a training with the same lists"
        )
    args = info.get("args") if isinstance(info.get("args"), dict) else {}
    names = info.get("dataset") if isinstance(info.get("dataset"), list) else []
    both = [name for name in tested if name in names]
    if not hold_out or not both or args.get("hold_out") == hold_out:
        return ""
    return (
        f"warning: {flag} {file} was trained on images of {', '.join(both)} that are held out here, so "
        "the figures on these are too good; take weights of a training with the same --hold-out "
        f"{hold_out}"
    )
