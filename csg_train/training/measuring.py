"""The student of a training, measured on images that it is not trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from csg.card import ClassSpec
from csg.console import log
from csg_train.energy import Energy, hyperspherical_energy
from csg_train.methods.base import Student
from csg_train.recipe import Recipe
from csg_train.tasks import TASKS, Images, Measurement, predicting

Kind = Literal["held_out", "real"]
"""Which images a student is measured on: held-out synthetic ones, or real ones."""


@dataclass(frozen=True)
class StudentScores:
    """What a student reaches."""

    measurement: Measurement
    """The scores, and what is predicted for each image."""
    energy: Energy | None
    """Hyperspherical energy of the embeddings; None for a single image."""
    figures: dict[str, float | None]
    """All of it as figures of the run's metrics: `real/accuracy`, `mirrored/accuracy`, `held_out/accuracy`, ..."""


@dataclass(frozen=True)
class Measuring:
    """How the student of a run is measured."""

    recipe: Recipe
    """The settings of the run."""
    classes: ClassSpec
    """The classes of the student."""
    kind: Kind
    """What the images are."""
    images: Images
    """The images to measure on."""
    device: torch.device
    """Where the student is."""

    def scores(self, student: Student, which: str, mirrored: bool = False) -> StudentScores:
        """Measure the student, in fp32 and eval mode; its mode is restored.

        Args:
            student: on the device.
            which: weights these are, for the log.
            mirrored: also measure image and mirror image together, if the images are real.
        """
        task = TASKS[self.recipe.task]
        with predicting(student, mirrored=mirrored and self.kind == "real") as predict:
            found = task.measure(predict, self.classes, self.images, self.recipe, device=self.device)
        scores = {name: float(getattr(found.evaluation, name)) for name in task.scores}
        text = ", ".join(f"{task.scores[name].removesuffix(' %')} {value:.2%}" for name, value in scores.items())
        count, name = found.evaluation.images, self.images.name
        log(f"{which}: {count} {self.kind.replace('_', '-')} images ({name}): {text}")
        if found.mirrored:
            log(f"{which}: the same with their mirror images: {found.mirrored.headline}")
        energy = hyperspherical_energy(found.embeddings)
        if energy:
            scores |= {"E_0": energy.E_0, "E_1": energy.E_1, "E_2": energy.E_2}
        figures: dict[str, float | None] = {f"{self.kind}/{name}": value for name, value in scores.items()}
        if self.kind == "held_out":
            figures["held_out/loss"] = found.loss
        if found.mirrored:
            figures |= {f"mirrored/{name}": float(getattr(found.mirrored, name)) for name in task.scores}
        return StudentScores(found, energy, figures)
