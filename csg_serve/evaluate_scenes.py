"""A served segmenter measured on scenes with masks: mIoU, and pictures of the best, middle and worst one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from csg.console import results, show_table
from csg.errors import InputError
from csg.files import free_name, write_bytes
from csg.labels import IGNORED, translation, translation_table
from csg.metrics import PixelConfusion, SceneScores, finite, scene_scores
from csg.pictures import overlay, png, side_by_side
from csg.scenes import LabelledScenes, read_scenes
from csg_serve.answers import answers
from csg_serve.connection import ServedModel

EVALUATIONS = Path("evaluations")


@dataclass(frozen=True)
class SceneReport:
    """What a served segmenter reaches on a set of scenes.

    renamed: the model's classes by what they are called in the set's labels, where these are another set's.
    pictures: image, prediction and labels of the best, the middle and the worst scene.
    """

    model: str
    version: int
    dataset: str
    classes: tuple[str, ...]
    renamed: dict[str, str]
    scores: SceneScores
    images: int
    skipped: int
    images_per_s: float
    pictures: tuple[Path, ...]

    def to_dict(self) -> dict[str, Any]:
        """The keys of `csg evaluate --json`; a class that is neither predicted nor there has None."""
        return {
            "model": self.model,
            "version": self.version,
            "images": self.images,
            "skipped": self.skipped,
            "miou": self.scores.miou,
            "pixel_accuracy": self.scores.pixel_accuracy,
            "frequency_weighted_iou": self.scores.frequency_weighted_iou,
            "per_class": finite(self.classes, self.scores.per_class),
            "label_map": self.renamed,
            "pictures": [str(path) for path in self.pictures],
            "images_per_s": self.images_per_s,
        }


async def measure_scenes(
    served: ServedModel, sources: Sequence[str], labels: str | None, tile: int | None, skip: bool, out: Path | None
) -> SceneReport:
    """mIoU in the classes of the scenes' own label set, every pixel at its own size.

    Args:
        labels: label set of sources that have none of their own; None: the model's.
        tile: send images in overlapping tiles of this side.
        skip: leave out images that can't be read.
        out: folder for the pictures.
    """
    scenes, taught = read_scenes(sources, labels or served.card.label_set), served.card.taught
    pairs, table = translation(taught, scenes.labels), translation_table(taught, scenes.labels)
    counts, of_each = PixelConfusion(len(scenes.labels.classes)), {}
    began = time.perf_counter()
    async with aclosing(answers(served, scenes.paths, skip, tile)) as found:
        async for place, label_map in found:
            height, width = label_map.shape  # the image's own: it is not decoded again for its labels
            matrix = counts.of(scenes.load_labels(place, (width, height)), table[label_map])
            counts.matrix += matrix
            of_each[place] = scene_scores(matrix).miou
    seconds = time.perf_counter() - began
    if not of_each:
        raise InputError(f"none of the {len(scenes)} scenes of {scenes.name} can be read", "repair them")
    folder = out or free_name(EVALUATIONS, f"{served.name}-{served.version}")
    return SceneReport(
        model=served.name,
        version=served.version,
        dataset=scenes.name,
        classes=scenes.labels.names,
        renamed={old: new for old, new in pairs.items() if scenes.labels.name != taught.label_set},
        scores=counts.scores(),
        images=len(of_each),
        skipped=len(scenes) - len(of_each),
        images_per_s=len(of_each) / seconds,
        pictures=await _draw(served, scenes, table, _telling(of_each), tile, folder),
    )


def _telling(of_each: dict[int, float]) -> dict[str, int]:
    """The places of the best, the middle and the worst scene that has a score."""
    ranked = sorted((place for place in of_each if of_each[place] == of_each[place]), key=lambda p: -of_each[p])
    return {"best": ranked[0], "median": ranked[len(ranked) // 2], "worst": ranked[-1]} if ranked else {}


async def _draw(
    served: ServedModel,
    scenes: LabelledScenes,
    table: np.ndarray,
    telling: dict[str, int],
    tile: int | None,
    folder: Path,
) -> tuple[Path, ...]:
    """Image, prediction and labels side by side; asked for again, so that none is held while the set is measured."""
    pictures = []
    paths = [scenes.paths[place] for place in telling.values()]
    async with aclosing(answers(served, paths, False, tile)) as found:
        async for number, label_map in found:
            name, place = list(telling.items())[number]
            image, labels = scenes.load(place)
            shown = np.where(labels == IGNORED, IGNORED, table[label_map]).astype(np.uint8)
            row = side_by_side(image, *(overlay(image, m, scenes.labels.colours) for m in (shown, labels)))
            pictures.append(folder / f"{name}.png")
            write_bytes(pictures[-1], png(row))
    return tuple(pictures)


def show_scenes(report: SceneReport) -> None:
    """The table and the headline figures."""
    scores = report.scores
    shares = scores.confusion.sum(1) / max(1, scores.confusion.sum())
    rows = [
        (name, f"{share:.1%}", "-" if np.isnan(iou) else f"{iou:.1%}")
        for name, share, iou in zip(report.classes, shares, scores.per_class, strict=True)
    ]
    show_table(f"{report.model} version {report.version} on {report.dataset}", ("class", "pixels", "IoU"), rows)
    if report.renamed:
        words = ", ".join(f"{old} = {new}" for old, new in report.renamed.items() if old != new)
        results.print(f"classes              {words}; others by the same name, or not at all")
    results.print(f"mIoU                 {scores.miou:.2%}")
    results.print(f"pixel accuracy       {scores.pixel_accuracy:.2%}")
    results.print(f"weighted IoU         {scores.frequency_weighted_iou:.2%}")
    results.print(f"images               {report.images}, {report.skipped} skipped, {report.images_per_s:.1f}/s")
    if report.pictures:
        results.print(f"pictures             {', '.join(map(str, report.pictures))}: image, prediction, labels")
