"""Training views for classification: images are decoded and resized once, then augmented for each view."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from csg.datasets.classification import ClassificationDataset
from csg.errors import InputError
from csg.images import decoded, load
from csg_train.data.loading import Item, seeded_sample
from csg_train.data.pasta import Pasta
from csg_train.data.rand_augment import RandAugment
from csg_train.recipe import ClassificationAugment, ClassificationData


class Views(Dataset[Item]):
    """Views of the image at (epoch, index), uint8 (V, S, S, 3), and its class, int64.

    With `augment` they are random crops after RandAugment (docs/method.md section 6). RandAugment is applied after the
    resize, not before it as published, so that the views share decoding and resizing; translations are scaled with the
    image. Without it, a view is what the network sees in an evaluation: resize and centre crop. `pasta` comes last.
    """

    def __init__(
        self,
        images: ClassificationDataset,
        data: ClassificationData,
        augment: ClassificationAugment | None,
        views: int,
        seed: int,
        pasta: Pasta | None = None,
    ):
        self.images, self.views, self.seed, self.side, self.pasta = images, views, seed, data.size, pasta
        self.spec = data.image_input()
        self.augment = RandAugment(augment.operations, augment.magnitude) if augment else None

    def __getitem__(self, key: tuple[int, int]) -> Item:
        epoch, index = key
        path = self.images.paths[index]
        try:
            with seeded_sample(self.seed, epoch, index) if self.augment or self.pasta else nullcontext():
                arrays = self._augmented(path, self.augment) if self.augment else [load(path, self.spec)] * self.views
                views = torch.from_numpy(np.stack(arrays))
                if self.pasta:
                    views = torch.stack([self.pasta(view) for view in views])
        except InputError as error:
            return error.message
        return views, torch.tensor(int(self.images.labels[index]))

    def _augmented(self, path: Path, augment: RandAugment) -> list[np.ndarray]:
        shorter = self.spec.resize_shorter_side
        with decoded(path, self.spec) as found:
            scale = shorter / min(found.original)
            # the longer side is rounded down, as torchvision does
            width, height = (int(shorter * side / min(found.original)) for side in found.original)
            image = found.resized((width, height))
        views = []
        for _ in range(self.views):
            left, top = (int(torch.randint(side - self.side + 1, ())) for side in image.size)
            view = augment(image, scale).crop((left, top, left + self.side, top + self.side))
            views.append(np.asarray(view, np.uint8))
        return views
