"""What a person is asked: a list of images, or of points in images, and the classes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from csg_serve.evaluate.labelling.answers import LabelledItems


@dataclass(frozen=True)
class AskedItem:
    """One question: which class an image, or a point of it, has."""

    image: Path
    """The image file."""
    point: tuple[int, int] | None = None
    """x and y of the point in pixels of the upright image; None: the question is about the whole image."""
    suggestion: str | None = None
    """The class that the model answered. It is shown after the person's answer."""


@dataclass(frozen=True)
class LabellingTask:
    """The questions, in the order in which they are asked."""

    title: str
    """What is labelled, such as the model's name."""
    classes: tuple[str, ...]
    """Names of the classes, at least one."""
    items: tuple[AskedItem, ...]
    """The questions."""

    @property
    def labelled(self) -> LabelledItems:
        """What answers may be about."""
        return LabelledItems(len(self.items), frozenset(self.classes))
