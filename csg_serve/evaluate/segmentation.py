"""A served segmenter measured on scenes with masks: mIoU, and pictures of the best, middle and worst one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from csg.card import Colour
from csg.confidence_intervals import SegmentationBootstrap
from csg.console import show_table, stdout
from csg.datasets.label_sets import IGNORED, translation, translation_table
from csg.datasets.segmentation import SegmentationDataset
from csg.errors import InputError
from csg.files import atomic_write
from csg.metrics import PixelConfusion, SegmentationScores, finite, segmentation_scores
from csg.overlays import overlay, png, side_by_side
from csg_serve.client.connection import ServedModel
from csg_serve.evaluate.collect import answers, ask_and_keep
from csg_serve.evaluate.journal import Course, Journal, Line, Subject


@dataclass(frozen=True)
class SegmentationReport:
    """What a served segmenter reaches on a set of scenes.

    renamed: the model's classes by what they are called in the set's labels, where these are another set's.
    interval: of the mIoU, 95 %. of_each: mIoU of each scene, float64 (N,), NaN where there is none. pictures: image,
    prediction and labels of the scenes at `telling`: the best, the middle and the worst.
    """

    folder: Path
    subject: Subject
    classes: tuple[str, ...]
    colours: tuple[Colour, ...]
    course: Course
    scores: SegmentationScores
    interval: tuple[float, float] | None
    of_each: np.ndarray
    renamed: dict[str, str]
    pictures: tuple[Path, ...] = ()

    @property
    def telling(self) -> dict[str, int]:
        """The places of the best, the middle and the worst scene that has a score."""
        ranked = np.argsort(-self.of_each, kind="stable")[: int(np.isfinite(self.of_each).sum())].tolist()
        return {"best": ranked[0], "median": ranked[len(ranked) // 2], "worst": ranked[-1]} if ranked else {}

    def to_dict(self) -> dict[str, Any]:
        """The keys of `csg evaluate --json`; a class that is neither predicted nor there has None."""
        return {
            "model": self.subject.model,
            "version": self.subject.version,
            "images": self.course.answered,
            "skipped": self.course.skipped,
            "miou": self.scores.miou,
            "miou_interval": self.interval,
            "pixel_accuracy": self.scores.pixel_accuracy,
            "frequency_weighted_iou": self.scores.frequency_weighted_iou,
            "per_class": finite(self.classes, self.scores.per_class),
            "label_map": self.renamed,
            "pictures": [str(path) for path in self.pictures],
            "images_per_s": self.course.images_per_s,
            "latency_ms": self.course.latencies.percentiles(),
            "folder": str(self.folder),
        }


async def measure_scenes(
    served: ServedModel, scenes: SegmentationDataset, subject: Subject, journal: Journal, skip: bool, ordered: bool
) -> SegmentationReport:
    """mIoU in the classes of the scenes' own label set, every pixel at its own size.

    Args:
        skip: leave out images that can't be read.
        ordered: ask in order.
    """
    class_spec = served.card.class_spec
    pairs, table = translation(class_spec, scenes.labels), translation_table(class_spec, scenes.labels)
    counts = PixelConfusion(len(scenes.labels.classes))

    def count(place: int, label_map: np.ndarray) -> Line:
        height, width = label_map.shape  # the image's own: it is not decoded again for its labels
        matrix = counts.of(scenes.load_labels(place, (width, height)), table[label_map]).ravel()
        cells = np.flatnonzero(matrix)
        return {"cells": cells.tolist(), "pixels": matrix[cells].tolist()}

    async def line(place: int, label_map: np.ndarray) -> Line:
        return await asyncio.to_thread(count, place, label_map)

    await ask_and_keep(served, scenes.paths, journal, line, skip, subject.tile, ordered)
    report = summarise_scenes(journal.folder, subject, scenes, journal.lines())
    renamed = {old: new for old, new in pairs.items() if scenes.labels.name != class_spec.label_set}
    return replace(report, renamed=renamed, pictures=await _draw(served, scenes, table, report))


def summarise_scenes(
    folder: Path, subject: Subject, scenes: SegmentationDataset, lines: Iterable[Line]
) -> SegmentationReport:
    """The report from the lines of the journal, in any order, holding of each scene but its mIoU.

    Raises:
        InputError: no line is of an image that was answered.
    """
    course, counts = Course(), PixelConfusion(len(scenes.labels.classes))
    bootstrap, of_each = SegmentationBootstrap(counts.classes), np.full(subject.images, np.nan)
    for line in lines:
        course.add(line)
        if "cells" not in line:
            continue
        matrix = np.zeros_like(counts.matrix)
        matrix.flat[line["cells"]] = line["pixels"]
        counts.matrix += matrix
        bootstrap.add(line["place"], matrix)
        of_each[line["place"]] = segmentation_scores(matrix).miou
    if not course.answered:
        raise InputError(f"none of the {len(scenes)} scenes of {scenes.name} can be read", "repair them")
    names, colours = scenes.labels.names, scenes.labels.colours
    return SegmentationReport(folder, subject, names, colours, course, counts.scores(), bootstrap.miou(), of_each, {})


async def _draw(
    served: ServedModel, scenes: SegmentationDataset, table: np.ndarray, report: SegmentationReport
) -> tuple[Path, ...]:
    """Image, prediction and labels side by side; asked for again, so that none is held while the set is measured."""
    pictures, telling = [], list(report.telling.items())
    paths = [scenes.paths[place] for _, place in telling]
    async with aclosing(answers(served, paths, report.subject.tile)) as found:
        async for number, label_map in found:
            name, place = telling[number]
            image, labels = scenes.load(place)
            shown = np.where(labels == IGNORED, IGNORED, table[label_map]).astype(np.uint8)
            row = side_by_side(image, *(overlay(image, m, scenes.labels.colours) for m in (shown, labels)))
            pictures.append(report.folder / f"{name}.png")
            atomic_write(pictures[-1], png(row))
    return tuple(pictures)


def show_scenes(report: SegmentationReport) -> None:
    """The table and the headline figures."""
    scores, subject, course = report.scores, report.subject, report.course
    shares = scores.confusion.sum(1) / max(1, scores.confusion.sum())
    rows = [
        (name, f"{share:.1%}", "-" if np.isnan(iou) else f"{iou:.1%}")
        for name, share, iou in zip(report.classes, shares, scores.per_class, strict=True)
    ]
    title = f"{subject.model} version {subject.version} on {subject.dataset}"
    show_table(title, ("class", "pixels", "IoU"), rows)
    if report.renamed:
        words = ", ".join(f"{old} = {new}" for old, new in report.renamed.items() if old != new)
        stdout.print(f"classes              {words}; others by the same name, or not at all")
    interval = " ({:.1%} to {:.1%})".format(*report.interval) if report.interval else ""
    stdout.print(f"mIoU                 {scores.miou:.2%}{interval}")
    stdout.print(f"pixel accuracy       {scores.pixel_accuracy:.2%}")
    stdout.print(f"weighted IoU         {scores.frequency_weighted_iou:.2%}")
    stdout.print(f"images               {course.answered}, {course.skipped} skipped, {course.images_per_s:.1f}/s")
    if report.pictures:
        stdout.print(f"pictures             {', '.join(map(str, report.pictures))}: image, prediction, labels")
