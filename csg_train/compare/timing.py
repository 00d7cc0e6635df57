"""How long a comparison will take: from a few steps of each method, then from the runs that are made."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from csg.console import log
from csg_train.compare.runs import Job
from csg_train.recipe import Recipe
from csg_train.tasks import TASKS
from csg_train.training.command import build_method
from csg_train.training.environment import training_device
from csg_train.training.optimizer import precision_for
from csg_train.training.progress_report import duration
from csg_train.training.run_data import RunImages
from csg_train.training.run_folder import Run
from csg_train.training.trainer import Trainer

TRIED_STEPS, TRIED_S = 8, 5.0
"""A try ends after so many steps, or after the first step that ends later than this."""
PROCESS_S = (4.0, 20.0)
"""What the process of a run takes besides: imports, reading the images, checking them, writing the results."""
FORWARD = (0.25, 1.0)
"""What measuring an image costs, in shares of a training step of one image."""
WITHIN = 0.15
"""How far the runs still to make are from those made, in shares."""


@dataclass(frozen=True)
class Pace:
    """How fast the runs of a method are."""

    first_s: float
    """Seconds until the first step is made."""
    low: float
    """Seconds of a step, the median of those tried."""
    high: float
    """Seconds of a step, the mean of the first one after the start and the others, with a quarter more."""
    batch: int
    """Images of a step."""
    measured: int
    """Real images to measure on."""


def timed_try(recipe: Recipe) -> Pace:
    """Make a few steps of a run, and write nothing.

    Args:
        recipe: of the run; `evaluate_every` is 0.

    Raises:
        CsgError: as a run of this recipe would.
    """
    task, device = TASKS[recipe.task], training_device()
    images = task.read_synthetic(recipe)
    real = task.read_real(recipe, images.class_spec, recipe.data.real)
    trainer = Trainer(
        run=Run(Path("a try, which writes nothing")),
        recipe=recipe,
        method=build_method(recipe, len(images.class_spec), device),
        images=RunImages(images, None, None),
        device=device,
        precision=precision_for(recipe.precision, device),
    )
    first, *others = trainer.time_steps(TRIED_STEPS, TRIED_S)
    others = others or [first]
    return Pace(first, statistics.median(others), 1.25 * statistics.fmean(others), trainer.batch, len(real))


class Forecast:
    """What is left of a comparison's trainings, and how long it takes.

    Args:
        paces: how fast the runs of each method are, by label.
        images: synthetic images.
        at_once: trainings that go on at a time.
    """

    def __init__(self, paces: Mapping[str, Pace], images: int, at_once: int):
        self.paces, self.images, self.at_once = paces, images, at_once
        self.left: dict[str, tuple[float, float]] = {}
        self.expected_s, self.taken_s, self.made = 0.0, 0.0, 0

    def expect(self, job: Job) -> None:
        """A run that is to be made."""
        pace, recipe = self.paces[job.label], job.recipe
        steps = max(0, recipe.schedule(self.images) - job.run.last_step)
        measurements = 2 + (steps // recipe.evaluate_every if recipe.evaluate_every else 0)
        forward = measurements * pace.measured / pace.batch
        self.left[job.name] = (
            pace.first_s + PROCESS_S[0] + pace.low * (steps + FORWARD[0] * forward),
            pace.first_s + PROCESS_S[1] + pace.high * (steps + FORWARD[1] * forward),
        )

    def note(self, name: str, seconds: float) -> None:
        """A run was made in so many seconds."""
        if name in self.left:
            self.expected_s += statistics.fmean(self.left.pop(name))
            self.taken_s += seconds
            self.made += 1
        if self.left:
            log(f"{self.made} of {self.made + len(self.left)} trainings made; {self} left")

    def seconds(self) -> tuple[float, float]:
        """How long the rest takes, at least and at most."""
        every = list(self.left.values())
        if self.expected_s:
            ratio = self.taken_s / self.expected_s
            means = [ratio * statistics.fmean(one) for one in every]
            every = [((1 - WITHIN) * mean, (1 + WITHIN) * mean) for mean in means]
        lows, highs = zip(*every, strict=True) if every else ((0.0,), (0.0,))
        waiting = (1 - 1 / self.at_once) * max(highs)  # the last one may start when all others have ended
        return max(max(lows), sum(lows) / self.at_once), sum(highs) / self.at_once + waiting

    def __str__(self) -> str:
        low, high = (duration(60 * round(s / 60) if s > 600 else s) for s in self.seconds())
        return low if low == high else f"{low} to {high}"
