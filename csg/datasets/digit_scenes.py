"""The embedded real scenes: scikit-learn's scanned handwritten digits on its two photographs, with masks.

Each scan is used in one scene at most. The strokes are those of the scans, enlarged, and dark or light against the
photograph; a pixel belongs to a digit if the stroke covers more than half of it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.random import Generator
from PIL import Image

VERSION = 1
"""Version of the scenes, part of their folder's name in the cache; to be increased if they change."""
SIDE = 96
"""Height and width of a scene in pixels."""
SCENES = 250
"""Number of scenes."""
DIGITS_A_SCENE = (1, 3)
"""Minimum and maximum number of digits in a scene."""
DIGIT_SIDE = (40, 64)
"""Range of a digit's side in pixels, the upper end excluded."""


def write_real_scenes(folder: Path) -> None:
    """Write the scenes as PNG files: images/ and labels/ (csg/labelsets/digit-scenes.yaml); always the same ones."""
    from sklearn.datasets import load_digits, load_sample_images

    scans, photographs = load_digits(), load_sample_images().images
    rng = np.random.default_rng([VERSION, 0])
    order = iter(rng.permutation(len(scans.images)))
    for kind in ("images", "labels"):
        (folder / kind).mkdir()
    for number in range(SCENES):
        scene = _crop(photographs[number % len(photographs)], rng)
        mask = np.zeros((SIDE, SIDE), np.uint8)
        for _ in range(rng.integers(DIGITS_A_SCENE[0], DIGITS_A_SCENE[1] + 1)):
            scan = next(order)
            side = int(rng.integers(*DIGIT_SIDE))
            corner = free_corner(mask > 0, side, rng)
            if corner is not None:
                area = np.s_[corner[0] : corner[0] + side, corner[1] : corner[1] + side]
                _blend(scene[area], mask[area], scans.images[scan] / 16, int(scans.target[scan]))
        Image.fromarray((scene * 255).round().astype(np.uint8)).save(folder / "images" / f"{number:04d}.png")
        Image.fromarray(mask).save(folder / "labels" / f"{number:04d}.png")


def free_corner(occupied: np.ndarray, side: int, rng: Generator) -> tuple[int, int] | None:
    """Find a free square by up to twenty random draws.

    Args:
        occupied: bool (S, S).
        side: side of the square in pixels.
        rng: the source of the draws.

    Returns:
        Top and left of the square; None if no draw was free.
    """
    for _ in range(20):
        top, left = (int(corner) for corner in rng.integers(0, len(occupied) - side + 1, 2))
        if not occupied[top : top + side, left : left + side].any():
            return top, left
    return None


def _crop(photograph: np.ndarray, rng: Generator) -> np.ndarray:
    """A random square of a photograph, resized: float32 (S, S, 3) in 0..1."""
    side = int(rng.integers(SIDE, 2 * SIDE))
    top, left = (int(rng.integers(0, extent - side + 1)) for extent in photograph.shape[:2])
    square = Image.fromarray(photograph[top : top + side, left : left + side])
    return np.asarray(square.resize((SIDE, SIDE), Image.Resampling.BILINEAR), np.float32) / 255


def _blend(scene: np.ndarray, mask: np.ndarray, scan: np.ndarray, digit: int) -> None:
    """Blend a scan into a square of a scene and of its mask: dark on a light photograph, light on a dark one.

    Args:
        scene: float32 (S, S, 3) in 0..1, changed in place.
        mask: uint8 (S, S), changed in place.
        scan: strokes of the digit, float (8, 8) in 0..1.
        digit: the digit, 0 to 9; its value in the mask is one more.
    """
    side = len(mask)
    enlarged = Image.fromarray(scan.astype(np.float32)).resize((side, side), Image.Resampling.BICUBIC)
    cover = np.clip(np.asarray(enlarged), 0, 1)
    ink = 0.05 if scene.mean() > 0.5 else 0.95
    scene += cover[..., None] * (ink - scene)
    mask[cover > 0.5] = digit + 1
