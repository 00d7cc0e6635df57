"""The embedded synthetic dataset `digit-scenes`: glyphs of many font faces on drawn canvases, a label for each pixel.

Classes: background and 0-9 (csg/labelsets/digit-scenes.yaml). Like the synthetic digits, a scene depends on (seed,
index) alone, and all are written once into the cache, as images/ and labels/.

Shape letters: S side of the scene in pixels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw

from csg.datasets.digit_scenes import SIDE, free_corner
from csg_train.data.embedded import EmbeddedDataset
from csg_train.data.fonts import font_faces
from csg_train.data.synthetic_digits import DIGITS, coverage, texture

VERSION = 1
"""Increased when the drawing changes, so that an old cache is not used."""
GLYPHS = (1, 3)
"""Fewest and most glyphs in a scene."""
GLYPH_SIDE = (36, 72)
"""Smallest side of a glyph in pixels, and the first that is too large."""


def draw_scene(rng: Generator) -> tuple[np.ndarray, np.ndarray]:
    """One scene: image uint8 (S, S, 3), RGB, and label map uint8 (S, S): 0 background, d + 1 the digit d."""
    scene, labels, taken = _canvas(rng), np.zeros((SIDE, SIDE), np.uint8), np.zeros((SIDE, SIDE), bool)
    faces = font_faces()
    for _ in range(rng.integers(GLYPHS[0], GLYPHS[1] + 1)):
        digit, side = int(rng.integers(10)), int(rng.integers(*GLYPH_SIDE))
        glyph = coverage(DIGITS[digit], faces[rng.integers(len(faces))], rng)
        corner = free_corner(taken, side, rng)
        if corner is not None:
            area = np.s_[corner[0] : corner[0] + side, corner[1] : corner[1] + side]
            taken[area] = True
            cover = _seen(glyph, side, rng)
            scene[area] += cover[..., None] * (_ink(scene[area], rng) - scene[area])
            labels[area][cover > 0.5] = digit + 1
    scene += rng.normal(0, rng.uniform(0, 0.04), scene.shape)
    return (scene.clip(0, 1) * 255 + 0.5).astype(np.uint8), labels


def _canvas(rng: Generator) -> np.ndarray:
    """A background, float (S, S, 3) in 0..1: a colour, smooth noise of two sizes, and some shapes."""
    base = rng.uniform(0, 1, 3).astype(np.float32)
    canvas = base + sum(rng.uniform(0, 0.2) * texture(rng, SIDE, knots) for knots in (4, int(rng.integers(8, 64))))
    page = Image.fromarray((np.clip(canvas, 0, 1) * 255).astype(np.uint8))
    pen = ImageDraw.Draw(page)
    for _ in range(rng.integers(0, 13)):
        (left, right), (top, bottom) = (sorted(int(v) for v in rng.integers(-20, SIDE + 20, 2)) for _ in range(2))
        colour = tuple(int(v) for v in rng.integers(0, 256, 3))
        shape = rng.integers(4)
        if shape == 0:
            pen.rectangle((left, top, right, bottom), fill=colour)
        elif shape == 1:
            pen.ellipse((left, top, right, bottom), fill=colour)
        elif shape == 2:
            pen.arc((left, top, right, bottom), 0, int(rng.integers(90, 360)), colour, int(rng.integers(1, 6)))
        else:
            pen.line((left, bottom, right, top), colour, int(rng.integers(1, 6)))
    return np.asarray(page, np.float32) / 255


def _seen(glyph: np.ndarray, side: int, rng: Generator) -> np.ndarray:
    """Coverage of a glyph, float (side, side), at a random sensor resolution from 8 pixels on each side."""
    pixels = int(np.exp(rng.uniform(np.log(8), np.log(side))))
    small = Image.fromarray(glyph).resize((pixels, pixels), Image.Resampling.BOX)
    seen: np.ndarray = np.clip(np.asarray(small.resize((side, side), Image.Resampling.BICUBIC)), 0, 1)
    return seen


def _ink(background: np.ndarray, rng: Generator) -> np.ndarray:
    """A colour, RGB in 0..1, at least 0.3 lighter or darker than the background; half are nearly grey."""
    behind = float(background.mean())
    while True:
        ink = rng.uniform(0, 1, 3)
        if rng.random() < 0.5:
            ink = ink.mean() + 0.1 * (ink - 0.5)
        lightness = np.clip(behind + rng.choice([-1, 1]) * rng.uniform(0.3, 1), 0, 1)
        ink = np.clip(ink - ink.mean() + lightness, 0, 1)
        if abs(ink.mean() - behind) >= 0.3:
            colour: np.ndarray = ink.astype(np.float32)
            return colour


def _write_chunk(folder: Path, seed: int, indices: range) -> int:
    for index in indices:
        image, labels = draw_scene(np.random.default_rng([VERSION, seed, index]))
        Image.fromarray(image).save(folder / "images" / f"{index:06d}.png", compress_level=1)
        Image.fromarray(labels).save(folder / "labels" / f"{index:06d}.png", compress_level=1)
    return len(indices)


DIGIT_SCENES = EmbeddedDataset(
    name="digit-scenes", version=VERSION, folders=("images", "labels"), write_chunk=_write_chunk, chunk=50
)
"""The embedded scenes."""
