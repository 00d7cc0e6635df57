"""The mean of a student's weights over the last steps of a training (Izmailov et al. 2018, "Averaging weights leads to
wider optima and better generalization")."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor

from csg_train.methods.base import Student
from csg_train.models.lora import merged_state

PREFIX = "average."


class RunningMean:
    """A mean of state dicts; of integers it has the last.

    Attributes:
        count: how many they were.
        values: tensors by name.
    """

    def __init__(self) -> None:
        self.count = 0
        self.values: dict[str, Tensor] = {}

    def add(self, state: Mapping[str, Tensor], count: int = 1) -> None:
        """Take in a state dict that is itself the mean of `count`."""
        self.count += count
        for name, value in state.items():
            if name not in self.values or not value.is_floating_point():
                self.values[name] = value.clone()
            else:
                self.values[name].lerp_(value, count / self.count)

    def on_cpu(self) -> Self:
        """The same, in the memory of the processor."""
        self.values = {name: value.cpu() for name, value in self.values.items()}
        return self

    def pack(self, prefix: str) -> dict[str, Tensor]:
        """The mean as tensors whose names have a prefix."""
        named = {f"{prefix}mean.{name}": value for name, value in self.values.items()}
        return named | {f"{prefix}count": torch.tensor(self.count)}

    @classmethod
    def unpack(cls, tensors: Mapping[str, Tensor], prefix: str, device: torch.device) -> Self:
        """The mean that `pack` gave, on a device; an empty one if there is none of this prefix."""
        mean, start = cls(), f"{prefix}mean."
        mean.count = int(tensors.get(f"{prefix}count", 0))
        mean.values = unpacked(tensors, start, device)
        return mean


def unpacked(tensors: Mapping[str, Tensor], prefix: str, device: torch.device) -> dict[str, Tensor]:
    """The tensors whose names have a prefix, by name without it, on a device."""
    return {n.removeprefix(prefix): tensor.to(device) for n, tensor in tensors.items() if n.startswith(prefix)}


class WeightAverage:
    """A running mean of everything in a student's state dict, each step with the same weight.

    Args:
        student: to average.
        steps: of the training.
        share: of them, at the end of the training, to average over; at least one step.

    Attributes:
        first: the first step, counted from 1, after which the weights belong to the mean.
    """

    def __init__(self, student: Student, steps: int, share: float):
        self.student = student
        self.first = steps - max(1, round(share * steps)) + 1
        self.running = RunningMean()

    @property
    def mean(self) -> dict[str, Tensor]:
        """Tensors by name; empty before the first step of the mean."""
        return self.running.values

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after `step` steps, if they belong to the mean."""
        if step >= self.first:
            self.running.count = step - self.first
            self.running.add(merged_state(self.student))

    def pack(self) -> dict[str, Tensor]:
        """The mean so far as named tensors, for a checkpoint."""
        return {PREFIX + name: value for name, value in self.mean.items()}

    def unpack(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore the mean from the tensors of a checkpoint."""
        self.running.values = unpacked(tensors, PREFIX, next(self.student.parameters()).device)
