"""Images with masks on disk."""

import numpy as np
from PIL import Image

CITYSCAPES_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""Mask values of Cityscapes' 19 classes (docs/method.md section 7)."""


def save_image(path, pixels):
    """Write an array as an image file, and return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def write_gta5(folder):
    """Write two images as GTA5 stores them: images/00001.png, labels/00001.png with a palette and Cityscapes' ids."""
    rng = np.random.default_rng(0)
    for number in (1, 2):
        save_image(folder / "images" / f"{number:05d}.png", rng.integers(0, 256, (40, 60, 3), dtype=np.uint8))
        mask = Image.fromarray(rng.choice([*CITYSCAPES_IDS, 0, 4], (40, 60)).astype(np.uint8))
        mask.putpalette(list(range(256)) * 3)
        (folder / "labels").mkdir(exist_ok=True)
        mask.save(folder / "labels" / f"{number:05d}.png")
    return folder
