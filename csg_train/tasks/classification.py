"""Classification: labelled images, their views, the classifier, and its accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from csg.card import ClassSpec
from csg.console import log, progress_bar
from csg.datasets.classification import EMBEDDED_DIGITS, ClassificationDataset, read_classification_dataset
from csg.errors import InputError
from csg.label_free import PredictionMatrix
from csg.metrics import ClassificationScores, classification_scores
from csg.provenance import ClassificationEvaluation
from csg_train.data.evaluation_batches import image_batches
from csg_train.data.loading import Item
from csg_train.data.pasta import pasta_of
from csg_train.data.synthetic_digits import SYNTHETIC_DIGITS
from csg_train.data.views import Views
from csg_train.models.backbones import Encoder
from csg_train.models.classifier import Classifier
from csg_train.models.names import TIMM
from csg_train.models.timm_backbone import check_size
from csg_train.recipe import ClassificationRecipe
from csg_train.tasks.base import Measurement, Predict, Task


class Classification(Task[ClassificationRecipe, Classifier, ClassificationDataset]):
    """One class for each image."""

    embedded = EMBEDDED_DIGITS
    scores = {"mean_class_accuracy": "mean class accuracy %", "accuracy": "accuracy %"}  # noqa: RUF012

    def read_synthetic(self, recipe: ClassificationRecipe) -> ClassificationDataset:
        return read_classification_dataset(
            [_drawn(recipe) if source == EMBEDDED_DIGITS else source for source in recipe.data.train]
        )

    def read_real(
        self, recipe: ClassificationRecipe, classes: ClassSpec, sources: Sequence[str | Path]
    ) -> ClassificationDataset:
        return read_classification_dataset(sources, classes.names)

    def student(self, recipe: ClassificationRecipe, classes: int, weights: dict[str, Tensor] | None) -> Classifier:
        model = recipe.model
        if model.backbone.startswith(TIMM):
            check_size(model.backbone, recipe.data.size)
        encoder = Encoder(
            model.backbone, weights, model.freeze_batch_norm, model.freeze_affine, size=recipe.fixed_size()
        )
        return Classifier(encoder, classes, model.head)

    def views(
        self, images: ClassificationDataset, recipe: ClassificationRecipe, count: int, *, augmented: bool
    ) -> Dataset[Item]:
        augment, pasta = recipe.augment if augmented else None, pasta_of(recipe.augment)
        return Views(images, recipe.data, augment, count, seed=recipe.seed, pasta=pasta)

    @torch.inference_mode()
    def measure(
        self,
        predict: Predict,
        classes: ClassSpec,
        images: ClassificationDataset,
        recipe: ClassificationRecipe,
        device: torch.device,
    ) -> Measurement:
        errors: list[InputError] = []
        read, confidences, predicted, of_both, embeddings = list[int](), [], [], [], []
        matrix = PredictionMatrix(len(classes))
        loss = 0.0

        def note(error: InputError) -> None:
            errors.append(error)
            log(f"skipped: {error.message}")

        with progress_bar(f"measuring on {images.name}", len(images)) as advance:
            unreadable = note if recipe.data.on_unreadable == "skip" else None
            for indices, batch in image_batches(images.paths, recipe.data.image_input(), unreadable):
                prediction = predict(torch.from_numpy(batch).to(device))
                prediction.check(images.name)
                logits, embedding, both = prediction
                true = torch.from_numpy(images.labels[indices]).long()
                loss += float(F.cross_entropy(logits.float().cpu(), true, reduction="sum"))
                embeddings.append(np.zeros((0, 0)) if embedding is None else embedding.cpu().numpy())
                predicted.append(logits.argmax(1).cpu().numpy())
                if both is not None:
                    of_both.append(both.argmax(1).cpu().numpy())
                probabilities = logits.float().softmax(1).cpu().numpy()
                confidences.append(probabilities.max(1))
                matrix.add(probabilities)
                read += indices
                advance(len(indices))
        if not read:
            raise InputError(f"none of the {len(images)} images of {images.name} can be read", "check the data")
        all_true, all_predicted = images.labels[read], np.concatenate(predicted)
        scores = classification_scores(all_true, all_predicted, len(classes))
        evaluation = _evaluation(images.name, scores, skipped=len(errors))
        mirrored = None
        if of_both:
            scores_of_both = classification_scores(all_true, np.concatenate(of_both), len(classes))
            mirrored = _evaluation(images.name, scores_of_both, skipped=len(errors))
        return Measurement(
            evaluation,
            scores.confusion,
            np.concatenate(embeddings),
            true=all_true,
            predicted=all_predicted,
            confidences=np.concatenate(confidences),
            indices=np.array(read),
            loss=loss / len(read),
            mirrored=mirrored,
            nuclear_norm=matrix.nuclear_norm,
        )


def _evaluation(dataset: str, scores: ClassificationScores, skipped: int) -> ClassificationEvaluation:
    return ClassificationEvaluation(
        dataset=dataset,
        images=scores.images,
        skipped=skipped,
        accuracy=scores.accuracy,
        mean_class_accuracy=scores.mean_class_accuracy,
    )


def _drawn(recipe: ClassificationRecipe) -> Path:
    count = recipe.data.count
    with progress_bar("drawing synthetic digits", count) as advance:
        return SYNTHETIC_DIGITS.cached(count, seed=0, progress=advance)
