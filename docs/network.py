"""Draws the network of net.py: python docs/network.py docs/network.svg"""

import sys

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

SCALES = 5
INTERIOR, BOUNDARY, FUSED, GREY = "#1f77b4", "#d95f02", "#4d4d4d", "#999999"
STEP = 1.1  # between nodes


def arrow(axes, start, end, colour=GREY, width=1.0) -> None:
    style = {"arrowstyle": "-|>", "color": colour, "lw": width, "shrinkA": 7, "shrinkB": 7}
    axes.annotate("", end, start, arrowprops=style)


def box(axes, place, text, colour, width=2.2, height=0.75) -> None:
    x, y = place
    patch = {"facecolor": "white", "edgecolor": colour, "lw": 1.6}
    axes.add_patch(plt.Rectangle((x - width / 2, y - height / 2), width, height, **patch))
    axes.text(x, y, text, ha="center", va="center", fontsize=9, color=colour)


def stream(axes, left, top, colour, name) -> list[tuple[float, float]]:
    """The nested nodes of a stream: scale i downwards, column j to the right; returns the last of each
    scale."""
    place = {
        (i, j): (left + STEP * j, top - STEP * i) for i in range(SCALES) for j in range(SCALES - i)
    }
    for i, j in place:
        if j == 0:
            seen = [(i - 1, 0)] if i else []
        else:
            seen = [(i, j - 1), (i + 1, j - 1)] + ([(i - 1, j - 1)] if i else [])
        for other in seen:
            arrow(axes, place[other], place[i, j], colour if j else GREY, 0.8)
    for x, y in place.values():
        axes.add_patch(plt.Circle((x, y), 0.17, facecolor=colour, edgecolor="white", zorder=3))
    axes.text(left - 0.3, top + 0.55, f"{name} stream: nested, 5 scales", color=colour, fontsize=10)
    return [place[i, SCALES - 1 - i] for i in range(SCALES)]


def draw(axes) -> None:
    box(axes, (-1.9, 0), "image", FUSED, 1.3)
    heads = {"interior": (13.4, 4.6), "mask": (13.4, 0), "boundary": (13.4, -2.2)}
    for name, colour, top in (("interior", INTERIOR, 5.6), ("boundary", BOUNDARY, -1.2)):
        ends = stream(axes, 0, top, colour, name)
        arrow(axes, (-1.3, 0), (0, top), FUSED)
        middle = top - 1
        for end in ends:
            arrow(axes, end, (6.0, middle), colour, 0.8)
            arrow(axes, end, (7.9, 0), colour, 0.4)
        box(axes, (7.0, middle), "aggregation", colour)
        box(axes, heads[name], f"{name} map", colour)
        arrow(axes, (8.0, middle), (12.4, heads[name][1]), colour)
        side = 0.4 if middle > 0 else -0.4
        arrow(axes, (7.5, middle - side), (11.2, side), colour)
    box(axes, (8.8, 0), "fusion", FUSED)
    box(axes, (11.2, 0), "all three", FUSED, 1.6)
    box(axes, heads["mask"], "mask", FUSED)
    arrow(axes, (9.7, 0), (10.5, 0), FUSED, 1.4)
    arrow(axes, (11.9, 0), (12.5, 0), FUSED, 1.4)


def main(output: str) -> None:
    figure, axes = plt.subplots(figsize=(10, 7.6))
    draw(axes)
    axes.set(xlim=(-2.8, 14.8), ylim=(-6.2, 6.6), aspect="equal")
    axes.axis("off")
    figure.savefig(output, bbox_inches="tight", metadata={"Date": None})


if __name__ == "__main__":
    main(sys.argv[1])
