"""The settings of `augment`: what changes the training images."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from csg.records import Record
from csg_train.recipe.setting_types import Positive

MAGNITUDES = 30
"""The largest magnitude of RandAugment (docs/method.md section 6)."""


class ClassificationAugment(Record):
    """RandAugment (docs/method.md section 6: n = 1, m = 6 of 30)."""

    operations: Annotated[int, Field(ge=0)] = 1
    """Operations drawn for each view; 0 switches RandAugment off."""
    magnitude: Annotated[int, Field(ge=0, le=MAGNITUDES)] = 6
    """Magnitude of an operation, of 30: 6 is a fifth of each range."""


class SegmentationAugment(Record):
    """Random scale, flip and colour jitter (docs/method.md section 7)."""

    scale: tuple[Positive, Positive] = (0.75, 1.25)
    """The scale of a crop is drawn uniformly between these."""
    flip: bool = True
    """Flip half of the crops horizontally."""
    jitter: Annotated[float, Field(ge=0, le=0.5)] = 0.4
    """Largest change of brightness, contrast, saturation and hue in every view after the first."""
