"""The measurements of a run: of its student every N steps and at the end. The first process makes them alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch

from csg_train.methods.base import Student
from csg_train.recipe import Recipe
from csg_train.tasks import TASKS, Images
from csg_train.training.best_weights import BestWeights
from csg_train.training.measuring import Kind, Measuring, StudentScores
from csg_train.training.metrics_log import MetricsLine, MetricsLog
from csg_train.training.run_data import RunImages
from csg_train.training.run_folder import Run
from csg_train.training.signals import Stop

Scores = Mapping[Kind, StudentScores]
"""What a student reaches on each kind of images that there is."""


class HeldOutScore(NamedTuple):
    """A score on held-out images."""

    value: float
    """Of 1."""
    images: int
    """Their number."""

    @property
    def error(self) -> float:
        """The standard error of a share of so many images."""
        return math.sqrt(self.value * (1 - self.value) / self.images)


def held_out_loss(found: Scores) -> float:
    """The loss on the held-out images, which there must be."""
    loss = found["held_out"].measurement.loss
    assert loss is not None  # their classes are those of the network
    return loss


class Measurements:
    """Measures the student of a run, and keeps the best weights.

    Args:
        run: its folder.
        recipe: its settings.
        images: the images of the run.
        stop: whether the user has stopped the run.
        device: where the student is.

    Attributes:
        metrics: the figures of the run.
        kinds: how it is measured on each kind of images.
        best: the best weights so far on each kind of images for which they are kept.
    """

    def __init__(self, run: Run, recipe: Recipe, images: RunImages, *, stop: Stop, device: torch.device):
        self.stop, self.metrics = stop, MetricsLog(run)
        found: dict[Kind, Images | None] = {"held_out": images.held_out, "real": images.real}
        classes = images.training.class_spec
        self.kinds = {kind: Measuring(recipe, classes, kind, some, device) for kind, some in found.items() if some}
        kept = {"held_out": recipe.checkpoint == "synthetic", "real": recipe.evaluate_every > 0}
        score = next(iter(TASKS[recipe.task].scores))
        self.best = {kind: BestWeights(run.checkpoints, kind, score) for kind in self.kinds if kept[kind]}

    def resume(self, step: int) -> None:
        """Continue after `step` steps: measurements from then on are made again."""
        for best in self.best.values():
            best.resume(step)

    def take(self, student: Student, step: int, mirrored: bool = False) -> Scores:
        """Measure the weights after `step` steps, and keep them where they are the best so far.

        Args:
            student: with these weights.
            step: steps made so far.
            mirrored: also measure image and mirror image together, if the images are real.

        Raises:
            Interrupted: a signal ended it.
        """
        found = self.scores(student, f"step {step}", mirrored)
        for kind, best in self.best.items():
            best.offer(step, found[kind].measurement, student)
        self.record(step, found)
        return found

    def scores(self, student: Student, which: str, mirrored: bool) -> Scores:
        """Measure a student, which the log calls `which`; otherwise as `take`."""
        with self.stop.interruptible():
            return {kind: measuring.scores(student, which, mirrored) for kind, measuring in self.kinds.items()}

    def held_out_score(self, student: Student, which: str) -> HeldOutScore:
        """The main score of a student on the held-out images; otherwise as `scores`."""
        measuring = self.kinds["held_out"]
        with self.stop.interruptible():
            evaluation = measuring.scores(student, which).measurement.evaluation
        name = next(iter(TASKS[measuring.recipe.task].scores))
        return HeldOutScore(float(getattr(evaluation, name)), evaluation.images)

    def record(self, step: int, found: Scores, prefix: str = "") -> None:
        """Write a line of metrics for each kind of images, with `prefix` before the names."""
        for scores in found.values():
            self.metrics.write(MetricsLine(step, {f"{prefix}{name}": value for name, value in scores.figures.items()}))
