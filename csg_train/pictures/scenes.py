"""Segmentation: images with their labels, what a network predicts, and where it is wrong."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from csg.card import ClassSpec
from csg.datasets.check import sample_of
from csg.datasets.label_sets import IGNORED, class_index_table
from csg.datasets.segmentation import SegmentationDataset
from csg.images import load_segmentation
from csg.overlays import overlay
from csg_train.methods.base import Student
from csg_train.pictures.grids import Cell, Grid, shown_classes
from csg_train.recipe import SegmentationRecipe
from csg_train.tasks import Measurement, predicting
from csg_train.tasks.segmentation import label_map

SHOWN = 4
COUNTED, WRONG, UNCOUNTED = (235, 235, 235), (0, 0, 0), (170, 170, 170)


@dataclass(frozen=True)
class Scenes:
    """The images that a segmenter was measured on."""

    images: SegmentationDataset
    """The images."""
    measurement: Measurement
    """The measurement."""
    recipe: SegmentationRecipe
    """Of the run."""
    student: Student
    """The segmenter, on its device."""
    classes: ClassSpec
    """The classes of the segmenter."""

    def spread(self) -> Grid:
        """A few images, evenly spread."""
        return self._grid(f"Images of {self.images.name}", sample_of(len(self._indices), SHOWN))

    def worst(self) -> Grid:
        """The images with the most wrong pixels, as a share of those that count."""
        shares = self._shares_right()
        places = np.argsort(shares, kind="stable")[: min(SHOWN, int(np.isfinite(shares).sum()))]
        return self._grid(f"The images of {self.images.name} with the most wrong pixels", places)

    @property
    def _indices(self) -> np.ndarray:
        assert self.measurement.indices is not None
        return self.measurement.indices

    def _shares_right(self) -> np.ndarray:
        """The share of each image's counted pixels that are right, float64 (N,); NaN without any, sorted last."""
        matrices = self.measurement.matrices
        assert matrices is not None
        right, counted = matrices.trace(axis1=1, axis2=2), matrices.sum((1, 2))
        shares: np.ndarray = np.divide(right, counted, out=np.full(len(right), np.nan), where=counted > 0)
        return shares

    def _grid(self, title: str, places: np.ndarray) -> Grid:
        shares, rows, maps, labels = self._shares_right(), [], [], self.images.labels
        for row, place in enumerate(places):
            index = int(self._indices[place])
            image, true = self.images.load(index)
            predicted = self._predicted(index)
            maps += [true, predicted]
            wrong = f"wrong: {1 - shares[place]:.1%}" if np.isfinite(shares[place]) else "nothing counts"
            captions = [self.images.paths[index].name, "labels", "prediction", wrong]
            pictures = [image, overlay(image, true, labels.colours), overlay(image, predicted, labels.colours)]
            pictures.append(_wrong_pixels(true, predicted))
            captions[1:3] = captions[1:3] if row == 0 else ["", ""]
            rows.append([Cell(picture, caption) for picture, caption in zip(pictures, captions, strict=True)])
        text = f"{title}, their labels, the prediction, and the wrong pixels in black"
        return Grid(text, rows, legend=shown_classes(labels.names, labels.colours, maps))

    @torch.inference_mode()
    def _predicted(self, index: int) -> np.ndarray:
        """The prediction for an image in the classes of the label set, uint8 (H, W), at the image's own size."""
        padded = load_segmentation(self.images.paths[index], self.recipe.data.image_input())
        device = next(self.student.parameters()).device
        with predicting(self.student) as predict:
            found = label_map(predict(torch.from_numpy(padded.pixels)[None].to(device)).logits)
        in_labels: np.ndarray = class_index_table(self.classes, self.images.labels)[padded.restore(found)]
        return in_labels


def _wrong_pixels(true: np.ndarray, predicted: np.ndarray) -> Image.Image:
    pixels = np.where((true == predicted)[..., None], COUNTED, WRONG)
    pixels[true == IGNORED] = UNCOUNTED
    return Image.fromarray(pixels.astype(np.uint8))
