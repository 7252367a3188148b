"""Panels of test images: image, maps, prediction, and the outcome by component."""

from pathlib import Path

import cv2
import numpy as np

from ismallnet.files import write_png
from ismallnet.metrics import count_standard
from ismallnet.report.page import COLOURS, outcome

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
    cv2.putText(strip, text, (4, 18), cv2.FONT_HERSHEY_SIMPLEX, scale, colour, 1, cv2.LINE_AA)
    return strip


def draw_outcome(image: np.ndarray, regions: list, scale: float) -> np.ndarray:
    """The image, enlarged, with each component's pixels tinted and a frame around it."""
    h, w = image.shape[:2]
    tinted = image.copy()
    for kind, region in regions:
        tinted[region] = (0.4 * tinted[region] + 0.6 * np.array(COLOURS[kind])).astype(np.uint8)
    picture = cell(tinted, (max(1, round(w * scale)), max(1, round(h * scale))))
    for kind, region in regions:
        y, x = np.nonzero(region)
        gap = max(3 * scale, 4)
        start = (round(x.min() * scale - gap), round(y.min() * scale - gap))
        end = (round((x.max() + 1) * scale + gap), round((y.max() + 1) * scale + gap))
        cv2.rectangle(picture, start, end, COLOURS[kind], 2)
    return picture


def panel(name: str, planes: list[np.ndarray], pred: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The panel of one image, RGB uint8: a row of whole pictures, a row of zooms, a legend.

    Args:
        planes: image (HxWx3) and then the HxW maps to show, prediction last.
    """
    regions = outcome(pred, mask)
    image = planes[0]
    h, w = image.shape[:2]
    scale = SIDE / max(h, w)
    size = (max(1, round(w * scale)), max(1, round(h * scale)))
    worst = sorted(regions, key=lambda r: ("miss", "false alarm", "hit").index(r[0]))
    y, x = np.nonzero(worst[0][1]) if worst else (np.array([h // 2]), np.array([w // 2]))
    top = int(np.clip(y.mean() - ZOOM / 2, 0, max(h - ZOOM, 0)))
    left = int(np.clip(x.mean() - ZOOM / 2, 0, max(w - ZOOM, 0)))
    window = (slice(top, top + ZOOM), slice(left, left + ZOOM))
    zh, zw = image[window].shape[:2]
    zoom = min(size[0] / zw, size[1] / zh)
    zoomed = (max(1, round(zw * zoom)), max(1, round(zh * zoom)))
    cut = [(kind, region[window]) for kind, region in regions if region[window].any()]
    close = image[window].astype(np.float32)  # dim targets show in the zoom: its contrast is stretched
    close = ((close - close.min()) * (255 / max(np.ptp(close), 1))).astype(np.uint8)
    columns = []
    for title, plane in zip(TITLES, [*planes, None]):
        whole = draw_outcome(image, regions, scale) if plane is None else cell(plane, size)
        near = (
            draw_outcome(close, cut, zoom)
            if plane is None
            else cell(close if plane is image else plane[window], zoomed)
        )
        near = np.pad(near, [(0, size[1] - near.shape[0]), (0, size[0] - near.shape[1]), (0, 0)])
        if plane is None:
            corner = (round(left * scale), round(top * scale))
            end = (round((left + zw) * scale) - 1, round((top + zh) * scale) - 1)
            cv2.rectangle(whole, corner, end, (255, 255, 255), 1)
        column = np.vstack([caption(title, size[0]), whole, np.zeros((4, size[0], 3), np.uint8), near])
        columns += [column, np.full((column.shape[0], 4, 3), 40, np.uint8)]
    picture = np.hstack(columns[:-1])
    n = {kind: sum(k == kind for k, _ in regions) for kind in COLOURS}
    counts = count_standard(pred, mask)
    union = counts["tp"] + counts["fp"] + counts["fn"]
    iou = f"IoU {100 * counts['tp'] / union:.1f}" if union else "nothing to find, nothing found"
    head = caption(
        f"{name}   {w}x{h}   {iou}   zoom: {zw}x{zh} px, contrast stretched", picture.shape[1]
    )
    foot, at = caption("", picture.shape[1]), 4
    legend = [(f"{kind}: {n[kind]}", colour) for kind, colour in COLOURS.items()]
    for text, colour in [*legend, ("white frame: zoom", (255, 255, 255))]:
        cv2.putText(foot, text, (at, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.5, colour, 1, cv2.LINE_AA)
        at += 12 * len(text)
    return np.vstack([head, picture, foot])


def montage(folder: Path, rows: list[tuple], each: int) -> None:
    """The worst and the best images by IoU, one panel below the other, at half size."""
    ranked = sorted((r for r in rows if r[2]), key=lambda r: (r[1] / r[2], r[0]))
    worst, best = ranked[:each], ranked[max(len(ranked) - each, each) :][::-1]
    strips = []
    for title, group in ((f"{len(worst)} worst by IoU", worst), (f"{len(best)} best by IoU", best)):
        pictures = [cv2.imread(str(folder / f"{row[0]}.png"))[..., ::-1] for row in group]
        if pictures:
            half = {"dsize": None, "fx": 0.5, "fy": 0.5, "interpolation": cv2.INTER_AREA}
            strips += [title, *(cv2.resize(p, **half) for p in pictures)]
    if not strips:
        return
    width = max(s.shape[1] for s in strips if not isinstance(s, str))
    stack = []
    for s in strips:
        s = caption(s, width, 0.6) if isinstance(s, str) else s
        stack.append(np.pad(s, ((0, 6), (0, width - s.shape[1]), (0, 0))))
    write_png(folder.parent / "montage.png", np.vstack(stack))
