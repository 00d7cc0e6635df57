"""SWAD: the mean of a student's weights after every step between a start and an end that the loss on held-out synthetic
images decides (Cha et al. 2021, algorithm 1; docs/method.md section 11).

Weights are averaged between two measurements first; such a mean is a segment. What belongs to the result is known some
measurements later, so that a few segments are kept, in the memory of the processor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from csg_train.methods.base import Student
from csg_train.models.lora import merged_state
from csg_train.training.averaging import RunningMean

START_PATIENCE = 3
"""N_s: measurements that must not be better than the one at the start, that one included."""
END_PATIENCE = 6
"""N_e: measurements in a row above the threshold that end the mean."""
PREFIX = "swad."


def averaged_span(losses: Sequence[float], tolerance: float) -> tuple[int | None, int]:
    """The first and last measurement of the mean, counted from 0 (algorithm 1 of the paper).

    Args:
        losses: of all measurements so far.
        tolerance: r, the threshold as a multiple of the mean of the first losses.

    Returns:
        The first, None if none was found, and the last so far.

    Example:
        >>> averaged_span([3.0, 1.0, 1.1, 1.2, 2.0], tolerance=1.3)
        (1, 4)
    """
    start, threshold = None, 0.0
    for now in range(START_PATIENCE - 1, len(losses)):
        if start is None:
            recent = losses[now - START_PATIENCE + 1 : now + 1]
            if recent[0] == min(recent):
                start, threshold = now - START_PATIENCE + 1, tolerance * sum(recent) / START_PATIENCE
        elif now + 1 >= END_PATIENCE and min(losses[now - END_PATIENCE + 1 : now + 1]) > threshold:
            return start, now - END_PATIENCE
    return start, len(losses) - 1


class DenseAverage:
    """The mean of everything in a student's state dict over the steps of SWAD.

    Args:
        student: to average.
        tolerance: r of the paper.
    """

    def __init__(self, student: Student, tolerance: float):
        self.student, self.tolerance = student, tolerance
        self.losses: list[float] = []
        self.steps: list[int] = []
        self.segment, self.settled = RunningMean(), RunningMean()
        self.kept: dict[int, RunningMean] = {}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after `step` steps."""
        self.segment.add(merged_state(self.student))

    def observe(self, step: int, loss: float) -> None:
        """Take in the loss on held-out images after `step` steps; again after a run was resumed changes nothing."""
        if self.steps and step <= self.steps[-1]:
            return
        self.losses.append(loss)
        self.steps.append(step)
        now = len(self.losses) - 1
        self.kept[now], self.segment = self.segment.on_cpu(), RunningMean()
        start, end = averaged_span(self.losses, self.tolerance)
        first = now - START_PATIENCE + 2 if start is None else start
        self.kept = {index: segment for index, segment in self.kept.items() if first <= index <= end}
        if start is not None:
            sure = end if end < now else now - END_PATIENCE + 1
            for index in [index for index in self.kept if index <= sure]:
                segment = self.kept.pop(index)
                self.settled.add(segment.values, segment.count)

    def span(self) -> tuple[int, int] | None:
        """The first and the last step of the mean so far; None if no start was found."""
        start, end = averaged_span(self.losses, self.tolerance)
        if start is None:
            return None
        return (self.steps[start - 1] + 1 if start else 1), self.steps[end]

    def mean(self) -> dict[str, Tensor]:
        """The mean so far, by name; only with a span."""
        whole = RunningMean()
        for part in (self.settled, *(self.kept[index] for index in sorted(self.kept))):
            if part.count:
                whole.add(part.values, part.count)
        return whole.values

    def pack(self) -> dict[str, Tensor]:
        """The state as named tensors, for a checkpoint."""
        tensors = {
            "losses": torch.tensor(self.losses, dtype=torch.float64),
            "steps": torch.tensor(self.steps, dtype=torch.int64),
        }
        for name, part in self._parts().items():
            if part.count:
                tensors |= part.pack(f"{name}.")
        return {PREFIX + name: value for name, value in tensors.items()}

    def unpack(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore the state from the tensors of a checkpoint."""
        own = {name.removeprefix(PREFIX): value for name, value in tensors.items() if name.startswith(PREFIX)}
        self.losses, self.steps = own.pop("losses").tolist(), own.pop("steps").tolist()
        device = next(self.student.parameters()).device
        self.segment = RunningMean.unpack(own, "segment.", device)
        self.settled = RunningMean.unpack(own, "settled.", torch.device("cpu"))
        indices = sorted({int(name.split(".")[1]) for name in own if name.startswith("kept.")})
        self.kept = {index: RunningMean.unpack(own, f"kept.{index}.", torch.device("cpu")) for index in indices}

    def _parts(self) -> dict[str, RunningMean]:
        kept = {f"kept.{index}": segment for index, segment in self.kept.items()}
        return {"segment": self.segment, "settled": self.settled} | kept
