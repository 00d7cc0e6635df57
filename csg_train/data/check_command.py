"""`csg data check`: what data are, before a training reads them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from csg.console import log, print_json
from csg.datasets.check import MANY_IGNORED, unusable_error
from csg.datasets.classification import read_classification_dataset
from csg.datasets.kinds import task_of
from csg.datasets.label_sets import class_index_table
from csg.datasets.segmentation import read_segmentation_dataset
from csg.errors import InputError, printable
from csg.files import atomic_write
from csg.overlays import png_bytes
from csg.records import Record
from csg_train.data.check_tables import show_findings
from csg_train.data.findings import Dataset, DataSource, Duplicates, Findings, examine, find_leaks
from csg_train.data.samples import Samples, draw_samples


@dataclass(frozen=True, kw_only=True)
class CheckRequest:
    """The data to check."""

    sources: tuple[str, ...]
    """Training images, as `csg train` takes them."""
    real: tuple[str, ...] = ()
    """Real images to measure on."""
    labels: str | None = None
    """Label set of the masks."""
    out: Path = Path("data-check.png")
    """Where the picture of samples is written."""


class DataCheck(Record):
    """The result of `csg data check --json`."""

    task: Literal["cls", "seg"]
    """cls: images of one class each; seg: images with masks."""
    training: Findings
    """The training images."""
    real: Findings | None
    """The real images; None if none were named."""
    leaks: Duplicates
    """Real images that are training images too."""
    picture: str
    """The picture of samples."""
    refused: str | None
    """Why a training would refuse the data; None if it would not."""


def check_command(request: CheckRequest, as_json: bool) -> None:
    """Print what the data are, and write a picture of samples.

    Raises:
        InputError: a training would refuse the data. What they are is printed all the same, if they can be listed.
    """
    task = "seg" if request.labels else task_of(request.sources[0])
    training, sources = _read(task, request.sources, request.labels, None)
    sets: list[tuple[str, Dataset, list[DataSource]]] = [("training", training, sources)]
    if request.real:
        sets.append(("real", *_read(task, request.real, request.labels, training)))
    findings, samples = [], []
    refused: list[InputError] = []
    for role, images, parts in sets:
        found, problems = examine(images, parts)
        findings.append(found)
        samples.append(Samples(f"{images.name} ({role})", images, frozenset(problems)))
        refused += _refusals(images, found, problems)
    leaks = find_leaks(training, sets[1][1]) if request.real else Duplicates(count=0)
    if not as_json:
        show_findings([(role, found) for (role, _, _), found in zip(sets, findings, strict=True)])
    atomic_write(request.out, png_bytes(draw_samples(samples)))
    result = DataCheck(
        task=task,
        training=findings[0],
        real=findings[1] if request.real else None,
        leaks=leaks,
        picture=printable(str(request.out)),
        refused=refused[0].message if refused else None,
    )
    if as_json:
        print_json(result.model_dump(mode="json"))
    for line in _warnings(findings, leaks):
        log(f"warning: {line}")
    log(f"samples are in {request.out}")
    if refused:
        raise InputError(f"a training refuses these data: {refused[0].message}", refused[0].hint)


def _read(
    task: str, sources: Sequence[str], labels: str | None, training: Dataset | None
) -> tuple[Dataset, list[DataSource]]:
    """Sources as one set, as a training reads them, and the number of images of each.

    Args:
        task: cls or seg.
        sources: folders or list files.
        labels: label set of the masks.
        training: the training set, whose classes a real set must have.
    """
    images: Dataset
    if task == "seg":
        images = read_segmentation_dataset(sources, labels)
        if training:
            class_index_table(training.class_spec, images.labels)
        counts = [len(read_segmentation_dataset([source], labels)) for source in sources[1:]]
    else:
        images = read_classification_dataset(sources, training.class_spec.names if training else None)
        counts = [len(read_classification_dataset([source], images.classes)) for source in sources[1:]]
    return images, _parts(sources, len(images), counts)


def _parts(sources: Sequence[str], total: int, others: Sequence[int]) -> list[DataSource]:
    """The sources, with the numbers of images in all and in those behind the first."""
    counts = (total - sum(others), *others)
    return [DataSource(name=printable(name), images=count) for name, count in zip(sources, counts, strict=True)]


def _refusals(images: Dataset, found: Findings, problems: Mapping[int, str]) -> Iterator[InputError]:
    """The errors of a training on a set."""
    if problems:
        error = unusable_error(images, problems)
        others = ", or train without such images: --set data.on_unreadable=skip, or a list file without them"
        yield InputError(error.message, error.hint + (others if len(problems) < len(images) else ""))
    if found.ignored == 1:
        hint = found.hint or "check the label set"
        yield InputError(f"not one pixel of the masks of {found.name} counts: all are ignored", hint)


def _warnings(findings: Sequence[Findings], leaks: Duplicates) -> Iterator[str]:
    for found in findings:
        yield from found.unusable.first
        if (more := found.unusable.count - len(found.unusable.first)) > 0:
            yield f"and {more:,} more images of {found.name} can't be used"
        if found.ignored is not None and found.ignored > MANY_IGNORED:
            yield f"{100 * found.ignored:.1f} % of the pixels of {found.name} are ignored; check the label set"
        if found.hint:
            yield f"{found.name}: {found.hint}"
        if found.duplicates.other_label:
            yield (
                f"{found.name} has the same image with different {'masks' if found.label_set else 'classes'}, "
                f"{found.duplicates.other_label:,} times, such as {' and '.join(found.duplicates.first[0])}"
            )
    if leaks.count:
        yield (
            f"LEAK: training images are among the real images ({leaks.count:,}); what is measured on them is not what "
            "the model does on new images"
        )
        yield from (f"  {training} is {real}" for training, real in leaks.first)
