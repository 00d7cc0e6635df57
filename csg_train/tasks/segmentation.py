"""Segmentation: images with masks, their crops, the segmenter, and its mIoU."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from csg.card import STRIDE, ClassSpec
from csg.console import log, progress_bar
from csg.datasets.label_sets import IGNORED, class_index_table
from csg.datasets.segmentation import EMBEDDED_SCENES, SegmentationDataset, read_segmentation_dataset
from csg.errors import InputError, UsageError
from csg.images import PaddedImage, load_segmentation
from csg.label_free import PredictionMatrix
from csg.metrics import PixelConfusion, SegmentationScores, by_class_name
from csg.provenance import SegmentationEvaluation
from csg_train.data.crops import NO_AUGMENT, Crops
from csg_train.data.loading import Item
from csg_train.data.pasta import pasta_of
from csg_train.data.synthetic_scenes import DIGIT_SCENES
from csg_train.models.backbones import Encoder
from csg_train.models.segmenter import Segmenter
from csg_train.models.timm_backbone import check_free_size
from csg_train.recipe import SegmentationRecipe
from csg_train.tasks.base import Measurement, Predict, Task


class Segmentation(Task[SegmentationRecipe, Segmenter, SegmentationDataset]):
    """One class for each pixel."""

    embedded = EMBEDDED_SCENES
    scores = {"miou": "mIoU %", "pixel_accuracy": "pixel accuracy %"}  # noqa: RUF012

    def read_synthetic(self, recipe: SegmentationRecipe) -> SegmentationDataset:
        sources = [_drawn(recipe) if source == EMBEDDED_SCENES else source for source in recipe.data.train]
        embedded = EMBEDDED_SCENES in recipe.data.train
        return read_segmentation_dataset(sources, EMBEDDED_SCENES if embedded else recipe.data.labels)

    def read_real(
        self, recipe: SegmentationRecipe, classes: ClassSpec, sources: Sequence[str | Path]
    ) -> SegmentationDataset:
        images = read_segmentation_dataset(sources, recipe.data.real_labels or recipe.data.labels)
        class_index_table(classes, images.labels)  # raises before anything is trained
        return images

    def student(self, recipe: SegmentationRecipe, classes: int, weights: dict[str, Tensor] | None) -> Segmenter:
        model = recipe.model
        check_free_size(model.backbone)
        encoder = Encoder(model.backbone, weights, model.freeze_batch_norm, model.freeze_affine, dilated=True)
        _check_crop(recipe, encoder)
        return Segmenter(encoder, classes, model.head, model.align_corners)

    def views(
        self, images: SegmentationDataset, recipe: SegmentationRecipe, count: int, *, augmented: bool
    ) -> Dataset[Item]:
        augment, pasta = recipe.augment if augmented else NO_AUGMENT, pasta_of(recipe.augment)
        return Crops(images, recipe.data, augment, count, seed=recipe.seed, pasta=pasta)

    @torch.inference_mode()
    def measure(
        self,
        predict: Predict,
        classes: ClassSpec,
        images: SegmentationDataset,
        recipe: SegmentationRecipe,
        device: torch.device,
    ) -> Measurement:
        """mIoU over whole images at their own size, one at a time, in the classes of the images' label set."""
        read, embeddings, matrices = list[int](), [], []
        table, labelled = class_index_table(classes, images.labels), len(images.labels.classes)
        counts, counts_of_both = PixelConfusion(labelled), PixelConfusion(labelled)
        matrix = PredictionMatrix(len(classes))
        same, losses, pixels = classes.names == images.labels.names, 0.0, 0
        with progress_bar(f"measuring on {images.name}", len(images)) as advance:
            for index in range(len(images)):
                advance(1)
                loaded = _load(images, index, recipe)
                if loaded is None:
                    continue
                padded, labels = loaded
                read.append(index)
                prediction = predict(torch.from_numpy(padded.pixels)[None].to(device))
                prediction.check(images.name)
                logits, embedding, both = prediction
                if same:
                    of_image, number = pixel_loss(logits, padded, labels)
                    losses, pixels = losses + of_image, pixels + number
                embeddings.append(np.zeros((0, 0)) if embedding is None else embedding.cpu().numpy())
                matrices.append(counts.matrix_of(labels, table[padded.restore(label_map(logits))]))
                counts.matrix += matrices[-1]
                matrix.add(some_probabilities(logits, padded))
                if both is not None:
                    counts_of_both.add(labels, table[padded.restore(label_map(both))])
        if not embeddings:
            raise InputError(f"none of the {len(images)} images of {images.name} can be read", "check the data")
        scores, skipped = counts.scores(), len(images) - len(read)
        if not scores.confusion.any():
            raise InputError(
                f"no pixel of {images.name} belongs to a class of label set {images.labels.name}",
                "check the masks and the label set",
            )
        evaluation = _evaluation(images, scores, skipped)
        mirrored = counts_of_both.scores() if counts_of_both.matrix.any() else None
        return Measurement(
            evaluation,
            scores.confusion[:, :-1],
            np.concatenate(embeddings),
            indices=np.array(read),
            matrices=np.stack(matrices),
            loss=losses / pixels if pixels else None,
            mirrored=_evaluation(images, mirrored, skipped) if mirrored else None,
            nuclear_norm=matrix.nuclear_norm,
        )


def _check_crop(recipe: SegmentationRecipe, encoder: Encoder) -> None:
    """Check that the maps of a crop can be divided into the grid of patches that the method contrasts.

    Raises:
        UsageError: the crop is too small.
    """
    settings = recipe.methods[recipe.method]
    grid, stages = settings.get("grid", 1), settings.get("stages", ())

    def fits(side: int) -> bool:
        return all(encoder.cells(stage, side) >= grid for stage in stages)

    height, width = recipe.data.crop
    if not (fits(height) and fits(width)):
        smallest = next(side for side in itertools.count(STRIDE, STRIDE) if fits(side))
        raise UsageError(
            f"{recipe.method} contrasts {grid} x {grid} patches, and crops of {height} x {width} pixels give "
            f"{recipe.model.backbone} smaller maps",
            f"use crops of at least {smallest} x {smallest}: --set data.crop=[{smallest},{smallest}], "
            f"or --set methods.{recipe.method}.grid=N with a smaller grid",
        )


def _load(images: SegmentationDataset, index: int, recipe: SegmentationRecipe) -> tuple[PaddedImage, np.ndarray] | None:
    """An image and its labels, uint8 (H, W); None if they can't be read and the recipe skips such images."""
    try:
        padded = load_segmentation(images.paths[index], recipe.data.image_input())
        return padded, images.load_labels(index, padded.original)
    except InputError as error:
        if recipe.data.on_unreadable == "fail":
            raise
        log(f"skipped: {error.message}")
        return None


def pixel_loss(logits: Tensor, padded: PaddedImage, labels: np.ndarray) -> tuple[float, int]:
    """The cross entropy of an image, summed over its labelled pixels, and their number.

    Args:
        logits: (1, K, H, W) of the padded image.
        padded: the image; labels are brought to its size, nearest neighbour.
        labels: uint8 (H, W) at the size of the file.
    """
    width, height = padded.scaled
    scaled = Image.fromarray(labels).resize(padded.scaled, Image.Resampling.NEAREST)
    true = torch.from_numpy(np.array(scaled)).long()[None].to(logits.device)
    found = logits[:, :, :height, :width].float()
    loss = F.cross_entropy(found, true, ignore_index=IGNORED, reduction="sum")
    return float(loss), int((true != IGNORED).sum())


def label_map(logits: Tensor) -> np.ndarray:
    """The class of each pixel, uint8 (H, W), from logits or probabilities (1, K, H, W)."""
    return logits[0].argmax(0).to(torch.uint8).cpu().numpy()


def some_probabilities(logits: Tensor, padded: PaddedImage) -> np.ndarray:
    """Class probabilities of every eighth pixel of every eighth row of an image, float32 (N, K), without its padding.

    Args:
        logits: (1, K, H, W).
        padded: the image.
    """
    width, height = padded.scaled
    some_KHW = logits[0, :, :height:STRIDE, :width:STRIDE]
    return some_KHW.float().softmax(0).flatten(1).T.cpu().numpy()


def _evaluation(images: SegmentationDataset, scores: SegmentationScores, skipped: int) -> SegmentationEvaluation:
    return SegmentationEvaluation(
        dataset=images.name,
        images=len(images) - skipped,
        skipped=skipped,
        miou=scores.miou,
        pixel_accuracy=scores.pixel_accuracy,
        frequency_weighted_iou=scores.frequency_weighted_iou,
        per_class=by_class_name(images.labels.names, scores.per_class),
    )


def _drawn(recipe: SegmentationRecipe) -> Path:
    count = recipe.data.count
    with progress_bar("drawing synthetic scenes", count) as advance:
        return DIGIT_SCENES.cached(count, seed=0, progress=advance)
