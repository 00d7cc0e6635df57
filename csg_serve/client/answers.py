"""What a model answers for an image, as objects; a notebook shows them as pictures.

Shape letters: H, W pixels of an image; K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from csg.card import Colour, ModelCard
from csg.errors import InputError, printable
from csg.images import ImageSource, decode
from csg_serve.client.named_image import NamedImage
from csg_serve.client.pictures import Bar, picture_html
from csg_serve.client.stream import probabilities

SHOWN = 5
"""Classes of an answer that a picture of it shows."""


@dataclass(frozen=True, eq=False, repr=False)
class ClassAnswer:
    """The classes of an image.

    Example:
        >>> answer = client.predict("seven.png")
        >>> answer.label, answer.probability
        ('7', 0.993)
        >>> answer
        ClassAnswer('seven.png': 7 99.3 %, 1 0.4 %, 9 0.1 %)
    """

    name: str
    """Name of the image: its path, its address, or its number in what was given, such as 'number 2'."""
    image: ImageSource
    """The image, as it was given."""
    classes: tuple[str, ...]
    """Class names of the model, (K,)."""
    probabilities: NDArray[np.float64]
    """Probability of each class, float64 (K,); their sum is 1."""

    @property
    def label(self) -> str:
        """Name of the most probable class."""
        return self.classes[int(self.probabilities.argmax())]

    @property
    def probability(self) -> float:
        """Probability of that class, 0 to 1."""
        return float(self.probabilities.max())

    def top(self, count: int = SHOWN) -> list[tuple[str, float]]:
        """The most probable classes, with their probabilities, in descending order.

        Args:
            count: number of classes; all if the model has fewer.
        """
        order = np.argsort(-self.probabilities, kind="stable")[: max(count, 0)]
        return [(self.classes[index], float(self.probabilities[index])) for index in order]

    def __repr__(self) -> str:
        return f"ClassAnswer({_quoted(self.name)}: {_percentages(self.top(3))})"

    def _repr_html_(self) -> str:
        bars = [Bar(label, share) for label, share in self.top()]
        return picture_html(self.name, lambda: decode(self.image), bars)


@dataclass(frozen=True, eq=False, repr=False)
class MaskAnswer:
    """The class of each pixel of an image.

    Example:
        >>> answer = client.predict("street.jpg")
        >>> answer.mask.shape, answer.shares
        ((1080, 1920), {'road': 0.41, 'building': 0.3, 'sky': 0.29})
        >>> answer.overlay().save("street-overlay.png")
    """

    name: str
    """Name of the image: its path, its address, or its number in what was given, such as 'number 2'."""
    image: ImageSource
    """The image, as it was given."""
    classes: tuple[str, ...]
    """Class names of the model, (K,)."""
    colours: tuple[Colour, ...]
    """RGB colour of each class, (K,)."""
    mask: NDArray[np.uint8]
    """Index of the class of each pixel, uint8 (H, W), in the size of the image."""

    @cached_property
    def shares(self) -> dict[str, float]:
        """The classes that occur, with their shares of the pixels, 0 to 1, in descending order."""
        pixels = np.bincount(self.mask.ravel(), minlength=len(self.classes))
        order = np.argsort(-pixels, kind="stable")
        return {self.classes[index]: float(pixels[index] / self.mask.size) for index in order if pixels[index]}

    def overlay(self) -> Image.Image:
        """The image with the class colours laid over it, RGB, in its own size.

        Raises:
            InputError: the image can't be read any more, or its file is another one by now.
        """
        from csg.overlays import overlay  # which imports a YAML parser

        image = decode(self.image)
        if image.size != self.mask.shape[::-1]:
            raise InputError(f"image {self.name} has changed since it was predicted", "predict it again")
        return overlay(image, self.mask, self.colours)

    def __repr__(self) -> str:
        height, width = self.mask.shape
        largest = list(self.shares.items())[:3]
        return f"MaskAnswer({_quoted(self.name)}: {width} x {height}, {_percentages(largest)})"

    def _repr_html_(self) -> str:
        colours = dict(zip(self.classes, self.colours, strict=True))
        bars = [Bar(label, share, colours[label]) for label, share in list(self.shares.items())[:SHOWN]]
        return picture_html(self.name, self.overlay, bars)


Prediction: TypeAlias = ClassAnswer | MaskAnswer
"""The answer for an image."""


def answer_for(image: NamedImage, card: ModelCard, prediction: NDArray[Any]) -> Prediction:
    """The answer for an image, from logits (K,) of a classifier, or the label map uint8 (H, W) of a segmenter."""
    if card.task == "segmentation":
        return MaskAnswer(image.name, image.read(), card.classes, card.colours, mask=prediction)
    return ClassAnswer(image.name, image.read(), card.classes, probabilities(prediction))


def _quoted(name: str) -> str:
    return f"'{printable(name)}'"


def _percentages(shares: list[tuple[str, float]]) -> str:
    return ", ".join(f"{printable(label)} {share:.1%}".replace("%", " %") for label, share in shares)
