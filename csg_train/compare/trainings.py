"""The trainings of a comparison: those that are there are not repeated, and what is left is said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from csg.console import log
from csg_train.compare.executors import Executor, LocalExecutor
from csg_train.compare.runs import Job
from csg_train.compare.timing import Forecast
from csg_train.recipe import Recipe
from csg_train.training.run_folder import Run


class Trainings:
    """Makes the runs of a comparison that are not there.

    Args:
        executor: trains them; None: one after another on this machine.
        trackers: trackers of each besides TensorBoard.
    """

    def __init__(self, executor: Executor | None = None, trackers: tuple[str, ...] = ()):
        self.executor: Executor = executor or LocalExecutor()
        self.trackers = trackers
        self.left: Forecast | None = None

    @property
    def at_once(self) -> int:
        """How many are trained at a time."""
        return self.executor.at_once

    def forecast(self, jobs: Sequence[Job], images: int) -> None:
        """Say how long the runs that are not there will take, after a few steps of each method.

        Args:
            jobs: all runs that the comparison needs and has no results of.
            images: number of its synthetic images.

        Raises:
            CsgError: a method can't make a step.
        """
        todo = [job for job in jobs if not job.run.ended]
        if not todo:
            return
        recipes = {job.label: job.recipe for job in todo}  # of the last one: its runs come after its tuning
        paces = self.executor.paces([_unmeasured(recipe) for recipe in recipes.values()])
        self.left = Forecast(dict(zip(recipes, paces, strict=True)), images, self.at_once)
        for job in todo:
            self.left.expect(job)
        short = sum(job.name.startswith("tune/") for job in todo)
        tuning = f", {short} of them short ones for tuning" if short else ""
        log(f"{len(todo)} trainings to make{tuning}: {self.left}, after a few steps of each method")

    def start(self, jobs: Sequence[Job]) -> None:
        """Let runs be trained that are not there."""
        for job in jobs:
            if not job.made:
                self.executor.start(self._tracked(job))

    def run(self, job: Job) -> Run:
        """A finished or diverged run, trained unless it exists.

        Raises:
            UsageError: the existing run has other settings.
            Stopped: the user stopped it.
            CsgError: it failed.
        """
        if not job.made or (self.left and job.name in self.left.left):
            seconds = self.executor.finish(self._tracked(job))
            if self.left:
                self.left.note(job.name, seconds)
        return job.run

    def _tracked(self, job: Job) -> Job:
        return replace(job, trackers=self.trackers)


def _unmeasured(recipe: Recipe) -> Recipe:
    """The recipe without measurements, and without what needs them."""
    optim = recipe.optim.model_copy(update={"swad": None, "wise": None})
    return recipe.model_copy(update={"evaluate_every": 0, "checkpoint": "last", "optim": optim})
