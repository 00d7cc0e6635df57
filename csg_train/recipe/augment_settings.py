"""The settings of `augment`: what changes the training images."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from csg.records import Record
from csg_train.recipe.setting_types import Positive

MAGNITUDES = 30
"""The largest magnitude of RandAugment (docs/method.md section 6)."""


class _Augment(Record):
    """What changes the training images of both tasks."""

    pasta: bool = False
    """Disturb the amplitudes of each view's frequencies last (PASTA, docs/method.md section 11), also for methods that
    train without augmentation."""


class ClassificationAugment(_Augment):
    """RandAugment (docs/method.md section 6: n = 1, m = 6 of 30), and PASTA with the values published for VisDA-17."""

    operations: Annotated[int, Field(ge=0)] = 1
    """Operations drawn for each view; 0 switches RandAugment off."""
    magnitude: Annotated[int, Field(ge=0, le=MAGNITUDES)] = 6
    """Magnitude of an operation, of 30: 6 is a fifth of each range."""
    pasta_alpha: Annotated[float, Field(ge=0)] = 10.0
    """alpha of PASTA: how much high frequencies are disturbed more than low ones."""
    pasta_beta: Annotated[float, Field(ge=0)] = 0.5
    """beta of PASTA: the disturbance of all frequencies."""
    pasta_k: Positive = 1.0
    """k of PASTA: exponent of the frequency."""


class SegmentationAugment(_Augment):
    """Random scale, flip and colour jitter (docs/method.md section 7), and PASTA with the values published for GTA5."""

    scale: tuple[Positive, Positive] = (0.75, 1.25)
    """The scale of a crop is drawn uniformly between these."""
    flip: bool = True
    """Flip half of the crops horizontally."""
    jitter: Annotated[float, Field(ge=0, le=0.5)] = 0.4
    """Largest change of brightness, contrast, saturation and hue in every view after the first."""
    pasta_alpha: Annotated[float, Field(ge=0)] = 3.0
    """alpha of PASTA: how much high frequencies are disturbed more than low ones."""
    pasta_beta: Annotated[float, Field(ge=0)] = 0.25
    """beta of PASTA: the disturbance of all frequencies."""
    pasta_k: Positive = 2.0
    """k of PASTA: exponent of the frequency."""
