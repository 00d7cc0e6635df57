"""The embedded synthetic dataset `digits`: glyphs of many font faces in random colours, textures and shapes.

Ten classes, 0-9. An image depends on (seed, index) alone, so the dataset does not depend on the number of processes
that draw it. It is written once into the cache as class folders of PNG files, which people can open and training reads
like any other dataset.

Shape letters: S side of the image in pixels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from csg_train.data.embedded import EmbeddedDataset
from csg_train.data.fonts import font_faces

DIGITS = "0123456789"
SIDE = 64
VERSION = 2
"""Increased when the drawing changes, so that an old cache is not used."""


def draw(digit: int, face: Path, rng: Generator) -> np.ndarray:
    """One synthetic image of `digit`: uint8 (S, S, 3), RGB."""
    glyph = coverage(DIGITS[digit], face, rng)
    ink, paper = _two_colours(rng)
    paper_S = paper + rng.uniform(0, 0.12) * texture(rng, SIDE, int(rng.integers(2, 17)))
    ink_S = ink + rng.uniform(0, 0.10) * texture(rng, SIDE, int(rng.integers(2, 17)))
    image = paper_S + glyph[..., None] * (ink_S - paper_S)
    image = _sensor(image, rng)
    image += rng.normal(0, rng.uniform(0, 0.04), image.shape)
    return (image.clip(0, 1) * 255 + 0.5).astype(np.uint8)


def coverage(character: str, face: Path, rng: Generator) -> np.ndarray:
    """The share of each pixel that a character covers, float (S, S) in 0..1, randomly stretched and warped."""
    return _warp(_glyph(character, face, rng), rng)


def _glyph(character: str, face: Path, rng: Generator) -> np.ndarray:
    """Coverage of the glyph, float (S, S) in 0..1: its ink box has 65-100 % of the height and 12-85 % of the width."""
    font = ImageFont.truetype(str(face), 96)
    stroke = int(rng.integers(0, 5))
    left, top, right, bottom = (int(v) for v in font.getbbox(character, stroke_width=stroke))
    page = Image.new("L", (right - left, bottom - top))
    ImageDraw.Draw(page).text((-left, -top), character, font=font, fill=255, stroke_width=stroke)
    if character == "7" and rng.random() < 0.5:
        _cross(page, rng)
    height = int(SIDE * rng.uniform(0.65, 1.0))
    natural = height * page.width / page.height
    width = int(np.clip(natural * rng.uniform(0.75, 1.3), 0.12 * SIDE, 0.85 * SIDE))
    page = page.resize((width, height), Image.Resampling.BILINEAR)
    canvas = Image.new("L", (SIDE, SIDE))
    free_x, free_y = SIDE - width, SIDE - height
    canvas.paste(page, (int(free_x * rng.uniform(0.25, 0.75)), int(free_y * rng.uniform(0.1, 0.9))))
    return np.asarray(canvas, np.float32) / 255


def _cross(page: Image.Image, rng: Generator) -> None:
    """Draw a bar through the stem of a seven, as many people write it and no font does."""
    start, end = (rng.uniform(0, 0.3), rng.uniform(0.4, 0.65)), (rng.uniform(0.65, 1), rng.uniform(0.4, 0.65))
    ends = [(round(x * page.width), round(y * page.height)) for x, y in (start, end)]
    ImageDraw.Draw(page).line(ends, fill=255, width=round(page.height * rng.uniform(0.06, 0.16)))


def _warp(glyph: np.ndarray, rng: Generator) -> np.ndarray:
    """Random rotation, shear and elastic displacement around the centre."""
    angle, shear = rng.normal(0, 0.12), rng.normal(0, 0.15)
    cos, sin = np.cos(angle), np.sin(angle)
    matrix = np.array([[cos, -sin], [sin, cos]]) @ np.array([[1, 0], [shear, 1]])
    centre = (SIDE - 1) / 2
    grid = np.indices((SIDE, SIDE), dtype=np.float32) - centre
    coordinates = np.tensordot(matrix, grid, 1) + centre
    knots = int(rng.integers(3, 6))
    strength = rng.uniform(0, 0.30) * SIDE / knots
    shift = rng.normal(0, strength, (2, knots, knots)).astype(np.float32)
    coordinates += np.stack([_enlarge(s, SIDE) for s in shift])
    return np.asarray(ndimage.map_coordinates(glyph, coordinates, order=1, mode="constant"))


def _enlarge(small: np.ndarray, side: int) -> np.ndarray:
    """A small array, float (n, n), enlarged smoothly to float (side, side)."""
    return np.asarray(Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC))


def _two_colours(rng: Generator) -> tuple[np.ndarray, np.ndarray]:
    """Colours of ink and paper, RGB in 0..1, whose lightness differs by at least 0.35."""
    while True:
        ink, paper = rng.uniform(0, 1, (2, 3))
        if rng.random() < 0.5:  # half of the images are nearly grey, like scans
            ink, paper = ink.mean() + 0.05 * (ink - 0.5), paper.mean() + 0.05 * (paper - 0.5)
            ink, paper = (np.where(c > 0.5, 1 - (1 - c) * 0.5, c * 0.5) for c in (ink, paper))
        if abs(ink.mean() - paper.mean()) >= 0.35:
            return ink.astype(np.float32), paper.astype(np.float32)


def texture(rng: Generator, side: int, knots: int) -> np.ndarray:
    """Smooth coloured noise around zero, float (side, side, 3), drawn on a grid of knots x knots."""
    noise = rng.normal(0, 1, (knots, knots, 3)).astype(np.float32)
    return np.stack([_enlarge(noise[..., c], side) for c in range(3)], axis=-1)


def _sensor(image: np.ndarray, rng: Generator) -> np.ndarray:
    """Blur and a random sensor resolution, log-uniform from 8 to S pixels on each side, enlarged to S again."""
    image = ndimage.gaussian_filter(image, (blur := rng.uniform(0, 1.2), blur, 0))
    pixels = int(np.exp(rng.uniform(np.log(8), np.log(SIDE))))
    planes = [Image.fromarray(image[..., c]) for c in range(3)]
    small = (p.resize((pixels, pixels), Image.Resampling.BOX) for p in planes)
    return np.stack([np.asarray(p.resize((SIDE, SIDE), Image.Resampling.BILINEAR)) for p in small], axis=-1)


def _write_chunk(folder: Path, seed: int, indices: range) -> int:
    faces = font_faces()
    for index in indices:
        rng = np.random.default_rng([VERSION, seed, index])
        digit = index % len(DIGITS)
        image = draw(digit, faces[rng.integers(len(faces))], rng)
        Image.fromarray(image).save(folder / DIGITS[digit] / f"{index:06d}.png", compress_level=1)
    return len(indices)


SYNTHETIC_DIGITS = EmbeddedDataset(
    name="digits", version=VERSION, folders=tuple(DIGITS), write_chunk=_write_chunk, chunk=250
)
"""The embedded digits."""
