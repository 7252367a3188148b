"""Panels of test images: image, maps, prediction, and the outcome by component."""

from pathlib import Path

import cv2
import numpy as np

from ismallnet.datasets.names import printable
from ismallnet.files import read_png, write_png
from ismallnet.report.outcome import COLOURS, Layers, Outcome, Region, window_around

SIDE = 320  # px of a panel's cell
ZOOM = 40  # px of the image in the zoomed row
CAPTION = 26  # px
TITLES = ("image", "mask", "interior", "boundary", "prediction", "outcome")


def cell(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Grey or RGB pixels as an RGB picture of (width, height), every pixel a sharp square."""
    rgb = np.repeat(pixels[..., None], 3, 2) if pixels.ndim == 2 else pixels
    return cv2.resize(np.ascontiguousarray(rgb), size, interpolation=cv2.INTER_NEAREST)


def caption(text: str, width: int, scale: float = 0.5, colour=(255, 255, 255)) -> np.ndarray:
    strip = np.zeros((CAPTION, width, 3), np.uint8)
    text = printable(text)  # OpenCV crashes on bytes that are not UTF-8
    cv2.putText(strip, text, (4, 18), cv2.FONT_HERSHEY_SIMPLEX, scale, colour, 1, cv2.LINE_AA)
    return strip


def draw_outcome(image: np.ndarray, regions: list[Region], scale: float) -> np.ndarray:
    """The image, enlarged, with each region's pixels tinted and a frame around it; the worst on top."""
    h, w = image.shape[:2]
    tinted = image.copy()
    for region in reversed(regions):
        near = tinted[region.box]  # a view
        colour = np.array(COLOURS[region.kind])
        near[region.pixels] = (0.4 * near[region.pixels] + 0.6 * colour).astype(np.uint8)
    picture = cell(tinted, (max(1, round(w * scale)), max(1, round(h * scale))))
    gap = max(3 * scale, 4)
    for region in reversed(regions):
        rows, columns = region.box
        start = (round(columns.start * scale - gap), round(rows.start * scale - gap))
        end = (round(columns.stop * scale + gap), round(rows.stop * scale + gap))
        cv2.rectangle(picture, start, end, COLOURS[region.kind], 2)
    return picture


def stretched(pixels: np.ndarray) -> np.ndarray:
    """The grey values spread over 0-255, so that dim targets can be seen."""
    values = pixels.astype(np.float32)
    return ((values - values.min()) * (255 / max(np.ptp(values), 1))).astype(np.uint8)


def panel(name: str, layers: Layers, found: Outcome) -> np.ndarray:
    """The panel of one image, RGB uint8: a row of whole pictures, a row of zooms, a legend."""
    h, w = found.shape
    scale = SIDE / max(h, w)
    size = (max(1, round(w * scale)), max(1, round(h * scale)))
    window = window_around(found.centre, found.shape, ZOOM)
    top, left = (part.start for part in window)
    zh, zw = layers.mask[window].shape
    zoom = min(size[0] / zw, size[1] / zh)
    zoomed = (max(1, round(zw * zoom)), max(1, round(zh * zoom)))
    regions = found.regions
    close = stretched(layers.image[window])
    wholes = [*(cell(plane, size) for plane in layers), draw_outcome(layers.image, regions, scale)]
    corner = (round(left * scale), round(top * scale))
    end = (round((left + zw) * scale) - 1, round((top + zh) * scale) - 1)
    cv2.rectangle(wholes[-1], corner, end, (255, 255, 255), 1)
    cut = [part for region in regions if (part := region.inside(window))]
    zooms = [cell(close, zoomed), *(cell(plane[window], zoomed) for plane in layers[1:])]
    zooms.append(draw_outcome(close, cut, zoom))
    columns = []
    for title, whole, near in zip(TITLES, wholes, zooms):
        near = np.pad(near, [(0, size[1] - near.shape[0]), (0, size[0] - near.shape[1]), (0, 0)])
        column = np.vstack([caption(title, size[0]), whole, np.zeros((4, size[0], 3), np.uint8), near])
        columns += [column, np.full((column.shape[0], 4, 3), 40, np.uint8)]
    picture = np.hstack(columns[:-1])
    iou = "no target, no prediction" if found.empty else f"IoU {100 * found.iou:.1f}"
    head = caption(
        f"{name}   {w}x{h}   {iou}   zoom: {zw}x{zh} px, contrast stretched", picture.shape[1]
    )
    return np.vstack([head, picture, legend(found, picture.shape[1])])


def legend(found: Outcome, width: int) -> np.ndarray:
    strip, at = caption("", width), 4
    entries = [(f"{kind}: {found.count(kind)}", colour) for kind, colour in COLOURS.items()]
    for text, colour in [*entries, ("white frame: zoom", (255, 255, 255))]:
        cv2.putText(strip, text, (at, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.5, colour, 1, cv2.LINE_AA)
        at += 12 * len(text)
    return strip


def montage(folder: Path, ious: dict[str, float], each: int) -> Path | None:
    """The worst and the best images by IoU, one panel below the other, at half size; returns where, or
    None where there are no images.

    Args:
        folder: of the panels.
        ious: by the images' names.
    """
    ranked = sorted(ious, key=lambda name: (ious[name], name))
    worst, best = ranked[:each], ranked[max(len(ranked) - each, each) :][::-1]
    strips = []
    for title, group in ((f"{len(worst)} worst by IoU", worst), (f"{len(best)} best by IoU", best)):
        pictures = [read_png(folder / f"{name}.png") for name in group]
        if pictures:
            half = {"dsize": None, "fx": 0.5, "fy": 0.5, "interpolation": cv2.INTER_AREA}
            strips += [title, *(cv2.resize(p, **half) for p in pictures)]
    path = folder.parent / "montage.png"
    if not strips:
        path.unlink(missing_ok=True)  # of other maps
        return None
    width = max(s.shape[1] for s in strips if not isinstance(s, str))
    stack = []
    for s in strips:
        s = caption(s, width, 0.6) if isinstance(s, str) else s
        stack.append(np.pad(s, ((0, 6), (0, width - s.shape[1]), (0, 0))))
    write_png(path, np.vstack(stack))
    return path
