"""Training views for classification: images are decoded and resized once, then augmented for each view."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import v2

from csg.datasets.classification import ClassificationDataset
from csg.errors import InputError
from csg.images import decoded
from csg_train.data.loading import Item, seed_sample
from csg_train.recipe import ClassificationAugment, ClassificationData
from csg_train.recipe.upgrade import MAGNITUDES


class Views(Dataset[Item]):
    """Augmented views of the image at (epoch, index), uint8 (V, S, S, 3), and its class, int64.

    The fourteen operations of RandAugment are those of docs/method.md section 6, with torchvision's ranges. They are
    applied after the resize, not before it as published, so that the views share decoding and resizing.
    """

    def __init__(
        self,
        images: ClassificationDataset,
        data: ClassificationData,
        augment: ClassificationAugment,
        views: int,
        seed: int,
    ):
        self.images, self.views, self.seed = images, views, seed
        self.spec = data.image_input()
        self.augment = v2.Compose(
            [
                v2.RandAugment(augment.operations, augment.magnitude, num_magnitude_bins=MAGNITUDES + 1),
                v2.RandomCrop(data.size),
            ]
        )

    def __getitem__(self, key: tuple[int, int]) -> Item:
        epoch, index = key
        try:
            with decoded(self.images.paths[index], self.spec) as found:
                image = found.resized(self._resized(found.original))
        except InputError as error:
            return error.message
        with torch.random.fork_rng(devices=[]):
            seed_sample(self.seed, epoch, index)
            views = torch.stack([self._view(image) for _ in range(self.views)])
        return views, torch.tensor(int(self.images.labels[index]))

    def _resized(self, size: tuple[int, int]) -> tuple[int, int]:
        """Width and height after the shorter side is resized; the longer one is rounded down, as torchvision does."""
        shorter = self.spec.resize_shorter_side
        width, height = (int(shorter * side / min(size)) for side in size)
        return width, height

    def _view(self, image: Image.Image) -> Tensor:
        return torch.from_numpy(np.array(self.augment(image), np.uint8))
