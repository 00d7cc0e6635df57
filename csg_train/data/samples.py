"""The picture of `csg data check`: samples of each class, or of scenes with their masks and a legend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from csg.card import Colour
from csg.datasets.check import sample_of
from csg.datasets.classification import ClassificationDataset
from csg.datasets.label_sets import LabelSet
from csg.datasets.segmentation import SegmentationDataset
from csg.errors import printable
from csg.images import decode
from csg.overlays import overlay

THUMB, IMAGES, CLASSES = 96, 6, 24
"""Side of a sample in pixels, samples of a class in each set, and classes in a picture."""
SCENE, SCENES = 320, 4
"""Width of a scene in pixels, and scenes of each set."""
NAME, LEGEND = 190, 160
"""Largest width in pixels of the column of class names, and width of an entry of the legend."""
GAP, LINE, TEXT = 12, 26, 15
"""Pixels between parts, of a line of text, and of its letters."""
INK, PAPER, GREY = (20, 20, 20), (255, 255, 255), (120, 120, 120)


@dataclass(frozen=True)
class Samples:
    """A set to draw samples of."""

    title: str
    """Its name in the picture."""
    images: ClassificationDataset | SegmentationDataset
    """The set."""
    unusable: frozenset[int]
    """Indices of images that can't be used."""

    def choose(self, among: np.ndarray, count: int) -> list[int]:
        """Evenly spaced ones of some indices, int (M,), without images that can't be used."""
        usable = [index for index in among.tolist() if index not in self.unusable]
        return [usable[at] for at in sample_of(len(usable), count).tolist()]


def draw_samples(sets: Sequence[Samples]) -> Image.Image:
    """One picture of a training set and of a real set beside it, if there is one."""
    parts = [_names(sets[0].images.classes)] if isinstance(sets[0].images, ClassificationDataset) else []
    for samples in sets:
        images = samples.images
        part = _classes(samples, images) if isinstance(images, ClassificationDataset) else _scenes(samples, images)
        parts.append(part)
    return _framed(_row(parts, GAP), GAP)


def _names(classes: Sequence[str]) -> Image.Image:
    """The column of class names, with a line of space for the titles."""
    more = f"and {len(classes) - CLASSES:,} more classes" if len(classes) > CLASSES else ""
    width = min(NAME, round(max(_font().getlength(printable(text)) for text in (*classes[:CLASSES], more))) + 1)
    column = Image.new("RGB", (width, LINE + len(classes[:CLASSES]) * (THUMB + GAP) + LINE), PAPER)
    for row, name in enumerate(classes[:CLASSES]):
        _write(column, (0, LINE + row * (THUMB + GAP) + THUMB // 2 - TEXT), name, NAME)
    _write(column, (0, column.height - LINE), more, NAME, GREY)
    return column


def _classes(samples: Samples, images: ClassificationDataset) -> Image.Image:
    """A row of samples for each class."""
    classes = images.classes[:CLASSES]
    part = Image.new("RGB", (IMAGES * (THUMB + 4), LINE + len(classes) * (THUMB + GAP)), PAPER)
    _write(part, (0, 0), samples.title, part.width)
    for label in range(len(classes)):
        top = LINE + label * (THUMB + GAP)
        chosen = samples.choose(np.flatnonzero(images.labels == label), IMAGES)
        for column, index in enumerate(chosen):
            part.paste(_thumb(images.paths[index]), (column * (THUMB + 4), top))
        if not chosen:
            _write(part, (0, top + THUMB // 2 - TEXT), "no image", part.width, GREY)
    return part


def _thumb(path: Path) -> Image.Image:
    """The whole image in a square."""
    image = decode(path)
    small = max(image.size) * 2 <= THUMB  # its pixels stay visible
    scaled = ImageOps.contain(image, (THUMB, THUMB), Image.Resampling.NEAREST if small else Image.Resampling.LANCZOS)
    return ImageOps.pad(scaled, (THUMB, THUMB), color=(235, 235, 235))


def _scenes(samples: Samples, scenes: SegmentationDataset) -> Image.Image:
    """Scenes, each beside its overlay, and the legend of the classes."""
    width = 2 * SCENE + 4
    title = Image.new("RGB", (width, LINE), PAPER)
    _write(title, (0, 0), samples.title, width)
    rows = [title]
    for index in samples.choose(np.arange(len(scenes)), SCENES):
        image, labels = scenes.load(index)
        height = max(1, round(SCENE * image.height / image.width))
        image = image.resize((SCENE, height), Image.Resampling.LANCZOS)
        labels = np.asarray(Image.fromarray(labels).resize((SCENE, height), Image.Resampling.NEAREST))
        rows.append(_row([image, overlay(image, labels, scenes.labels.colours)], 4))
    return _column([*rows, _legend(scenes.labels, width)], 4)


def _legend(labels: LabelSet, width: int) -> Image.Image:
    """The colours of the classes with their names."""
    columns = width // LEGEND
    legend = Image.new("RGB", (width, LINE * (len(labels.names) // columns + 1) + GAP), PAPER)
    pen = ImageDraw.Draw(legend)
    for number, (name, colour) in enumerate(zip(labels.names, labels.colours, strict=True)):
        left, top = number % columns * LEGEND, GAP + number // columns * LINE
        pen.rectangle((left, top, left + TEXT, top + TEXT), colour, INK)
        _write(legend, (left + TEXT + 6, top - 2), name, LEGEND - TEXT - GAP)
    last = len(labels.names)
    _write(legend, (last % columns * LEGEND, GAP + last // columns * LINE - 2), "ignored: no colour", LEGEND, GREY)
    return legend


@cache
def _font() -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", TEXT)


def _write(picture: Image.Image, corner: tuple[int, int], text: str, width: int, colour: Colour = INK) -> None:
    """Write a line of text, cut to a width."""
    line = shown = printable(text)
    while _font().getlength(shown) > width and line:
        line = line[:-1]
        shown = f"{line}..."
    ImageDraw.Draw(picture).text(corner, shown, colour, _font())


def _row(images: Sequence[Image.Image], gap: int) -> Image.Image:
    width = sum(image.width for image in images) + gap * (len(images) - 1)
    row, left = Image.new("RGB", (width, max(image.height for image in images)), PAPER), 0
    for image in images:
        row.paste(image, (left, 0))
        left += image.width + gap
    return row


def _column(images: Sequence[Image.Image], gap: int) -> Image.Image:
    height = sum(image.height for image in images) + gap * (len(images) - 1)
    column, top = Image.new("RGB", (max(image.width for image in images), height), PAPER), 0
    for image in images:
        column.paste(image, (0, top))
        top += image.height + gap
    return column


def _framed(image: Image.Image, margin: int) -> Image.Image:
    return ImageOps.expand(image, margin, PAPER)
