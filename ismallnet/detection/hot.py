"""Hot pixels: single pixels that stand out at the same place all through a sequence."""

import numpy as np

FRAMES = 10  # of a sequence, at least
SHARE = 0.9  # of them
SHARPNESS = 4  # times as far above its surroundings as its brightest neighbour


def spike(pixels: np.ndarray, target) -> tuple[int, int] | None:
    """Where a target is a single pixel, (y, x): what a lens shows is wider than that.

    Args:
        pixels: HxW or HxWx3.
        target: a detector.Target.
    """
    left, top, width, height = target.box
    grey = pixels[max(top - 1, 0) : top + height + 1, max(left - 1, 0) : left + width + 1].astype(float)
    grey = grey.mean(axis=2) if grey.ndim == 3 else grey
    grey = grey if target.polarity == "bright" else -grey
    level = grey - np.median(grey)
    y, x = np.unravel_index(level.argmax(), level.shape)
    peak, level[y, x] = level[y, x], 0
    if peak <= 0 or peak < SHARPNESS * level.max():
        return None
    return int(y + max(top - 1, 0)), int(x + max(left - 1, 0))


def set_aside(entries: list[dict]) -> dict[str, list[list[int]]]:
    """Moves the targets on hot pixels from `targets` to `hot` in the records of all frames; returns
    their places (y, x) by sequence."""
    sequences: dict[str, list[dict]] = {}
    for entry in entries:
        of_earlier_calls = [*entry.pop("hot", []), *entry.pop("unconfirmed", [])]
        entry["targets"] = sorted([*entry["targets"], *of_earlier_calls], key=lambda t: -t["score"])
        sequences.setdefault(entry["sequence"], []).append(entry)
    places = {}
    for name, frames in sequences.items():
        seen: dict[tuple, int] = {}
        for entry in frames:
            for place in {tuple(t["spike"]) for t in entry["targets"] if "spike" in t}:
                seen[place] = seen.get(place, 0) + 1
        least = max(FRAMES, SHARE * len(frames))
        if hot := sorted(place for place, count in seen.items() if count >= least):
            places[name] = [list(place) for place in hot]
    for name, hot in places.items():
        for entry in sequences[name]:
            entry["hot"] = [t for t in entry["targets"] if t.get("spike") in hot]
            entry["targets"] = [t for t in entry["targets"] if t.get("spike") not in hot]
    return places
