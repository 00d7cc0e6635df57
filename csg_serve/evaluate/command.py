"""`csg evaluate`: a served model measured on labelled real images, through the server."""

from __future__ import annotations

import asyncio
import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from csg.console import log, print_json, stdout
from csg.datasets.classification import EMBEDDED_DIGITS, ClassificationDataset, read_classification_dataset
from csg.datasets.segmentation import EMBEDDED_SCENES, SegmentationDataset, read_segmentation_dataset
from csg.errors import ServerError, UsageError
from csg.files import atomic_write
from csg_serve.client.client import check_tile, probabilities
from csg_serve.client.connection import ServedModel, open_model
from csg_serve.client.endpoints import Servers
from csg_serve.evaluate.classification import ClassificationReport, show_classification, summarise
from csg_serve.evaluate.collect import ask_and_keep
from csg_serve.evaluate.journal import (
    RESULT,
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
    show_scenes(report) if isinstance(report, SegmentationReport) else show_classification(report)
    stdout.print(f"kept in              {report.folder}/", markup=False)
    if page:
        stdout.print(f"report               {page}", markup=False)


async def _evaluate(wish: Wish) -> tuple[ClassificationReport | SegmentationReport, Path | None]:
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
            report: ClassificationReport | SegmentationReport
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
) -> ClassificationReport:
    async def line(place: int, logits: np.ndarray) -> Line:
        shares = probabilities(logits)
        if not np.isfinite(shares).all():
            what = f"model {served.name} answers {images.paths[place]} with logits that are no numbers"
            raise ServerError(what, "export it again, and look at the parity in `csg export inspect`")
        predicted = int(shares.argmax())
        return {"true": int(images.labels[place]), "predicted": predicted, "confidence": round(shares[predicted], 6)}

    await ask_and_keep(served, images.paths, journal, line, wish.unreadable == "skip", ordered=wish.ordered)
    return summarise(journal.folder, subject, images.classes, journal.lines())


def _write_page(
    report: ClassificationReport | SegmentationReport,
    served: ServedModel,
    images: ClassificationDataset | SegmentationDataset,
    wish: Wish,
) -> Path:
    from csg_serve.evaluate.report import write_report

    page = wish.page or report.folder / "report.html"
    write_report(page, report, served.card, images.paths)
    return page
