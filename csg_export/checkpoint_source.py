"""The student in a checkpoint of the method's published code, as a network to export (docs/how-to/weights.md)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import torch

from csg.card import ClassSpec, Normalisation, class_name
from csg.console import log
from csg.datasets.label_sets import CITYSCAPES_IDS, read_label_set
from csg.errors import InputError, UsageError, one_line
from csg.files import sha256
from csg.folders import why_no_file
from csg.provenance import ClassificationEvaluation, Provenance, SegmentationEvaluation
from csg_export.parity_images import ParityImages
from csg_export.sources import CALIBRATION_IMAGES, PARITY_IMAGES, Source, own_versions, parity_sample, with_size
from csg_train.methods.base import Student
from csg_train.models.backbones import normalisation
from csg_train.models.csg_checkpoint import CsgCheckpoint, parse_csg_checkpoint
from csg_train.models.state_dicts import check_finite, check_fits, read_state_dict
from csg_train.models.weights import check_weights
from csg_train.models.weights_licence import checkpoint_weights
from csg_train.recipe import Recipe, load_recipe
from csg_train.tasks import TASKS, Predict
from csg_train.training.run_data import with_notes

RECIPES = {"cls": "visda17", "seg": "gta5"}
"""The recipes of the published trainings, whose networks and image sizes the checkpoints have."""
VISDA17 = (
    *("aeroplane", "bicycle", "bus", "car", "horse", "knife"),
    *("motorcycle", "person", "plant", "skateboard", "train", "truck"),
)
"""The classes of VisDA-17 (docs/method.md section 6)."""
ANOTHER = "name a checkpoint of NVlabs/CSG (docs/how-to/weights.md)"


def from_checkpoint(
    file: Path,
    classes: str | None = None,
    *,
    size: tuple[int, int] | None = None,
    data: Sequence[str] = (),
    real_data: Sequence[str] = (),
) -> Source:
    """The student in a checkpoint of the published code.

    Args:
        file: the checkpoint; no code in it is run.
        classes: of a classifier, a file with a class name a line; of a segmenter, a label set, a name or a YAML file;
            None: VisDA-17's or Cityscapes'.
        size: fixed height and width for a segmenter; None: any multiples of 8.
        data: images of its classes to measure int8's ranges on, as `csg train --data` takes them.
        real_data: real images of its classes to compare on; none: hard inputs alone.

    Raises:
        UsageError: `size` is given for a classifier, or the number of classes is that of neither set and `classes` is
            None.
        InputError: the file is no such checkpoint or is damaged, or the classes or the images can't be read.
    """
    found = _read(file)
    class_spec = _classes(found, classes)
    labels = {"data.labels": classes or CITYSCAPES_IDS} if found.task == "seg" else {}
    recipe = load_recipe(RECIPES[found.task], {"model.backbone": found.backbone} | labels)
    task = TASKS[found.task]
    spec, mean_std = with_size(recipe.data.image_input(), size), normalisation(found.backbone)
    real = with_notes(task.read_real(recipe, class_spec, real_data)) if real_data else None
    if real is None:
        log("no real images are named: compared on hard inputs only, unless --real-data names some")

    def training() -> ParityImages:
        if not data:
            raise UsageError("int8 needs images to measure its ranges on", "name images of the classes with --data")
        images = with_notes(task.read_real(recipe, class_spec, data))
        return parity_sample(images, spec, CALIBRATION_IMAGES[found.task])

    def measure(predict: Predict) -> ClassificationEvaluation | SegmentationEvaluation:
        return task.measure(predict, class_spec, real, recipe, device=torch.device("cpu")).evaluation

    return Source(
        stem=re.sub(r"[^A-Za-z0-9_-]", "-", file.name.partition(".")[0]).lstrip("-_") or "checkpoint",
        name=f"csg-{found.backbone}" if found.task == "cls" else f"csg-deeplab-{found.backbone}",
        task="segmentation" if found.task == "seg" else "classification",
        network=_student(file, found, recipe),
        spec=spec,
        classes=class_spec,
        normalisation=Normalisation(mean=mean_std[0], std=mean_std[1]),
        provenance=_provenance(file, found),
        real=parity_sample(real, spec, PARITY_IMAGES[found.task]) if real else None,
        training=training,
        measure=measure if real else None,
        weights=checkpoint_weights(file),
        trained_on="A checkpoint of the method's published code, which does not say what it was trained on",
    )


def _read(file: Path) -> CsgCheckpoint:
    if not file.is_file():
        raise InputError(f"checkpoint {file} {why_no_file(file)}", "check --checkpoint")
    try:
        return parse_csg_checkpoint(read_state_dict(file))
    except Exception as error:  # torch and its unpickler fail in many ways on a file that is no state dict
        raise InputError(f"{file} is no checkpoint of the published code: {one_line(error, 200)}", ANOTHER) from None


def _student(file: Path, found: CsgCheckpoint, recipe: Recipe) -> Student:
    """The network with the weights of the checkpoint, float32, in eval mode."""
    try:
        check_weights(found.backbone, found.encoder)
        student: Student = TASKS[found.task].student(recipe, found.classes, found.encoder)
        check_fits(found.head, student.head.state_dict())
        check_finite(found.head)
    except (ValueError, RuntimeError) as error:  # torch compares no numbers of 8 bits
        what = f"{file} holds no {found.backbone} with a published head"
        raise InputError(f"{what}: {one_line(error, 200)}", ANOTHER) from None
    student.head.load_state_dict(found.head)
    return student.eval()


def _classes(found: CsgCheckpoint, source: str | None) -> ClassSpec:
    """The classes of a checkpoint; `source` as `from_checkpoint` takes it."""
    if found.task == "seg":
        labels = read_label_set(source or CITYSCAPES_IDS)
        spec = ClassSpec(labels.names, labels.name, labels.colours)
    else:
        spec = ClassSpec(_class_names(Path(source)) if source else VISDA17)
    if len(spec) != found.classes:
        what = f"{source} has" if source else f"{'Cityscapes' if found.task == 'seg' else 'VisDA-17'} has"
        raise UsageError(
            f"{what} {len(spec)} classes, the checkpoint {found.classes}",
            "name its classes with --classes: a file with a name a line; for a segmenter, a label set",
        )
    return spec


def _class_names(file: Path) -> tuple[str, ...]:
    try:
        lines = file.read_text("utf-8").splitlines()
        names = tuple(class_name(line.strip()) for line in lines if line.strip())
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else one_line(error)
        raise InputError(f"class names {file} can't be read: {reason}", "write a name a line, in UTF-8") from None
    if len(set(names)) < len(names):
        raise InputError(f"class names {file} hold a name twice", "give each class a name of its own")
    return names


def _provenance(file: Path, found: CsgCheckpoint) -> Provenance:
    """What is known of the weights: neither their seed, nor their steps, nor their images are in a checkpoint."""
    return Provenance(
        run=file.name,
        recipe="published checkpoint",
        recipe_digest=sha256(file),
        method="csg",
        backbone=found.backbone,
        seed=0,
        steps=0,
        data_fingerprint="unknown",
        commit=None,
        versions=own_versions(),
    )
