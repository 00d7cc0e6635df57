"""RandAugment as published (docs/method.md section 6).

Each of fourteen operations has a limit, and the value of a draw is the magnitude's share of it: m / 30. Torchvision's
RandAugment differs in the limits of translation, posterize and solarize, and always applies autocontrast and equalize.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from PIL import Image, ImageEnhance, ImageOps

from csg_train.recipe.augment_settings import MAGNITUDES

BY_CHANCE = frozenset({"autocontrast", "equalize"})
"""Operations whose value is the probability that they are applied."""


class Operation(NamedTuple):
    """An operation of RandAugment."""

    limit: float
    """Its value at the largest magnitude."""
    apply: Callable[[Image.Image, float], Image.Image]
    """From an RGB image and a value, of either sign, to an RGB image of the same size."""


def _moved(image: Image.Image, *matrix: float) -> Image.Image:
    """The image under an affine map of its coordinates: nearest neighbour, black outside."""
    return image.transform(image.size, Image.Transform.AFFINE, matrix)


OPERATIONS: dict[str, Operation] = {
    "identity": Operation(0, lambda image, value: image),
    "autocontrast": Operation(1, lambda image, value: ImageOps.autocontrast(image)),
    "equalize": Operation(1, lambda image, value: ImageOps.equalize(image)),
    "rotate": Operation(30, lambda image, value: image.rotate(value)),
    "posterize": Operation(7, lambda image, value: ImageOps.posterize(image, 8 - int(abs(value)))),
    "solarize": Operation(256, lambda image, value: ImageOps.solarize(image, math.ceil(256 - abs(value)))),
    "colour": Operation(0.9, lambda image, value: ImageEnhance.Color(image).enhance(1 + value)),
    "contrast": Operation(0.9, lambda image, value: ImageEnhance.Contrast(image).enhance(1 + value)),
    "brightness": Operation(0.9, lambda image, value: ImageEnhance.Brightness(image).enhance(1 + value)),
    "sharpness": Operation(0.9, lambda image, value: ImageEnhance.Sharpness(image).enhance(1 + value)),
    "shear-x": Operation(0.3, lambda image, value: _moved(image, 1, value, 0, 0, 1, 0)),
    "shear-y": Operation(0.3, lambda image, value: _moved(image, 1, 0, 0, value, 1, 0)),
    "translate-x": Operation(100, lambda image, value: _moved(image, 1, 0, value, 0, 1, 0)),
    "translate-y": Operation(100, lambda image, value: _moved(image, 1, 0, 0, 0, 1, value)),
}
"""The operations by name. The limits are degrees, bits removed, grey levels, changes of a factor, and pixels."""
NAMES = tuple(OPERATIONS)


@dataclass(frozen=True)
class RandAugment:
    """Random operations, all equally likely; what is drawn depends on torch's seed.

    Example:
        >>> RandAugment(operations=1, magnitude=6)(image, scale=224 / 480)
    """

    operations: int
    """Operations for each image."""
    magnitude: int
    """Magnitude, of 30."""

    def __call__(self, image: Image.Image, scale: float) -> Image.Image:
        """Draw and apply the operations.

        Args:
            image: RGB.
            scale: its size relative to the original image, whose pixels a translation counts.
        """
        share = self.magnitude / MAGNITUDES
        for _ in range(self.operations):
            name, chance = NAMES[int(torch.randint(len(NAMES), ()))], float(torch.rand(()))
            limit, apply = OPERATIONS[name]
            if name in BY_CHANCE and chance >= share * limit:
                continue
            value = share * limit * (scale if name.startswith("translate") else 1)
            image = apply(image, value if chance < 0.5 else -value)
        return image
