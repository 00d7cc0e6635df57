"""`csg predict`: classes or masks of images, from a served model."""

from __future__ import annotations

import asyncio
import itertools
import os
from contextlib import aclosing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from csg.card import ModelCard
from csg.console import log, print_json, show_table
from csg.files import LOCK, atomic_write
from csg.images import decode
from csg.locks import lock
from csg.overlays import overlay, palette_png, png_bytes
from csg_serve.client.connection import ServedModel, open_model
from csg_serve.client.endpoints import Servers
from csg_serve.client.stream import probabilities
from csg_serve.evaluate.collect import iter_predictions

STEM_BYTES = 230
"""Maximum length of an image's name in the names of its files; file systems allow 255 bytes in all."""


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """Options of `csg predict`."""

    images: tuple[Path, ...]
    """Image files."""
    servers: Servers
    """Addresses of the servers, with TLS files and secret."""
    model: str | None = None
    """Name of the model; None for the only csg model on the server."""
    tile: int | None = None
    """Side in pixels of overlapping tiles to send, segmentation only; None sends whole images."""
    out: Path = Path("predictions")
    """Folder of masks and overlays, segmentation only."""


@dataclass(frozen=True)
class ClassPrediction:
    """The class of an image."""

    image: Path
    """Image file."""
    name: str
    """Name of the predicted class."""
    confidence: float
    """Its probability."""

    def to_dict(self) -> dict[str, Any]:
        """The keys of `csg predict --json`."""
        return {"image": str(self.image), "class": self.name, "confidence": self.confidence}

    def to_row(self) -> tuple[str, ...]:
        """The row of the table."""
        return str(self.image), self.name, f"{self.confidence:.1%}"


@dataclass(frozen=True)
class MaskPrediction:
    """The mask of an image."""

    image: Path
    """Image file."""
    mask: Path
    """PNG of class indices, with the classes' colours as its palette."""
    overlay: Path
    """PNG of the image under the coloured mask."""
    classes: dict[str, float]
    """Share of the pixels of each class that occurs."""

    def to_dict(self) -> dict[str, Any]:
        """The keys of `csg predict --json`."""
        return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(self).items()}

    def to_row(self) -> tuple[str, ...]:
        """The row of the table, with the three largest classes."""
        largest = sorted(self.classes.items(), key=lambda item: -item[1])[:3]
        return str(self.image), str(self.mask), ", ".join(f"{name} {share:.0%}" for name, share in largest)


def predict_command(options: PredictOptions, as_json: bool) -> None:
    """Predict each image, write masks and overlays of a segmenter, and show the results.

    Raises:
        InputError: an image can't be read.
        UsageError, ServerError: as `csg_serve.client.connection.open_model`.
    """
    served, predictions = asyncio.run(_predict(options))
    if as_json:
        found = [one.to_dict() for one in predictions]
        print_json({"model": served.name, "version": served.version, "predictions": found})
        return
    segmenter = served.card.task == "segmentation"
    columns = ("image", "mask", "classes") if segmenter else ("image", "class", "confidence")
    show_table(f"{served.name} version {served.version}", columns, [one.to_row() for one in predictions])
    if segmenter:
        log(f"masks and overlays are in {options.out}/")


async def _predict(options: PredictOptions) -> tuple[ServedModel, list[ClassPrediction | MaskPrediction]]:
    async with open_model(options.servers, options.model) as served:
        card, predictions = served.card, list[ClassPrediction | MaskPrediction]()
        async with aclosing(iter_predictions(served, options.images, options.tile)) as answers:
            async for index, answer in answers:
                image = options.images[index]
                if card.task == "classification":
                    predictions.append(_class_prediction(image, answer, card))
                else:
                    predictions.append(_mask_prediction(image, answer, card, options.out))
        return served, predictions


def _class_prediction(image: Path, logits: np.ndarray, card: ModelCard) -> ClassPrediction:
    shares = probabilities(logits)
    return ClassPrediction(image, card.classes[int(shares.argmax())], float(shares.max()))


def _mask_prediction(image: Path, label_map: np.ndarray, card: ModelCard, out: Path) -> MaskPrediction:
    """Write <image>-mask.png and <image>-overlay.png, under names that no image has, here or in another process."""
    mask, picture = palette_png(label_map, card.colours), png_bytes(overlay(decode(image), label_map, card.colours))
    with lock(out / LOCK, wait=""):
        mask_path, overlay_path = _unused(out, image.stem)
        atomic_write(mask_path, mask)
        atomic_write(overlay_path, picture)
    shares = np.bincount(label_map.ravel(), minlength=len(card.classes)) / label_map.size
    classes = {name: float(share) for name, share in zip(card.classes, shares, strict=False) if share}
    return MaskPrediction(image, mask_path, overlay_path, classes)


def _unused(out: Path, stem: str) -> tuple[Path, Path]:
    """The files of mask and overlay, with the first number that neither has: none, -2, -3, ..."""
    stem = os.fsdecode(os.fsencode(stem)[:STEM_BYTES])
    for number in itertools.count(1):
        suffix = f"-{number}.png" if number > 1 else ".png"
        mask, picture = (out / f"{stem}-{kind}{suffix}" for kind in ("mask", "overlay"))
        if not (mask.exists() or picture.exists()):
            return mask, picture
    raise AssertionError
