"""WiSE-FT: weights between those at the start and at the end of fine-tuning (Wortsman et al. 2022; docs/method.md
section 11).

The ImageNet network has no head for the classes of the images. So the start is the student when its encoder begins to
train: with LP-FT its head has been trained on the ImageNet encoder, and encoder and head are interpolated, as in the
paper for networks without a zero-shot head. Otherwise the head is new at the start: the encoder alone is interpolated,
between ImageNet's weights and those of the end, and the head is that of the end.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from csg_train.methods.base import Student
from csg_train.models.lora import merged_state
from csg_train.training.averaging import unpacked
from csg_train.training.measurements import HeldOutScore

PREFIX = "wise."
ENCODER = "encoder."
ALPHAS = tuple(tenth / 10 for tenth in range(11))
"""The shares of the end that are tried."""


class Interpolation:
    """Keeps the weights at the start of fine-tuning.

    Args:
        student: before its first step.
        probe: steps in which its head trains alone; 0: there are none.
    """

    def __init__(self, student: Student, probe: int = 0):
        self.student, self.probe = student, probe
        self.start = {} if probe else {name: value for name, value in self._copy().items() if name.startswith(ENCODER)}

    def update(self, step: int) -> None:
        """Keep the weights after `step` steps, if the encoder begins to train then."""
        if self.probe and step == self.probe:
            self.start = self._copy()

    def at(self, alpha: float, end: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights (1 - alpha) start + alpha end; of those that are not in the start, the end.

        Args:
            alpha: 0 to 1.
            end: state dict of the student at the end; counts, which are integers, stay its.
        """
        between = {
            name: torch.lerp(value, end[name], alpha) for name, value in self.start.items() if value.is_floating_point()
        }
        return dict(end) | between

    def pack(self) -> dict[str, Tensor]:
        """The start as named tensors, for a checkpoint."""
        return {PREFIX + name: value for name, value in self.start.items()}

    def unpack(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore the start from the tensors of a checkpoint."""
        self.start = unpacked(tensors, PREFIX, next(self.student.parameters()).device)

    def _copy(self) -> dict[str, Tensor]:
        return {name: value.detach().clone() for name, value in merged_state(self.student).items()}


def smallest_good(found: Mapping[float, HeldOutScore]) -> float:
    """The smallest alpha whose score is at most a standard error below the best.

    Held-out images are like those of the training, so that the end alone is nearly always the best of them by a little:
    what the start knows costs little there, and shows on other images. This is the one-standard-error rule of Breiman
    et al. 1984 (Classification and Regression Trees, section 3.4.3).

    Args:
        found: scores by alpha.
    """
    best = max(found.values(), key=lambda score: score.value)
    return min(alpha for alpha, score in found.items() if score.value >= best.value - best.error)
