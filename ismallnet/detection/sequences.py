"""What only the frames of a sequence show together: hot pixels, confirmed targets."""

import sys
from collections import Counter
from collections.abc import Iterable

from tqdm import tqdm

from ismallnet.cli import some
from ismallnet.detection.tracks import Confirmation

HOT_FRAMES, HOT_SHARE = 10, 0.9  # of a sequence, in which a hot pixel stays: at least


def by_sequence(entries: Iterable[dict]) -> dict[str, list[dict]]:
    """The records of each sequence, in order."""
    sequences: dict[str, list[dict]] = {}
    for entry in entries:
        sequences.setdefault(entry["sequence"], []).append(entry)
    return sequences


def settle(sequences: dict[str, list[dict]], rule: Confirmation | None) -> None:
    """Sets aside in the records what is no target in its sequence: as `hot` single pixels that stay in
    place, with a rule as `unconfirmed` what is seen too seldom; others get the numbers of their tracks.
    Again after more frames it begins anew."""
    tracks = 0
    for name, frames in sequences.items():
        for entry in frames:
            entry["targets"] = all_targets(entry)
        if places := set_hot_aside(frames):
            text = "single pixels that stay in place were left out as hot pixels (y, x)"
            places = some([str(place) for place in places])
            tqdm.write(f"note: {name}: {text}: {places}", sys.stderr)
        tracks += confirm(frames, rule, tracks) if rule else 0
    if rule:
        print(f"{tracks} tracks, seen in {rule.seen} of {rule.of} frames")


def all_targets(entry: dict) -> list[dict]:
    """The targets of a record, also those that were set aside; the highest score first."""
    targets = [*entry["targets"], *entry.pop("hot", ()), *entry.pop("unconfirmed", ())]
    targets = [{key: value for key, value in t.items() if key != "track"} for t in targets]
    return sorted(targets, key=lambda t: (-t["score"], t["y"], t["x"]))


def set_hot_aside(frames: list[dict]) -> list[tuple[int, int]]:
    """Moves the targets on hot pixels of a sequence to `hot`; returns their places (y, x)."""
    counts: Counter[tuple[int, int]] = Counter()
    for entry in frames:
        counts.update({tuple(t["spike"]) for t in entry["targets"] if "spike" in t})
    least = max(HOT_FRAMES, HOT_SHARE * len(frames))
    places = sorted(place for place, count in counts.items() if count >= least)
    for entry in frames if places else ():
        hot = [t for t in entry["targets"] if tuple(t.get("spike", ())) in places]
        entry["targets"] = [t for t in entry["targets"] if t not in hot]
        entry |= {"hot": hot} if hot else {}
    return places


def confirm(frames: list[dict], rule: Confirmation, tracks: int) -> int:
    """Gives the targets of a sequence the numbers of their tracks, after those of `tracks` before, and
    moves those that are not confirmed to `unconfirmed`; returns the number of its tracks."""
    sightings = [[(t["x"], t["y"]) for t in entry["targets"]] for entry in frames]
    numbers = rule.numbers(sightings)
    for entry, own in zip(frames, numbers):
        pairs = list(zip(entry["targets"], own, strict=True))
        entry["targets"] = [t | {"track": tracks + number} for t, number in pairs if number]
        entry["unconfirmed"] = [t for t, number in pairs if not number]
    return max((number or 0 for own in numbers for number in own), default=0)
