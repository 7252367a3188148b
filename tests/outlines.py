"""Annotation files that tests make, and the masks that come of them."""

import json
from pathlib import Path

import cv2
import numpy as np
from conftest import write

from utils import main

TARGET = [12, 10, 16, 10, 16, 13, 12, 13]  # the outline of target_mask's 3x4 pixels at (10, 12)


def coco(annotations: list, names="abcd", size=(40, 48), **more) -> dict:
    """A COCO file of pictures a.png, …, ids from 1."""
    height, width = size
    images = [
        {"id": k, "file_name": f"{name}.png", "height": height, "width": width}
        for k, name in enumerate(names, start=1)
    ]
    entries = [{"id": 10 + k, "category_id": 1, **one} for k, one in enumerate(annotations)]
    return {
        "images": images,
        "annotations": entries,
        "categories": [{"id": 1, "name": "drone"}, {"id": 2, "name": "bird"}],
        **more,
    }


def labelme(shapes: list, name="a.png", size=(40, 48)) -> dict:
    return {
        "version": "5.5.0",
        "shapes": [{"label": "target", **shape} for shape in shapes],
        "imagePath": name,
        "imageData": "AAAA" * 10,
        "imageHeight": size[0],
        "imageWidth": size[1],
    }


def save(content, path="labels.json") -> str:
    write(Path(path), json.dumps(content))
    return str(path)


def polygon_of(*numbers: float) -> dict:
    return {"image_id": 1, "segmentation": [list(numbers)]}


def draw(content, *flags: str) -> None:
    main(["--dataset", "tiny", "--from-annotations", save(content), *flags])


def mask(name: str, folder="data/tiny/masks") -> np.ndarray:
    return cv2.imread(f"{folder}/{name}.png", cv2.IMREAD_UNCHANGED)
