"""Figures of a served segmenter, computed from the journal, and pictures of three examples."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from csg.card import Colour
from csg.confidence_intervals import SegmentationBootstrap
from csg.console import show_line, show_table
from csg.datasets.label_sets import IGNORED, LabelSet, class_index_table, class_map
from csg.datasets.segmentation import SegmentationDataset
from csg.errors import InputError
from csg.files import atomic_write
from csg.metrics import PixelConfusion, SegmentationScores, by_class_name, segmentation_scores
from csg.overlays import overlay, png_bytes, side_by_side
from csg_serve.client.model import OpenModel
from csg_serve.evaluate.collect import iter_predictions
from csg_serve.evaluate.progress import Progress
from csg_serve.evaluate.records import (
    AgainstResult,
    EvaluationSpec,
    JournalRecord,
    MirroredIou,
    PixelCells,
    SegmentationAnswer,
    SegmentationResult,
)


@dataclass(frozen=True)
class SegmentationReport:
    """Figures of a served segmenter on a set of images."""

    folder: Path
    """Folder of the evaluation."""
    spec: EvaluationSpec
    """The model and the images."""
    classes: tuple[str, ...]
    """Class names of the images' label set."""
    colours: tuple[Colour, ...]
    """Colours of the classes."""
    progress: Progress
    """Counts, throughput and latency."""
    scores: SegmentationScores
    """IoU and the confusion matrix over all pixels."""
    interval: tuple[float, float] | None
    """95 % confidence interval of the mIoU, None unless two images have counted pixels."""
    miou_per_image: np.ndarray
    """mIoU of each image, float64 (N,); NaN for an image without an answer or without labelled pixels."""
    label_map: dict[str, str]
    """The model's classes by their names in the images' label set; empty if both use the same set."""
    pictures: tuple[Path, ...] = ()
    """Image, prediction and labels of each of the `examples`."""
    mirrored: SegmentationScores | None = None
    """IoU of image and mirror image together, if mirror images were sent."""
    mirrored_interval: tuple[float, float] | None = None
    """As `interval`."""
    against: AgainstResult | None = None
    """The comparison with another evaluation, if one was asked for."""

    @property
    def examples(self) -> dict[str, int]:
        """Indices of the best, the median and the worst image that has a score."""
        scored = int(np.isfinite(self.miou_per_image).sum())
        ranked = np.argsort(-self.miou_per_image, kind="stable")[:scored].tolist()
        return {"best": ranked[0], "median": ranked[len(ranked) // 2], "worst": ranked[-1]} if ranked else {}

    def to_result(self, page: Path | None) -> SegmentationResult:
        """The record for result.json; `page` is the HTML page, if one was written."""
        scores = self.scores
        return SegmentationResult(
            model=self.spec.model,
            version=self.spec.version,
            bundle=Path(self.spec.bundle) if self.spec.bundle else None,
            images=self.progress.answered,
            skipped=self.progress.skipped,
            miou=scores.miou,
            miou_interval=self.interval,
            pixel_accuracy=scores.pixel_accuracy,
            frequency_weighted_iou=scores.frequency_weighted_iou,
            per_class=by_class_name(self.classes, scores.per_class),
            label_map=self.label_map,
            pictures=self.pictures,
            mirrored=_mirrored_iou(self.mirrored, self.mirrored_interval) if self.mirrored else None,
            images_per_s=self.progress.images_per_s,
            latency_ms=self.progress.latencies.percentiles(),
            folder=self.folder,
            report=page,
            against=self.against,
        )


def _mirrored_iou(scores: SegmentationScores, interval: tuple[float, float] | None) -> MirroredIou:
    return MirroredIou(
        miou=scores.miou,
        miou_interval=interval,
        pixel_accuracy=scores.pixel_accuracy,
        frequency_weighted_iou=scores.frequency_weighted_iou,
    )


def summarise_segmentation(
    folder: Path,
    spec: EvaluationSpec,
    labels: LabelSet,
    records: Iterable[JournalRecord],
) -> SegmentationReport:
    """Compute the figures from the records of the journal, in any order; memory grows by eight bytes per image.

    Args:
        folder: folder of the evaluation.
        spec: the model and the images.
        labels: the label set of the images.
        records: the records, as `Journal.records` has checked them.

    Raises:
        InputError: no image was answered, or every pixel is ignored.
    """
    progress, plain, of_both = Progress(), _PixelTotals(len(labels.classes)), _PixelTotals(len(labels.classes))
    miou_per_image = np.full(spec.images, np.nan)
    for record in records:
        progress.add(record)
        if not isinstance(record, SegmentationAnswer):
            continue
        miou_per_image[record.index] = segmentation_scores(plain.add(record.index, record)).miou
        if record.mirrored:
            of_both.add(record.index, record.mirrored)
    if not progress.answered:
        raise InputError(f"none of the {spec.images} images of {spec.dataset} can be read", "repair them")
    if not plain.confusion.matrix.any():
        raise InputError(
            f"every pixel of the {spec.images} masks of {spec.dataset} is ignored: there is nothing to measure",
            f"check that the values of the masks are those of the label set {labels.name}",
        )
    return SegmentationReport(
        folder=folder,
        spec=spec,
        classes=labels.names,
        colours=labels.colours,
        progress=progress,
        scores=plain.confusion.scores(),
        interval=plain.bootstrap.miou(),
        miou_per_image=miou_per_image,
        label_map={},
        mirrored=of_both.confusion.scores() if spec.mirrored else None,
        mirrored_interval=of_both.bootstrap.miou() if spec.mirrored else None,
    )


class _PixelTotals:
    """The confusion matrix over all images, and what its interval is drawn from."""

    def __init__(self, classes: int):
        self.confusion, self.bootstrap = PixelConfusion(classes), SegmentationBootstrap(classes)

    def add(self, index: int, found: PixelCells) -> np.ndarray:
        """Count an image, and return its confusion matrix, int64 (K, K + 1)."""
        matrix = np.zeros_like(self.confusion.matrix)
        matrix.flat[list(found.cells)] = found.pixels
        self.confusion.matrix += matrix
        self.bootstrap.add(index, matrix)
        return matrix


async def with_examples(
    report: SegmentationReport, served: OpenModel, dataset: SegmentationDataset
) -> SegmentationReport:
    """Add the label map, and write pictures of the examples: image, prediction and labels side by side.

    The predictions are requested again, so that none is kept in memory during the evaluation.
    """
    card, labels = served.card, dataset.labels
    pairs, table = class_map(card.class_spec, labels), class_index_table(card.class_spec, labels)
    label_map = pairs if labels.name != card.class_spec.label_set else {}
    pictures, examples = [], list(report.examples.items())
    paths = [dataset.paths[index] for _, index in examples]
    async with aclosing(iter_predictions(served, paths, report.spec.tile)) as predictions:
        async for number, label_map_HW in predictions:
            name, index = examples[number]
            image, true = dataset.load(index)
            predicted = np.where(true == IGNORED, IGNORED, table[label_map_HW]).astype(np.uint8)
            row = side_by_side(image, *(overlay(image, one, labels.colours) for one in (predicted, true)))
            pictures.append(report.folder / f"{name}.png")
            atomic_write(pictures[-1], png_bytes(row))
    return replace(report, label_map=label_map, pictures=tuple(pictures))


def show_segmentation(report: SegmentationReport) -> None:
    """Print the table of classes and the headline figures."""
    scores, spec, progress = report.scores, report.spec, report.progress
    shares = scores.confusion.sum(1) / max(1, scores.confusion.sum())
    rows = [
        (name, f"{share:.1%}", "-" if np.isnan(iou) else f"{iou:.1%}")
        for name, share, iou in zip(report.classes, shares, scores.per_class, strict=True)
    ]
    title = f"{spec.title} on {spec.dataset}"
    show_table(title, ("class", "pixels", "IoU"), rows)
    if report.label_map:
        renamed = ", ".join(f"{old} = {new}" for old, new in report.label_map.items() if old != new)
        show_line(f"class map            {renamed}; other classes keep their name or have no counterpart")
    _show_iou(scores, report.interval, "")
    if report.mirrored:
        _show_iou(report.mirrored, report.mirrored_interval, ", with mirror image")
    show_line(f"images               {progress.answered}, {progress.skipped} skipped, {progress.images_per_s:.1f}/s")
    if report.pictures:
        show_line(f"pictures             {', '.join(map(str, report.pictures))}: image, prediction, labels")


def _show_iou(scores: SegmentationScores, bounds: tuple[float, float] | None, how: str) -> None:
    interval = " ({:.1%} to {:.1%})".format(*bounds) if bounds else ""
    show_line(f"mIoU                 {scores.miou:.2%}{interval}{how}")
    show_line(f"pixel accuracy       {scores.pixel_accuracy:.2%}{how}")
    show_line(f"weighted IoU         {scores.frequency_weighted_iou:.2%}{how}")
