"""The real side of the embedded scenes: scikit-learn's scanned handwriting laid on its two photographs, masks known.

A scan stands in one scene at most. Nothing is drawn: the strokes are the scans' own, enlarged, darkened or lightened
against the photograph, and the mask is where a stroke covers more than half.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.random import Generator
from PIL import Image

VERSION = 1  # counts up when the scenes change
SIDE = 96  # pixels
SCENES = 250
DIGITS_A_SCENE = (1, 3)
DIGIT_SIDE = (40, 64)


def write_real_scenes(folder: Path) -> None:
    """Write images/ and labels/ (csg/labelsets/digit-scenes.yaml), 96 x 96 PNG files; always the same ones."""
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
                _lay(scene, mask, scans.images[scan] / 16, int(scans.target[scan]), corner, side)
        Image.fromarray((scene * 255).round().astype(np.uint8)).save(folder / "images" / f"{number:04d}.png")
        Image.fromarray(mask).save(folder / "labels" / f"{number:04d}.png")


def free_corner(taken: np.ndarray, side: int, rng: Generator) -> tuple[int, int] | None:
    """Top and left of a square of `side` without a taken pixel, from twenty random places; None if there is none."""
    for _ in range(20):
        top, left = (int(place) for place in rng.integers(0, len(taken) - side + 1, 2))
        if not taken[top : top + side, left : left + side].any():
            return top, left
    return None


def _crop(photograph: np.ndarray, rng: Generator) -> np.ndarray:
    """A random square of a photograph, float (S, S, 3) in 0..1."""
    side = int(rng.integers(SIDE, 2 * SIDE))
    top, left = (int(rng.integers(0, extent - side + 1)) for extent in photograph.shape[:2])
    square = Image.fromarray(photograph[top : top + side, left : left + side])
    return np.asarray(square.resize((SIDE, SIDE), Image.Resampling.BILINEAR), np.float32) / 255


def _lay(scene: np.ndarray, mask: np.ndarray, scan: np.ndarray, digit: int, corner: tuple[int, int], side: int) -> None:
    """Lay a scan over the scene, in dark ink where the photograph is light and the other way round; in place."""
    enlarged = Image.fromarray(scan.astype(np.float32)).resize((side, side), Image.Resampling.BICUBIC)
    cover = np.clip(np.asarray(enlarged), 0, 1)
    place = np.s_[corner[0] : corner[0] + side, corner[1] : corner[1] + side]
    ink = 0.05 if scene[place].mean() > 0.5 else 0.95
    scene[place] += cover[..., None] * (ink - scene[place])
    mask[place][cover > 0.5] = digit + 1
