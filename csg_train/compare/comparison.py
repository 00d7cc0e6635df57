"""A comparison that is being made: which runs it needs, in which order, and what becomes of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from csg.console import log
from csg_train.compare.panels import REAL_TRAIN, keep_panel, panel_file
from csg_train.compare.predictions import differences, keep_predictions, pairs, sampled_methods
from csg_train.compare.references import notes, real_train_title
from csg_train.compare.results import (
    ComparisonResult,
    MethodResult,
    Trial,
    figures_of,
    in_order,
    new_comparison,
    new_result,
    write_results,
)
from csg_train.compare.runs import Job
from csg_train.compare.table import write_table
from csg_train.compare.trainings import Trainings
from csg_train.compare.tuning import best_trial, candidates, recipe_for, trial_settings
from csg_train.methods.spec import MethodSpec
from csg_train.recipe import Recipe
from csg_train.tasks import TASKS, Images


@dataclass(frozen=True)
class Comparison:
    """A comparison that is being made."""

    folder: Path
    """Its folder."""
    base: Recipe
    """The recipe that all methods share."""
    images: Images
    """Its synthetic images."""
    rule: str
    """How the methods are tuned."""
    seeds: int = 1
    """Runs of each method."""
    tuned: bool = True
    """Whether each method is tuned first."""
    trainings: Trainings = field(default_factory=Trainings)
    """Makes the runs that are not there."""

    def write(self, methods: Iterable[MethodResult]) -> ComparisonResult:
        """Write table and results of the methods there are."""
        ordered = in_order(methods)
        runs = sampled_methods(self.folder, ordered)
        result = new_comparison(self.base, self.rule, ordered, differences(runs), pairs(runs))
        main_score = next(iter(TASKS[self.base.task].scores.values()))
        write_table(self.folder, self.base, result, notes(self.folder, main_score))
        write_results(self.folder, result)
        return result

    def begin(
        self, chosen: Sequence[MethodSpec], earlier: Mapping[str, MethodResult], real_train: Recipe | None
    ) -> None:
        """Say how long the rest takes; where several runs are trained at a time, start all that can start.

        Args:
            chosen: the methods.
            earlier: results of earlier calls by label.
            real_train: the recipe of the model that is trained on real images, if there is to be one.
        """
        tries = [job for spec in chosen if self.tuned and spec.label not in earlier for job in self._tries(spec)]
        runs = [job for spec in chosen for job in self._runs(spec, earlier.get(spec.label))]
        last = [self._real_train(real_train)] if real_train and not self._has_real_train() else []
        self.trainings.forecast([*tries, *runs, *last], len(self.images))
        if self.trainings.at_once == 1:
            return
        self.trainings.start(tries)
        for spec in chosen:
            self.trainings.start(self._runs(spec, self._tuned(spec, earlier.get(spec.label))))
        self.trainings.start(last)

    def train(self, spec: MethodSpec, earlier: MethodResult | None) -> MethodResult:
        """The result of a method with all its runs, continuing an earlier one if there is one."""
        method = self._tuned(spec, earlier)
        for job in self._runs(spec, method):
            run = self.trainings.run(job)
            if run.diverged:
                seed = job.recipe.seed
                log(f"{spec.label}, seed {seed}: training diverged; the run is left out of the table")
                continue
            method = method.model_copy(update={"runs": (*method.runs, figures_of(run))})
            keep_predictions(self.folder, spec.label, run)
            if len(method.runs) == 1:
                keep_panel(self.folder, spec.file_name, spec.label, run)
        return method

    def train_on_real(self, recipe: Recipe) -> None:
        """Train and measure the model that is trained on real images, unless its panel is there."""
        if self._has_real_train():
            return
        job = self._real_train(recipe)
        run = self.trainings.run(job)
        if run.diverged:
            log(f"{job.label}: training diverged; it is left out of circle.png")
        else:
            keep_panel(self.folder, REAL_TRAIN, job.label, run)

    def tune(self, spec: MethodSpec) -> list[Trial]:
        """Short runs of a method, scored on synthetic images that they were not trained on."""
        score, trials = next(iter(TASKS[self.base.task].scores)), []
        for candidate, job in zip(candidates(spec, self.base), self._tries(spec), strict=True):
            run = self.trainings.run(job)
            evaluation = None if run.diverged else run.result().evaluation
            held_out, images = (getattr(evaluation, score), evaluation.images) if evaluation else (0.0, 1)
            trials.append(Trial(changes=candidate, held_out=held_out, images=images))
        return trials

    def _tuned(self, spec: MethodSpec, earlier: MethodResult | None) -> MethodResult:
        """The result so far: the earlier one, or a new one with the settings that tuning chooses."""
        if earlier:
            return earlier
        trials = self.tune(spec) if self.tuned else []
        chosen = best_trial(trials).changes if trials else {}
        return new_result(spec, recipe_for(spec, self.base), trials, chosen)

    def _tries(self, spec: MethodSpec) -> list[Job]:
        recipe = recipe_for(spec, self.base)
        settings = [trial_settings(recipe, len(self.images), one) for one in candidates(spec, self.base)]
        return [
            Job(self.folder, f"tune/{spec.file_name}-{number}", recipe_for(spec, self.base, changes), spec.label)
            for number, changes in enumerate(settings)
        ]

    def _runs(self, spec: MethodSpec, method: MethodResult | None) -> list[Job]:
        """The runs of a method that have no result yet; without tuned settings, if it has not been tuned."""
        done, chosen = ({run.seed for run in method.runs}, method.chosen) if method else (set(), {})
        return [
            Job(
                self.folder,
                f"runs/{spec.file_name}-{seed}",
                recipe_for(spec, self.base, chosen | {"seed": seed}),
                spec.label,
            )
            for seed in range(self.seeds)
            if seed not in done
        ]

    def _real_train(self, recipe: Recipe) -> Job:
        return Job(self.folder, "runs/real_train", recipe, real_train_title(recipe))

    def _has_real_train(self) -> bool:
        return panel_file(self.folder, REAL_TRAIN).is_file()
