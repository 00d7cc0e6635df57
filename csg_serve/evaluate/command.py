"""`csg evaluate`: a served model measured on labelled real images, through the server."""

from __future__ import annotations

import asyncio
import hashlib
import heapq
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from csg.confidence_intervals import mean_class_accuracy_interval, wilson
from csg.console import log, print_json, show_table, stdout
from csg.datasets.classification import EMBEDDED_DIGITS, ClassificationDataset, read_classification_dataset
from csg.datasets.segmentation import EMBEDDED_SCENES, SegmentationDataset, read_segmentation_dataset
from csg.errors import InputError, ServerError, UsageError
from csg.files import atomic_write
from csg.metrics import ClassificationScores, Reliability, finite, scores_from_confusion
from csg_serve.client.client import check_tile, probabilities
from csg_serve.client.connection import ServedModel, open_model
from csg_serve.client.endpoints import Servers
from csg_serve.evaluate.collect import ask_and_keep
from csg_serve.evaluate.journal import (
    RESULT,
    Course,
    Journal,
    Line,
    Subject,
    check_same,
    evaluation_to_resume,
    keeping,
    new_evaluation,
)
from csg_serve.evaluate.segmentation import SegmentationReport, measure_scenes, show_scenes

EMBEDDED = (EMBEDDED_DIGITS, EMBEDDED_SCENES)
MISTAKES = 24  # shown with pictures


@dataclass(frozen=True)
class Wish:
    """What a user asks for.

    server: where it is served. model: its name; the only csg model there by default. data: sources as
    csg.datasets reads them. labels, tile: of a segmenter, its masks' label set, and the side of tiles to
    send. out: the evaluation's folder. unreadable: "fail" at an image that
    can't be read, or "skip" and count it. ordered: ask in order. resume: go on with an evaluation. report: write the
    page, page: there and not into the folder.
    """

    server: Servers
    model: str | None = None
    data: tuple[str, ...] = ()
    labels: str | None = None
    tile: int | None = None
    out: Path | None = None
    unreadable: str = "fail"
    ordered: bool = False
    resume: bool = False
    report: bool = False
    page: Path | None = None


@dataclass(frozen=True)
class Mistake:
    """An image that the model is wrong on: its place, class indices, and the probability given to the wrong class."""

    place: int
    true: int
    predicted: int
    confidence: float


@dataclass(frozen=True)
class Report:
    """What a served classifier reaches on a set of real images. mistakes: the surest ones, surest first."""

    folder: Path
    subject: Subject
    classes: tuple[str, ...]
    course: Course
    scores: ClassificationScores
    reliability: Reliability
    mistakes: tuple[Mistake, ...]

    @property
    def accuracy_interval(self) -> tuple[float, float]:
        """95 % confidence interval of the accuracy."""
        low, high = wilson(np.array(self.scores.confusion.trace()), np.array(self.scores.images))
        return float(low), float(high)

    def to_dict(self) -> dict[str, Any]:
        """The keys of `csg evaluate --json`; a class without images has None."""
        return {
            "model": self.subject.model,
            "version": self.subject.version,
            "images": self.scores.images,
            "skipped": self.course.skipped,
            "accuracy": self.scores.accuracy,
            "accuracy_interval": self.accuracy_interval,
            "mean_class_accuracy": self.scores.mean_class_accuracy,
            "mean_class_accuracy_interval": mean_class_accuracy_interval(self.scores.confusion),
            "per_class": finite(self.classes, self.scores.per_class),
            "ece": self.reliability.ece,
            "images_per_s": self.course.images_per_s,
            "latency_ms": self.course.latencies.percentiles(),
            "folder": str(self.folder),
        }


def evaluate_command(wish: Wish, as_json: bool) -> None:
    """Measure, keep and show.

    Raises:
        UsageError, ServerError: as `open_model` and `answered`; what is asked for can't be.
        InputError: the data can't be used, holds classes that the model has not, or an image can't be read; there is
            no such evaluation to go on with.
    """
    if wish.page and not wish.report:
        raise UsageError(f"what is {str(wish.page)!r}?", "a page is written with --report, images are named by --data")
    report, page = asyncio.run(_evaluate(wish))
    if as_json:
        print_json(report.to_dict() | ({"report": str(page)} if page else {}))
        return
    show_scenes(report) if isinstance(report, SegmentationReport) else _show(report)
    stdout.print(f"kept in              {report.folder}/", markup=False)
    if page:
        stdout.print(f"report               {page}", markup=False)


async def _evaluate(wish: Wish) -> tuple[Report | SegmentationReport, Path | None]:
    data = tuple(whole_path(source) for source in wish.data)
    wish = replace(wish, data=data, labels=wish.labels and whole_path(wish.labels))
    folder = before = None
    if wish.resume:
        given = {"sources": wish.data or None, "labels": wish.labels, "tile": wish.tile, "model": wish.model}
        folder, before = evaluation_to_resume(wish.out, **given)
        wish = replace(wish, model=before.model, data=before.sources, labels=before.labels, tile=before.tile)
    async with open_model(wish.server, wish.model) as served:
        images, subject = _subject(served, wish)
        default = "" if wish.data else " (default)"
        log(f"evaluating {served.name} on {', '.join(subject.sources)}{default} through {wish.server}")
        if before and folder:
            check_same(folder, before, subject)
        else:
            folder = new_evaluation(subject, wish.out)
        with keeping(folder, len(images)) as journal:
            if before:
                log(f"going on with {folder}: {journal.done} of {len(images)} images are there")
            report: Report | SegmentationReport
            if isinstance(images, SegmentationDataset):
                report = await measure_scenes(served, images, subject, journal, wish.unreadable == "skip", wish.ordered)
            else:
                report = await _measure(served, images, subject, journal, wish)
            page = _write_page(report, served, images, wish) if wish.report else None
            atomic_write(folder / RESULT, json.dumps(report.to_dict(), indent=2, allow_nan=False).encode() + b"\n")
        return report, page


def whole_path(source: str) -> str:
    """A source as it is known from every folder; the embedded sets, and label sets known by name, as they are."""
    return source if source in EMBEDDED or not Path(source).exists() else str(Path(source).resolve())


def _subject(served: ServedModel, wish: Wish) -> tuple[ClassificationDataset | SegmentationDataset, Subject]:
    """The images, and what is measured."""
    card = served.card
    images: ClassificationDataset | SegmentationDataset
    if card.task == "segmentation":
        check_tile(card, wish.tile)
        sources = wish.data or (EMBEDDED_SCENES,)
        images = read_segmentation_dataset(sources, wish.labels or card.label_set)
    else:
        if wish.labels or wish.tile:
            raise UsageError(f"model {served.name} is no segmenter", "leave --labels and --tile out")
        sources = wish.data or (EMBEDDED_DIGITS,)
        images = read_classification_dataset(sources).in_order_of(card.classes, partly=True)
    return images, Subject(
        model=served.name,
        version=served.version,
        card=hashlib.sha256(card.to_json().encode()).hexdigest(),
        sources=sources,
        labels=wish.labels,
        tile=wish.tile,
        dataset=images.name,
        images=len(images),
        fingerprint=images.fingerprint(),
    )


async def _measure(
    served: ServedModel, images: ClassificationDataset, subject: Subject, journal: Journal, wish: Wish
) -> Report:
    async def line(place: int, logits: np.ndarray) -> Line:
        shares = probabilities(logits)
        if not np.isfinite(shares).all():
            what = f"model {served.name} answers {images.paths[place]} with logits that are no numbers"
            raise ServerError(what, "export it again, and look at the parity in `csg export inspect`")
        predicted = int(shares.argmax())
        return {"true": int(images.labels[place]), "predicted": predicted, "confidence": round(shares[predicted], 6)}

    await ask_and_keep(served, images.paths, journal, line, wish.unreadable == "skip", ordered=wish.ordered)
    return summarise(journal.folder, subject, images.classes, journal.lines())


def summarise(folder: Path, subject: Subject, classes: tuple[str, ...], lines: Iterable[Line]) -> Report:
    """The report from the lines of the journal, in any order, holding none of them.

    Raises:
        InputError: no line is of an image that was answered.
    """
    course, reliability, confusion = Course(), Reliability(), np.zeros((len(classes), len(classes)), np.int64)
    surest: list[tuple[float, int, Mistake]] = []  # a heap of the surest mistakes; of equals the first places
    for line in lines:
        course.add(line)
        if "predicted" not in line:
            continue
        true, predicted, confidence = line["true"], line["predicted"], line["confidence"]
        confusion[true, predicted] += 1
        reliability.add(confidence, true == predicted)
        if true != predicted:
            heapq.heappush(surest, (confidence, -line["place"], Mistake(line["place"], true, predicted, confidence)))
            if len(surest) > MISTAKES:
                heapq.heappop(surest)
    if not course.answered:
        raise InputError(f"none of the {subject.images} images of {subject.dataset} can be read", "repair them")
    mistakes = tuple(mistake for *_, mistake in sorted(surest, reverse=True))
    return Report(folder, subject, classes, course, scores_from_confusion(confusion), reliability, mistakes)


def _write_page(
    report: Report | SegmentationReport,
    served: ServedModel,
    images: ClassificationDataset | SegmentationDataset,
    wish: Wish,
) -> Path:
    from csg_serve.evaluate.report import write_report

    page = wish.page or report.folder / "report.html"
    write_report(page, report, served.card, images.paths)
    return page


def _show(report: Report) -> None:
    scores, subject = report.scores, report.subject
    counts = scores.confusion.sum(1)
    rows = [
        (name, str(count), f"{share:.1%}" if count else "-")
        for name, count, share in zip(report.classes, counts, scores.per_class, strict=True)
    ]
    title = f"{subject.model} version {subject.version} on {subject.dataset}"
    show_table(title, ("class", "images", "accuracy"), rows)
    low, high = report.accuracy_interval
    stdout.print(f"accuracy             {scores.accuracy:.2%} ({low:.1%} to {high:.1%})")
    stdout.print(f"mean class accuracy  {scores.mean_class_accuracy:.2%}")
    stdout.print(f"calibration error    {report.reliability.ece:.2%}")
    course = report.course
    stdout.print(f"images               {scores.images}, {course.skipped} skipped, {course.images_per_s:.1f}/s")
