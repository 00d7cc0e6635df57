"""`csg predict`: classes or masks of images, from a served model or a bundle, in constant memory."""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
import time
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from csg.card import ModelCard
from csg.console import LINE_S, log, print_json
from csg.errors import InputError, UsageError
from csg.files import LOCK, atomic_write
from csg.locks import lock
from csg.overlays import palette_png, png_bytes
from csg_serve.client.answers import ClassAnswer, MaskAnswer
from csg_serve.client.endpoints import Servers
from csg_serve.client.image_sources import check_words, named_images
from csg_serve.client.model import OpenModel, open_source, title
from csg_serve.client.named_image import NamedImage
from csg_serve.client.requests import Sending
from csg_serve.client.stream import iter_answers, probabilities
from csg_serve.evaluate.one_class import one_class_hint
from csg_serve.evaluate.prediction_rows import ClassPrediction, MaskPrediction, Row, RowFormat, UnreadImage, row_writer

MASKS = Path("predictions")
"""Folder of masks and overlays, unless another is named."""
STEM_BYTES = 230
"""Maximum length of an image's name in the names of its files; file systems allow 255 bytes in all."""


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """Options of `csg predict`."""

    images: tuple[str | Path, ...]
    """Words that name the images, as `csg_serve.client.image_sources.named_images` takes them."""
    source: Servers | Path
    """The servers that have the model, with TLS files and secret; or the folder of a bundle, which answers here."""
    model: str | None = None
    """Name of the model on the servers; None for the only csg model there."""
    tile: int | None = None
    """Side in pixels of overlapping tiles to send, segmentation only; None sends whole images."""
    out: Path | None = None
    """Folder of masks and overlays, segmentation only; None for `predictions`."""
    top: int | None = None
    """Number of classes for each image, classification only; None for one."""
    form: RowFormat = "text"
    """Form of the rows on standard output."""
    every: float = 1.0
    """Seconds between the frames of a video that are taken; 0: every frame."""
    on_unreadable: Literal["fail", "skip"] | None = None
    """What to do with an image that can't be read: stop, or skip it; None: skip it, and fail at the end."""


@dataclass
class _Tally:
    """What was predicted so far."""

    answered: int = 0
    """Images that were predicted."""
    unread: int = 0
    """Images that can't be read."""
    first_unread: UnreadImage | None = None
    """The first of them."""
    classes: set[str] = field(default_factory=set)
    """Classes that were predicted, of a segmenter for any pixel."""
    logged: float = field(default_factory=time.monotonic)
    """Time of the last line of progress, in seconds."""

    def add(self, row: Row) -> None:
        """Count a row; where nobody sees the rows, a line every ten seconds says how many there are."""
        if isinstance(row, UnreadImage):
            self.unread += 1
            self.first_unread = self.first_unread or row
            return
        self.answered += 1
        self.classes.update([next(iter(row.top))] if isinstance(row, ClassPrediction) else row.classes)
        if not sys.stdout.isatty() and time.monotonic() - self.logged >= LINE_S:
            log(f"{self.answered:,} images so far")
            self.logged = time.monotonic()

    def check_all_read(self) -> None:
        """Raise InputError if an image could not be read."""
        first, total = self.first_unread, self.answered + self.unread
        if first and total == 1:
            raise InputError(first.error, first.hint)
        if first:
            raise InputError(
                f"{self.unread:,} of {total:,} images can't be read, first: {first.error}",
                f"{first.hint}; with --on-unreadable skip this is a success",
            )


def predict_command(options: PredictOptions, as_json: bool) -> None:
    """Predict each image, and write a row for it as soon as it is answered; of a segmenter also mask and overlay.

    Raises:
        InputError: an image can't be read: at once, or after all others, as `on_unreadable` says.
        UsageError: an option does not fit the model or the words; as `csg_serve.client.model.open_source`.
        ServerError, VerificationError: as `open_source`.
    """
    if as_json and options.form != "text":
        raise UsageError("--json and --format exclude each other", "--json is one object at the end, jsonl a line each")
    if not options.images:
        raise UsageError("no images are named", "name files, folders, patterns, - or addresses")
    check_words(options.images, options.every)
    tally = asyncio.run(_predict(options, as_json))
    if options.on_unreadable is None:
        tally.check_all_read()


async def _predict(options: PredictOptions, as_json: bool) -> _Tally:
    collected: list[dict[str, object]] = []
    tally = _Tally()
    async with open_source(options.source, options.model) as model:
        _check_options(model.card, options)
        log(f"predicting with {title(model)} from {model.server}")
        write = row_writer(options.form, model.card, options.top or 1)
        async with aclosing(_rows(model, options)) as rows:
            async for row in rows:
                if isinstance(row, UnreadImage):
                    _skip(row, options)
                tally.add(row)
                if as_json:
                    collected.append(row.to_dict())
                else:
                    write(row)
        if as_json:
            print_json({"model": model.name, "version": model.version, "predictions": collected})
        masks = f"; masks and overlays are in {options.out or MASKS}/" if model.card.task == "segmentation" else ""
        log(f"images predicted: {tally.answered:,}, skipped: {tally.unread:,}{masks}")
        if hint := one_class_hint(model.card, tally.classes, tally.answered):
            log(hint)
    return tally


def _check_options(card: ModelCard, options: PredictOptions) -> None:
    if card.task == "segmentation" and options.top is not None:
        raise UsageError("--top is for classifiers", f"model {card.name} gives each pixel one class; leave it out")
    if card.task == "classification" and options.out is not None:
        raise UsageError("--out is the folder of a segmenter's masks", "send rows to a file: --format csv > FILE")


def _skip(row: UnreadImage, options: PredictOptions) -> None:
    """Log that an image is skipped; raises InputError if it shall end the command."""
    if options.on_unreadable == "fail":
        raise InputError(row.error, f"{row.hint}, or skip such images with --on-unreadable skip")
    log(f"skipped: {row.error}")


async def _rows(model: OpenModel, options: PredictOptions) -> AsyncGenerator[Row, None]:
    """The row of each image, in order."""
    sent = deque[NamedImage]()
    async with aclosing(named_images(options.images, options.every)) as images:

        async def remembered() -> AsyncGenerator[NamedImage, None]:
            async for image in images:
                sent.append(image)
                yield image

        async with aclosing(iter_answers(model, remembered(), Sending(options.tile))) as answers:
            async for answer in answers:
                image = sent.popleft()
                try:
                    if isinstance(answer.prediction, InputError):
                        raise answer.prediction
                    yield await asyncio.to_thread(_row, image, answer.prediction, model.card, options)
                except InputError as error:
                    yield UnreadImage(image.name, error.message, error.hint)


def _row(image: NamedImage, prediction: NDArray[np.generic], card: ModelCard, options: PredictOptions) -> Row:
    if card.task == "classification":
        answer = ClassAnswer(image.name, image.read(), card.classes, probabilities(prediction))
        return ClassPrediction(image.name, dict(answer.top(options.top or 1)))
    return mask_prediction(image, prediction.astype(np.uint8), card, options.out or MASKS)


def mask_prediction(image: NamedImage, label_map: NDArray[np.uint8], card: ModelCard, out: Path) -> MaskPrediction:
    """Write <image>-mask.png and <image>-overlay.png, under names that no image has, here or in another process.

    Raises:
        InputError: the image can't be read any more.
    """
    answer = MaskAnswer(image.name, image.read(), card.classes, card.colours, label_map)
    mask, picture = palette_png(label_map, card.colours), png_bytes(answer.overlay())
    with lock(out / LOCK, wait=""):
        mask_path, overlay_path = _unused(out, image.stem)
        atomic_write(mask_path, mask)
        atomic_write(overlay_path, picture)
    return MaskPrediction(image.name, mask_path, overlay_path, answer.shares)


def _unused(out: Path, stem: str) -> tuple[Path, Path]:
    """The files of mask and overlay, with the first number that neither has: none, -2, -3, ..."""
    stem = os.fsdecode(os.fsencode(stem)[:STEM_BYTES])
    for number in itertools.count(1):
        suffix = f"-{number}.png" if number > 1 else ".png"
        mask, picture = (out / f"{stem}-{kind}{suffix}" for kind in ("mask", "overlay"))
        if not (mask.exists() or picture.exists()):
            return mask, picture
    raise AssertionError
