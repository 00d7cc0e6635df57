"""An open evaluation: the model, the images, and the journal that records the answers."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from csg.bundle import Bundle
from csg.console import log
from csg.datasets.check import check_dataset
from csg.datasets.classification import EMBEDDED_DIGITS, ClassificationDataset, read_classification_dataset
from csg.datasets.label_sets import class_index_table
from csg.datasets.segmentation import EMBEDDED_SCENES, SegmentationDataset, read_segmentation_dataset
from csg.errors import InputError, UsageError
from csg.files import absolute, sha256
from csg_serve.client.bundle_model import BundleModel
from csg_serve.client.endpoints import DEFAULT_ADDRESS, Servers
from csg_serve.client.model import OpenModel, open_source
from csg_serve.client.requests import Sending, check_sending
from csg_serve.evaluate.against import Against
from csg_serve.evaluate.folder import find_folder, new_evaluation, resumed_evaluation
from csg_serve.evaluate.journal import Journal
from csg_serve.evaluate.records import AnswerRecord, ClassificationAnswer, EvaluationSpec, SegmentationAnswer


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """Options of `csg evaluate`."""

    source: Servers | Path | Bundle
    """The servers that have the model, with TLS files and secret; or a bundle or its folder, which answers here."""
    model: str | None = None
    """Name of the model on the servers; None for the only csg model there."""
    data: tuple[str, ...] = ()
    """Sources of the images; without any, the embedded data set of the model's task."""
    labels: str | None = None
    """Label set of the masks, segmentation only; None for the model's own."""
    tile: int | None = None
    """Side in pixels of overlapping tiles to send, segmentation only; None sends whole images."""
    mirrored: bool = False
    """Also measure image and mirror image together."""
    out: Path | None = None
    """Folder of the evaluation; None for the next free one in evaluations/."""
    on_unreadable: Literal["fail", "skip"] = "fail"
    """What to do with an image that can't be read: stop, or skip and count it."""
    ordered: bool = False
    """Record answers in the order of the images instead of the order of arrival."""
    resume: bool = False
    """Continue the newest unfinished evaluation, or the one at `out`; `data` may name the new place of its images."""
    report: bool = False
    """Write an HTML page."""
    page: Path | None = None
    """Where to write the page; None for report.html in the evaluation's folder."""
    against: Against | None = None
    """What it is compared with, and what is required of it."""


@dataclass(frozen=True)
class EvaluationSession:
    """An open evaluation."""

    options: EvaluateOptions
    """What was asked for; a resumed evaluation has its recorded model, data, labels, tile and `mirrored` here."""
    served: OpenModel
    """The model, open."""
    dataset: ClassificationDataset | SegmentationDataset
    """The images; a classifier's have their labels in the model's class order."""
    spec: EvaluationSpec
    """The model and the images, as recorded in the folder."""
    journal: Journal
    """Records of the answers."""

    @property
    def folder(self) -> Path:
        """Folder of the evaluation."""
        return self.journal.folder


@asynccontextmanager
async def open_evaluation(options: EvaluateOptions) -> AsyncIterator[EvaluationSession]:
    """Open the model, read the images, and create the evaluation's folder, or open the one to resume.

    Raises:
        UsageError: an option does not fit the model or the evaluation to resume.
        InputError: the data can't be used, or its classes are unknown to the model; there is no evaluation to resume.
        ServerError, VerificationError: as `csg_serve.client.model.open_source`.
    """
    options, folder = _with_absolute_paths(options), None
    if options.resume:
        folder, options = _as_recorded(options)
    async with open_source(options.source, options.model) as served:
        dataset, spec = _read_dataset(served, options)
        default = "" if options.data else " (default)"
        where = f"in this process, from {served.server}" if spec.bundle else f"through {served.server}"
        log(f"evaluating {served.name} on {', '.join(spec.data)}{default} {where}")
        for note in dataset.notes:
            log(f"{dataset.name}: {note}")
        if not folder:  # a resumed evaluation has the images that it was started with
            check_dataset(dataset, options.on_unreadable, "--on-unreadable skip")
        check = partial(fits, dataset, spec.mirrored)
        opened = resumed_evaluation(folder, spec, check) if folder else new_evaluation(spec, options.out, check)
        with opened as journal:
            yield EvaluationSession(options=options, served=served, dataset=dataset, spec=spec, journal=journal)


def _as_recorded(options: EvaluateOptions) -> tuple[Path, EvaluateOptions]:
    """The folder to resume, and the options that it was started with; images that moved are where --data says.

    Raises:
        UsageError, InputError: as `find_folder`; the images are gone.
    """
    given = {name: getattr(options, name) or None for name in ("data", "labels", "tile", "model", "mirrored")}
    given["bundle"] = str(options.source) if isinstance(options.source, Path) else None
    folder, recorded = find_folder(options.out, given)
    data, labels = options.data or recorded.data, options.labels or recorded.labels
    for place in data:
        if place not in (EMBEDDED_DIGITS, EMBEDDED_SCENES) and not Path(place).exists():
            raise InputError(f"the images of {folder} are not at {place}", "name their place with --data")
    source = options.source
    if isinstance(source, Servers) and recorded.bundle and source.texts == (DEFAULT_ADDRESS,):
        source = Path(recorded.bundle)
    model = None if isinstance(source, Path) else recorded.model
    same = {name: getattr(recorded, name) for name in ("tile", "mirrored")}
    return folder, replace(options, data=data, labels=labels, source=source, model=model, **same)


def fits(dataset: ClassificationDataset | SegmentationDataset, mirrored: bool, answer: AnswerRecord) -> bool:
    """Whether an answer can be one on its image.

    Args:
        dataset: the images.
        mirrored: whether mirror images are sent.
        answer: to an image that the data set has.
    """
    if (answer.mirrored is not None) != mirrored:
        return False
    if isinstance(dataset, SegmentationDataset):
        if not isinstance(answer, SegmentationAnswer):
            return False
        classes, both = len(dataset.labels.classes), answer.mirrored.cells if answer.mirrored else ()
        return max((*answer.cells, *both), default=0) < classes * (classes + 1)
    return (
        isinstance(answer, ClassificationAnswer)
        and max(answer.predicted, answer.mirrored or 0) < len(dataset.classes)
        and answer.true == int(dataset.labels[answer.index])
    )


def _with_absolute_paths(options: EvaluateOptions) -> EvaluateOptions:
    """Make the sources independent of the current folder, so that an evaluation can be resumed from any."""
    data = tuple(_absolute(source) for source in options.data)
    source = absolute(options.source) if isinstance(options.source, Path) else options.source
    return replace(options, source=source, data=data, labels=options.labels and _absolute(options.labels))


def _absolute(source: str) -> str:
    """An existing path made absolute; names of embedded data sets and label sets stay as they are."""
    named = source in (EMBEDDED_DIGITS, EMBEDDED_SCENES) or not Path(source).exists()
    return source if named else str(absolute(Path(source)))


def model_digest(model: OpenModel) -> str:
    """SHA-256 of what the model is: its card, and of a bundle the files of its graph, since its version is always 0."""
    files = [sha256(file) for file in model.bundle.graph_files] if isinstance(model, BundleModel) else []
    return hashlib.sha256("".join([model.card.to_json(), *files]).encode()).hexdigest()


def _read_dataset(
    served: OpenModel, options: EvaluateOptions
) -> tuple[ClassificationDataset | SegmentationDataset, EvaluationSpec]:
    card = served.card
    dataset: ClassificationDataset | SegmentationDataset
    if card.task == "segmentation":
        check_sending(card, Sending(options.tile, options.mirrored))
        data = options.data or (EMBEDDED_SCENES,)
        dataset = read_segmentation_dataset(data, options.labels or card.label_set)
        class_index_table(card.class_spec, dataset.labels)  # raises before the images are read
    else:
        if options.labels or options.tile:
            raise UsageError(f"model {served.name} is not a segmenter", "leave out --labels and --tile")
        data = options.data or (EMBEDDED_DIGITS,)
        dataset = read_classification_dataset(data, card.classes)
    return dataset, EvaluationSpec(
        model=served.name,
        version=served.version,
        bundle=None if isinstance(options.source, Servers) else served.server,
        card=model_digest(served),
        data=data,
        labels=options.labels,
        tile=options.tile,
        mirrored=options.mirrored,
        dataset=dataset.name,
        images=len(dataset),
        fingerprint=dataset.fingerprint(),
    )
