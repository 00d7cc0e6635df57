"""`csg evaluate`: a served model measured on labelled real images, through the server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from csg.console import print_json, results, say, show_table
from csg.errors import InputError, UsageError
from csg.metrics import ClassScores, class_scores, finite
from csg.realset import DIGITS_REAL, read_labelled
from csg.scenes import SCENES_REAL
from csg_serve.answers import answers
from csg_serve.connection import ServedModel, open_model
from csg_serve.evaluate_scenes import SceneReport, measure_scenes, show_scenes
from csg_serve.servers import Servers


@dataclass(frozen=True)
class Report:
    """What a served classifier reaches on a set of real images."""

    model: str
    version: int
    dataset: str
    classes: tuple[str, ...]
    scores: ClassScores
    skipped: int
    images_per_s: float

    def to_dict(self) -> dict[str, Any]:
        """The keys of `csg evaluate --json`; a class without images has None."""
        return {
            "model": self.model,
            "version": self.version,
            "images": self.scores.images,
            "skipped": self.skipped,
            "accuracy": self.scores.accuracy,
            "mean_class_accuracy": self.scores.mean_class_accuracy,
            "per_class": finite(self.classes, self.scores.per_class),
            "images_per_s": self.images_per_s,
        }


def evaluate_command(
    server: Servers,
    model: str | None,
    data: list[str] | None,
    unreadable: str,
    labels: str | None,
    tile: int | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Measure and show.

    Args:
        server: where it is served.
        model: its name; the only csg model there by default.
        data: sources as csg.realset.read_labelled, or of a segmenter csg.scenes.read_scenes, takes them.
        unreadable: "fail" at an image that can't be read, or "skip" and count it.
        labels, tile, out: of a segmenter, as csg_serve.evaluate_scenes.measure_scenes.

    Raises:
        UsageError, ServerError: as `csg_serve.connection.open_model` and `csg_serve.client.stream`.
        InputError: the data can't be used, holds classes that the model has not, or an image can't be read.
    """
    report = asyncio.run(_evaluate(server, model, data, unreadable == "skip", labels, tile, out))
    if as_json:
        print_json(report.to_dict())
    elif isinstance(report, SceneReport):
        show_scenes(report)
    else:
        _show(report)


async def _evaluate(
    server: Servers,
    model: str | None,
    data: list[str] | None,
    skip: bool,
    labels: str | None,
    tile: int | None,
    out: Path | None,
) -> Report | SceneReport:
    async with open_model(server, model) as served:
        scenes = served.card.task == "segmentation"
        sources = data or [SCENES_REAL if scenes else DIGITS_REAL]
        say(f"evaluating {served.name} on {', '.join(sources)}{'' if data else ' (default)'} through {server}")
        if scenes:
            return await measure_scenes(served, sources, labels, tile, skip, out)
        if labels or tile or out:
            raise UsageError(f"model {served.name} is no segmenter", "leave --labels, --tile and --out out")
        return await _measure(served, sources, skip)


async def _measure(served: ServedModel, sources: Sequence[str], skip: bool) -> Report:
    images = read_labelled(sources).in_order_of(served.card.classes, partly=True)
    began, true, predicted = time.perf_counter(), [], []
    async with aclosing(answers(served, images.paths, skip)) as found:
        async for place, logits in found:
            true.append(images.labels[place])
            predicted.append(int(logits.argmax()))
    seconds = time.perf_counter() - began
    if not true:
        raise InputError(f"none of the {len(images)} images of {images.name} can be read", "repair them")
    scores = class_scores(np.array(true), np.array(predicted), len(images.classes))
    skipped, rate = len(images) - len(true), len(true) / seconds
    return Report(served.name, served.version, images.name, images.classes, scores, skipped, rate)


def _show(report: Report) -> None:
    scores = report.scores
    counts = scores.confusion.sum(1)
    rows = [
        (name, str(count), f"{share:.1%}" if count else "-")
        for name, count, share in zip(report.classes, counts, scores.per_class, strict=True)
    ]
    show_table(f"{report.model} version {report.version} on {report.dataset}", ("class", "images", "accuracy"), rows)
    results.print(f"accuracy             {scores.accuracy:.2%}")
    results.print(f"mean class accuracy  {scores.mean_class_accuracy:.2%}")
    results.print(f"images               {scores.images}, {report.skipped} skipped, {report.images_per_s:.1f}/s")
