"""Training crops of images with masks: joint random scale, crop and flip, then colour jitter for the k-view.

Shape letters: V views, H W of the crop.
"""

from __future__ import annotations

import numpy as np
import torch
import torchvision.transforms.v2.functional as F
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from csg.card import SegmentationInput
from csg.datasets.label_sets import IGNORED
from csg.datasets.segmentation import SegmentationDataset
from csg.errors import InputError
from csg_train.data.loading import Item, seeded_sample
from csg_train.data.pasta import Pasta
from csg_train.recipe import SegmentationAugment, SegmentationData

PADDING = {
    tv_tensors.Image: list(SegmentationInput().pad_colour),
    tv_tensors.Mask: IGNORED,
}


NO_AUGMENT = SegmentationAugment(scale=(1, 1), flip=False, jitter=0)
"""Crops alone: images of a batch have to be of one size, and few networks can be trained on whole ones."""


class Crops(Dataset[Item]):
    """Views of a random crop at (epoch, index), uint8 (V, H, W, 3), and its labels, uint8 (H, W).

    The first view is the crop, the others are the same crop with jittered colours (docs/method.md section 7). `pasta`
    comes last, in each view.
    """

    def __init__(
        self,
        scenes: SegmentationDataset,
        data: SegmentationData,
        augment: SegmentationAugment,
        views: int,
        seed: int,
        pasta: Pasta | None = None,
    ):
        self.scenes, self.data, self.augment, self.views, self.seed = scenes, data, augment, views, seed
        self.pasta = pasta
        strength = augment.jitter
        self.jitter = v2.ColorJitter(strength, strength, strength, strength)

    def __getitem__(self, key: tuple[int, int]) -> Item:
        epoch, index = key
        try:
            image, labels = self.scenes.load(index)
        except InputError as error:
            return error.message
        with seeded_sample(self.seed, epoch, index):
            low, high = self.augment.scale
            scale = low + (high - low) * float(torch.rand(()))
            if self.data.resize:
                scale *= self.data.resize / min(image.size)
            crop, mask = joint_crop(image, labels, scale, self.data.crop)
            if self.augment.flip and torch.rand(()) < 0.5:
                crop, mask = F.horizontal_flip(crop), F.horizontal_flip(mask)
            views = [crop, *(self.jitter(crop) for _ in range(self.views - 1))]
            pixels = [view.permute(1, 2, 0).as_subclass(Tensor) for view in views]
            if self.pasta:
                pixels = [self.pasta(view) for view in pixels]
        return torch.stack(pixels), mask.as_subclass(Tensor)


def joint_crop(
    image: Image.Image, labels: np.ndarray, scale: float, size: tuple[int, int]
) -> tuple[tv_tensors.Image, tv_tensors.Mask]:
    """A random crop of an image at `scale`, and its labels.

    The area that becomes the crop is cut out first, and only that is resized: bilinear for the image, nearest for the
    labels. Areas outside the image are padded: the image with the ImageNet mean, the labels with 255.

    Args:
        image, labels: the image, and its label map uint8 (H, W).
        scale: factor of the size of the image.
        size: height and width of the crop.

    Returns:
        uint8 (3, H, W) and its labels, uint8 (H, W).
    """
    pair = (tv_tensors.Image(np.array(image).transpose(2, 0, 1)), tv_tensors.Mask(labels.copy()))
    part = [max(1, round(side / scale)) for side in size]
    beyond = [max(0, wanted - side) for wanted, side in zip(part, labels.shape, strict=True)]
    before = [int(torch.randint(free + 1, ())) for free in beyond]
    sides = [before[1], before[0], beyond[1] - before[1], beyond[0] - before[0]]
    top, left = (
        int(torch.randint(max(0, side - wanted) + 1, ())) for wanted, side in zip(part, labels.shape, strict=True)
    )
    crop, mask = (
        F.resized_crop(F.pad(x, sides, fill=PADDING[type(x)]), top, left, *part, list(size), antialias=True)
        for x in pair
    )
    return crop, mask
