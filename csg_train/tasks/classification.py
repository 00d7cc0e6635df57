"""Classification as a task: labelled images, views of them, the classifier, and its accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from csg.card import Classes, Evaluation
from csg.console import counting, say
from csg.datasets.classification import DIGITS_REAL, LabelledImages, read_labelled
from csg.errors import InputError
from csg.metrics import class_scores
from csg_train.data.evaluation_batches import image_batches
from csg_train.data.loading import Item
from csg_train.data.synthetic_digits import digits
from csg_train.data.views import Views
from csg_train.models.backbones import Encoder
from csg_train.models.classifier import Classifier
from csg_train.recipe.schema import ClassRecipe
from csg_train.tasks.base import Measured

EMBEDDED = DIGITS_REAL
SCORES = {"mean_class_accuracy": "mean class accuracy %", "accuracy": "accuracy %"}


def read_synthetic(recipe: ClassRecipe) -> LabelledImages:
    return read_labelled([_drawn(recipe) if source == EMBEDDED else source for source in recipe.data.train])


def _drawn(recipe: ClassRecipe) -> Path:
    count = recipe.data.count
    with counting("drawing synthetic digits", count) as advance:
        return digits(count, seed=0, progress=advance)


def read_real(recipe: ClassRecipe, classes: Classes, sources: Sequence[str | Path], partly: bool) -> LabelledImages:
    return read_labelled(sources).in_order_of(classes.names, partly)


def student(recipe: ClassRecipe, classes: int, weights: dict[str, Tensor] | None) -> Classifier:
    model = recipe.model
    return Classifier(Encoder(model.backbone, weights, model.freeze_batch_norm, model.freeze_affine), classes)


def views(images: LabelledImages, recipe: ClassRecipe, count: int) -> Dataset[Item]:
    return Views(images, recipe.data, recipe.augment, count, recipe.seed)


@torch.inference_mode()
def measure(
    student: Classifier, classes: Classes, images: LabelledImages, recipe: ClassRecipe, device: torch.device
) -> Measured:
    """Accuracies, and what they are made of.

    Raises:
        InputError: an image can't be read and the recipe does not skip such, or none can.
    """
    training = student.training
    student.eval()
    errors: list[InputError] = []

    def note(error: InputError) -> None:
        errors.append(error)
        say(f"left out: {error.what}")

    true, predicted, embeddings = [], [], []
    with counting(f"measuring on {images.name}", len(images)) as advance:
        unreadable = note if recipe.data.unreadable == "skip" else None
        for places, batch in image_batches(images.paths, recipe.data.image_input(), unreadable):
            maps = student.encoder(torch.from_numpy(batch).to(device))
            embeddings.append(student.embed(maps).cpu().numpy())
            predicted.append(student.classify(maps).argmax(1).cpu().numpy())
            true.append(images.labels[places])
            advance(len(places))
    student.train(training)
    if not true:
        raise InputError(f"none of the {len(images)} images of {images.name} can be read", "check the data")
    all_true, all_predicted = np.concatenate(true), np.concatenate(predicted)
    scores = class_scores(all_true, all_predicted, len(classes))
    evaluation = Evaluation(
        dataset=images.name,
        images=scores.images,
        skipped=len(errors),
        accuracy=scores.accuracy,
        mean_class_accuracy=scores.mean_class_accuracy,
    )
    return Measured(evaluation, scores.confusion, np.concatenate(embeddings), all_true, all_predicted)
