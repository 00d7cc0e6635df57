"""Networks to export, and a finished run's student as one.

A published checkpoint is in csg_export/checkpoint_source.py, a classifier of torchvision in torchvision_source.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Literal

import torch
from torch import nn

import csg
from csg.card import ClassificationInput, ClassSpec, Normalisation, SegmentationInput
from csg.console import log
from csg.errors import InputError, UsageError
from csg.provenance import ClassificationEvaluation, PretrainedWeights, Provenance, SegmentationEvaluation
from csg_export.intervals import Interval, student_intervals
from csg_export.parity_images import ParityImages, evenly_spaced
from csg_train.models.backbones import normalisation
from csg_train.tasks import TASKS, Images, Predict
from csg_train.training.run_data import real_images, training_images
from csg_train.training.run_folder import Run
from csg_train.training.student import load_student

PARITY_IMAGES = {"cls": 512, "seg": 64}
"""Number of real images that an export is compared on."""
CALIBRATION_IMAGES = {"cls": 256, "seg": 64}
"""Number of training images that int8's ranges are measured on."""
TORCHVISION = "torchvision"


@dataclass(frozen=True)
class Source:
    """A network to export, with what its model card says about it and the images to check the export on."""

    stem: str
    """Start of the bundle's folder name."""
    name: str
    """Name of the model."""
    task: Literal["classification", "segmentation"]
    """What it does."""
    network: nn.Module
    """Takes uint8 (B, H, W, 3) and returns logits (B, K) or (B, K, H, W)."""
    spec: ClassificationInput | SegmentationInput
    """How an image becomes its input."""
    classes: ClassSpec
    """What it tells apart."""
    normalisation: Normalisation
    """How it normalises pixels."""
    provenance: Provenance
    """Where its weights come from."""
    real: ParityImages | None
    """Real images that the export is compared on; None: hard inputs alone."""
    training: Callable[[], ParityImages]
    """Reads the images that int8's ranges are measured on."""
    evaluations: tuple[ClassificationEvaluation | SegmentationEvaluation, ...] = ()
    """The student's scores on real images, if they are known."""
    measure: Callable[[Predict], ClassificationEvaluation | SegmentationEvaluation] | None = None
    """Measures a network on all real images; None without any."""
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    """95 % intervals of the student's scores, by field of the evaluation."""
    weights: PretrainedWeights | None = None
    """What is known of the pretrained weights that it started from."""
    trained_on: str = "What it was trained on is not known"
    """What it was trained on, as a sentence without its full stop."""
    training_data: tuple[str, ...] = ()
    """Names of the sources of the training images."""


def from_run(
    run: Run, size: tuple[int, int] | None = None, data: Sequence[str] = (), real_data: Sequence[str] = ()
) -> Source:
    """The student of a finished run.

    Args:
        run: the run.
        size: fixed height and width for a segmenter; None: any multiples of 8.
        data: where the training images are now, for int8; none: where they were.
        real_data: where the real images are now; none: where they were. If they are not there, a line says so, and the
            export is compared on hard inputs alone.

    Raises:
        UsageError: `size` is given for a classifier.
        InputError: the run is not finished, a file of it is broken, or the images named are not those of the run.
    """
    student, recipe, class_spec = load_student(run), run.recipe(), run.class_spec()
    task, spec = TASKS[recipe.task], with_size(recipe.data.image_input(), size)
    real = _real_images(run, real_data)
    mean, std = normalisation(recipe.model.backbone)
    measured = run.result().real
    names = tuple(Path(source).name for source in recipe.data.train)

    def training() -> ParityImages:
        return parity_sample(training_images(run, data), spec, CALIBRATION_IMAGES[recipe.task])

    def measure(predict: Predict) -> ClassificationEvaluation | SegmentationEvaluation:
        return task.measure(predict, class_spec, real, recipe, device=torch.device("cpu")).evaluation

    return Source(
        stem=run.path.resolve().name,
        name=f"{recipe.name}-{recipe.method}",
        task="segmentation" if recipe.task == "seg" else "classification",
        network=student,
        spec=spec,
        classes=class_spec,
        normalisation=Normalisation(mean=mean, std=std),
        provenance=_provenance(run),
        real=parity_sample(real, spec, PARITY_IMAGES[recipe.task]) if real else None,
        training=training,
        evaluations=(measured,) if measured else (),
        measure=measure if measured and real else None,
        intervals=student_intervals(run) if measured else {},
        weights=run.environment().weights,
        trained_on=f"Trained on images of {' and '.join(names)}, which csg takes for synthetic, and on no other images",
        training_data=names,
    )


def _real_images(run: Run, sources: Sequence[str]) -> Images | None:
    """The real images of a run; None with a line in the log if there are none to compare on."""
    try:
        images = real_images(run, sources)
    except InputError as error:
        if sources:
            raise
        log(f"{error.message}: compared on hard inputs only, unless --real-data names their place")
        return None
    if images is None:
        log(f"run {run.path} has no real images: compared on hard inputs only, unless --real-data names some")
    return images


def parity_sample(images: Images, spec: ClassificationInput | SegmentationInput, count: int) -> ParityImages:
    """At most `count` images of a dataset, evenly spaced, to compare or calibrate on."""
    return ParityImages(images.name, spec, evenly_spaced(images.paths, count))


def with_size(
    spec: ClassificationInput | SegmentationInput, size: tuple[int, int] | None
) -> ClassificationInput | SegmentationInput:
    """The input of a network with a fixed height and width, if `size` is given.

    Raises:
        UsageError: the network is a classifier.
    """
    if size is None:
        return spec
    if isinstance(spec, ClassificationInput):
        raise UsageError("--size is for segmenters only", "leave it out")
    return SegmentationInput(**spec.model_dump() | {"height": size[0], "width": size[1]})


def _provenance(run: Run) -> Provenance:
    recipe, record, result = run.recipe(), run.environment(), run.result()
    return Provenance(
        run=run.path.resolve().name,
        recipe=recipe.name,
        recipe_digest=record.recipe_digest,
        method=recipe.method,
        backbone=recipe.model.backbone,
        seed=recipe.seed,
        steps=result.student.step if result.student else result.steps,
        data_fingerprint=record.data_fingerprint,
        commit=record.commit,
        versions={"csg": record.csg, "python": record.python, **record.packages},
    )


def own_versions() -> dict[str, str]:
    """The versions of csg, torch and torchvision here, for weights that no run of csg has recorded any of."""
    return {"csg": csg.__version__, **{package: metadata.version(package) for package in ("torch", TORCHVISION)}}
