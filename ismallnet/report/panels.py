"""Panels of test images: image, maps, prediction, and the outcome by component."""

import cv2
import numpy as np

from ismallnet.files import printable
from ismallnet.report.outcome import COLOURS, Layers, Outcome, Region, Window, window_around

SIDE = 320  # px of a panel's cell
ZOOM = 40  # px of the image in the zoomed row
CAPTION = 26  # px
WHITE = (255, 255, 255)
TITLES = ("image", "mask", "interior", "boundary", "prediction", "outcome")


def enlarged(pixels: np.ndarray, scale: float) -> np.ndarray:
    """Grey or RGB pixels as an RGB picture, every pixel a sharp square."""
    rgb = np.repeat(pixels[..., None], 3, 2) if pixels.ndim == 2 else pixels
    size = [max(1, round(scale * n)) for n in pixels.shape[1::-1]]
    return cv2.resize(np.ascontiguousarray(rgb), size, interpolation=cv2.INTER_NEAREST)


def caption(width: int, *texts: tuple[str, tuple[int, int, int]]) -> np.ndarray:
    """A strip with texts in colours, one beside the other."""
    strip, at = np.zeros((CAPTION, width, 3), np.uint8), 4
    for text, colour in texts:
        text = printable(text)  # OpenCV crashes on bytes that are not UTF-8
        cv2.putText(strip, text, (at, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.5, colour, 1, cv2.LINE_AA)
        at += 12 * len(text)
    return strip


def draw_outcome(
    image: np.ndarray, regions: list[Region], scale: float, window: Window | None = None
) -> np.ndarray:
    """The image, or a window of it, enlarged, with each region's pixels tinted and a frame around it;
    the worst on top."""
    rows, columns = window or (slice(0, image.shape[0]), slice(0, image.shape[1]))
    tinted = image.copy()
    for region in reversed(regions):
        near = tinted[region.box]  # a view
        colour = np.array(COLOURS[region.kind])
        near[region.pixels] = (0.4 * near[region.pixels] + 0.6 * colour).astype(np.uint8)
    picture = enlarged(tinted[rows, columns], scale)
    gap = max(3 * scale, 4)
    for region in reversed(regions):
        (top, bottom), (left, right) = (
            (scale * (own.start - seen.start), scale * (own.stop - seen.start))
            for own, seen in zip(region.box, (rows, columns))
        )
        ends = (round(left - gap), round(top - gap)), (round(right + gap), round(bottom + gap))
        cv2.rectangle(picture, *ends, COLOURS[region.kind], 2)
    return picture


def stretched(pixels: np.ndarray, window: Window) -> np.ndarray:
    """Grey values with those of a window spread over 0-255, so that dim targets can be seen there."""
    values, low = pixels.astype(np.float32), float(pixels[window].min())
    return ((values - low) * (255 / max(pixels[window].max() - low, 1))).clip(0, 255).astype(np.uint8)


def panel(name: str, layers: Layers, own: Outcome) -> np.ndarray:
    """The panel of one image, RGB uint8: a row of whole pictures, a row of zooms, a legend."""
    h, w = layers.mask.shape
    scale, window = SIDE / max(h, w), window_around(own.centre, (h, w), ZOOM)
    zh, zw = layers.mask[window].shape
    wholes = [enlarged(plane, scale) for plane in layers]
    wholes.append(draw_outcome(layers.image, own.regions, scale))
    height, width = wholes[0].shape[:2]
    frame = [(round(scale * side.start), round(scale * side.stop) - 1) for side in reversed(window)]
    cv2.rectangle(wholes[-1], *zip(*frame), WHITE, 1)
    zoom, close = min(width / zw, height / zh), stretched(layers.image, window)
    zooms = [enlarged(plane[window], zoom) for plane in (close, *layers[1:])]
    zooms.append(draw_outcome(close, own.regions, zoom, window))
    columns = []
    for title, whole, near in zip(TITLES, wholes, zooms):
        near = np.pad(near, [(0, height - near.shape[0]), (0, width - near.shape[1]), (0, 0)])
        gap = np.zeros((4, width, 3), np.uint8)
        column = np.vstack([caption(width, (title, WHITE)), whole, gap, near])
        columns += [column, np.full((column.shape[0], 4, 3), 40, np.uint8)]
    picture = np.hstack(columns[:-1])
    head = f"{name}   {w}x{h}   IoU {100 * own.iou:.1f}   zoom: {zw}x{zh} px, contrast stretched"
    legend = [(f"{kind}: {own.count(kind)}", colour) for kind, colour in COLOURS.items()]
    below = caption(picture.shape[1], *legend, ("white frame: zoom", WHITE))
    return np.vstack([caption(picture.shape[1], (head, WHITE)), picture, below])
