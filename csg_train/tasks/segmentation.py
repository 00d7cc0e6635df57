"""Segmentation as a task: scenes with masks, crops of them, the segmenter, and its mIoU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from csg.card import ClassSpec
from csg.console import log, progress_bar
from csg.datasets.label_sets import class_index_table
from csg.datasets.segmentation import EMBEDDED_SCENES, SegmentationDataset, read_segmentation_dataset
from csg.errors import InputError
from csg.images import prepare_segmentation
from csg.metrics import PixelConfusion, by_class_name
from csg.provenance import SegmentationEvaluation
from csg_train.data.crops import Crops
from csg_train.data.loading import Item
from csg_train.data.synthetic_scenes import digit_scenes
from csg_train.models.backbones import Encoder
from csg_train.models.segmenter import Segmenter
from csg_train.recipe import SegmentationRecipe
from csg_train.tasks.base import Measured, Predict

EMBEDDED = EMBEDDED_SCENES
SCORES = {"miou": "mIoU %", "pixel_accuracy": "pixel accuracy %"}


def read_synthetic(recipe: SegmentationRecipe) -> SegmentationDataset:
    sources = [_drawn(recipe) if source == EMBEDDED else source for source in recipe.data.train]
    embedded = EMBEDDED in recipe.data.train
    return read_segmentation_dataset(sources, EMBEDDED if embedded else recipe.data.labels)


def _drawn(recipe: SegmentationRecipe) -> Path:
    count = recipe.data.count
    with progress_bar("drawing synthetic scenes", count) as advance:
        return digit_scenes(count, seed=0, progress=advance)


def read_real(
    recipe: SegmentationRecipe, classes: ClassSpec, sources: Sequence[str | Path], partly: bool
) -> SegmentationDataset:
    scenes = read_segmentation_dataset(sources, recipe.data.real_labels or recipe.data.labels)
    class_index_table(classes, scenes.labels)  # raises before anything is trained
    return scenes


def student(recipe: SegmentationRecipe, classes: int, weights: dict[str, Tensor] | None) -> Segmenter:
    model = recipe.model
    encoder = Encoder(model.backbone, weights, model.freeze_batch_norm, model.freeze_affine, dilated=True)
    return Segmenter(encoder, classes, model.head)


def views(images: SegmentationDataset, recipe: SegmentationRecipe, count: int) -> Dataset[Item]:
    return Crops(images, recipe.data, recipe.augment, count, recipe.seed)


@torch.inference_mode()
def measure(
    predict: Predict,
    classes: ClassSpec,
    images: SegmentationDataset,
    recipe: SegmentationRecipe,
    device: torch.device,
) -> Measured:
    """mIoU over whole images at their own size, one at a time; predictions in the classes of the images' label set.

    Raises:
        InputError: a scene can't be read and the recipe does not skip such, or none can.
    """
    spec, skipped, embeddings = recipe.data.image_input(), 0, []
    table, counts = class_index_table(classes, images.labels), PixelConfusion(len(images.labels.classes))
    with progress_bar(f"measuring on {images.name}", len(images)) as advance:
        for place in range(len(images)):
            advance(1)
            try:
                image, labels = images.load(place)
            except InputError as error:
                if recipe.data.on_unreadable == "fail":
                    raise
                log(f"left out: {error.message}")
                skipped += 1
                continue
            scene = prepare_segmentation(image, spec)
            logits, embedding = predict(torch.from_numpy(scene.pixels)[None].to(device))
            embeddings.append(np.zeros((0, 0)) if embedding is None else embedding.cpu().numpy())
            found = logits[0].argmax(0).to(torch.uint8).cpu().numpy()
            counts.add(labels, table[scene.restore(found)])
    if not embeddings:
        raise InputError(f"none of the {len(images)} scenes of {images.name} can be read", "check the data")
    scores = counts.scores()
    evaluation = SegmentationEvaluation(
        dataset=images.name,
        images=len(embeddings),
        skipped=skipped,
        miou=scores.miou,
        pixel_accuracy=scores.pixel_accuracy,
        frequency_weighted_iou=scores.frequency_weighted_iou,
        per_class=by_class_name(images.labels.names, scores.per_class),
    )
    return Measured(evaluation, scores.confusion[:, :-1], np.concatenate(embeddings))
