"""`csg compare cls` and `csg compare seg`: several methods, each with several seeds, on the same data and budget.

Each is a separate run, and all are in one folder:

tune/, runs/           the runs; finished ones are not repeated
plan.json              what the comparison was started with (csg_train/compare/plan.py)
comparison.json        the results of all methods (csg_train/compare/results.py)
predictions/           what the intervals are computed from (csg_train/compare/predictions.py)
panels/                what the figures of embeddings are drawn from (csg_train/compare/panels.py)
table.md, *.png        made from these four; the runs may be gone
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from csg.console import log, print_json
from csg.errors import InputError, UsageError
from csg.locks import working_in
from csg_train.compare.drawing import draw_figures
from csg_train.compare.panels import REAL_TRAIN, keep_panel, panel_file
from csg_train.compare.plan import keep_plan
from csg_train.compare.predictions import differences, keep_predictions
from csg_train.compare.references import keep_imagenet_panel, notes, real_train_recipe, real_train_title
from csg_train.compare.results import (
    ComparisonResult,
    MethodResult,
    Trial,
    figures_of,
    in_order,
    new_comparison,
    new_result,
    read_results,
    write_results,
)
from csg_train.compare.runs import trained_run
from csg_train.compare.table import TABLE, write_table
from csg_train.compare.tuning import (
    best_trial,
    candidates,
    choose,
    missing_settings,
    recipe_for,
    trial_settings,
    tuning_rule,
)
from csg_train.methods.spec import MethodSpec
from csg_train.recipe import Recipe
from csg_train.recipe.settings import METHOD_PREFIX
from csg_train.tasks import TASKS, Images
from csg_train.training.command import load_task_recipe, with_absolute_paths

COMPARISONS = Path("comparisons")


@dataclass(frozen=True, kw_only=True)
class CompareRequest:
    """A comparison to start or to continue."""

    task: str
    """cls or seg."""
    recipe: str | None = None
    """Name or file of the recipe that all methods share; None: that of the task's embedded dataset."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings that differ from the recipe's, by dotted name (`csg_train.recipe.settings`)."""
    methods: tuple[str, ...] = ()
    """The methods, as `--method` takes them; none: those of the default comparison."""
    seeds: int = 3
    """Runs of each method, with seeds 0, 1, ..."""
    tune: bool = True
    """Tune each method first."""
    out: Path | None = None
    """The comparison's folder; None: comparisons/<recipe>."""
    real_train: str | None = None
    """Real images to train a further model on, which is shown in circle.png."""


def compare_command(request: CompareRequest, as_json: bool) -> None:
    """Train what is not trained yet, and write table and figures; the table is updated after each method.

    Raises:
        UsageError: a method or a setting is wrong, or another process is working in the folder.
        InputError: the images can't be used, a file of the comparison is damaged, or every run diverged.
    """
    base = with_absolute_paths(_shared_recipe(request))
    chosen, left_out = choose(request.methods, base)
    folder = request.out or COMPARISONS / base.name
    with working_in(folder):
        result = _compare(request, base, folder, chosen=chosen, left_out=left_out)
    if as_json:
        print_json(result.model_dump(mode="json"))
    else:
        sys.stdout.write((folder / TABLE).read_text())
    log(f"table.md, comparison.json, scores.png, circle.png and confusion.png are in {folder}")


def _compare(
    request: CompareRequest,
    base: Recipe,
    folder: Path,
    *,
    chosen: Sequence[MethodSpec],
    left_out: Sequence[MethodSpec],
) -> ComparisonResult:
    images = TASKS[request.task].read_synthetic(base)
    base = keep_plan(folder, base, request.tune, images.fingerprint())
    names = ", ".join(spec.label for spec in chosen)
    default = "" if request.recipe else " (default)"
    log(f"compare {request.task}: recipe {base.name}{default}, {names}; seeds 0 to {request.seeds - 1}; {folder}")
    for spec in left_out:
        setting = f"methods.{spec.name}.{missing_settings(spec, base)[0]}"
        log(f"{spec.label} is left out: {setting} has no default; set it with --set {setting}=VALUE")
    real_train = real_train_recipe(base, request.real_train, images) if request.real_train else None
    comparison = Comparison(folder, base, images, tuning_rule(base, request.tune))
    methods = read_results(folder, base.task)
    for spec in chosen:
        method = comparison.train(spec, methods.get(spec.label), request.seeds, tune=request.tune)
        if method.runs:
            methods[spec.label] = method
            comparison.write(methods.values())
    if not methods:
        raise InputError("every run diverged, so there is no table", "lower the learning rates, or tune")
    keep_imagenet_panel(folder, base, images)
    if real_train:
        comparison.train_on_real(real_train)
    result = comparison.write(methods.values())
    draw_figures(folder, result, TASKS[base.task].scores)
    return result


def _shared_recipe(request: CompareRequest) -> Recipe:
    """The recipe that all methods share.

    Raises:
        UsageError: a setting belongs to one method alone and does not say to which, or there are no real images.
    """
    for name in request.settings:
        if name.startswith(METHOD_PREFIX):
            setting = name.removeprefix(METHOD_PREFIX)
            raise UsageError(
                f"--set {name} does not say which of the methods it is for",
                f"use --method NAME:{setting}=VALUE or --set methods.NAME.{setting}=VALUE",
            )
    recipe = load_task_recipe(request.task, request.recipe, request.settings)
    if not recipe.data.real:
        raise UsageError("a comparison measures on real images", "name them with --real-data")
    return recipe


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

    def write(self, methods: Iterable[MethodResult]) -> ComparisonResult:
        """Write table and results of the methods there are."""
        ordered = in_order(methods)
        result = new_comparison(self.base, self.rule, ordered, differences(self.folder, ordered))
        main_score = next(iter(TASKS[self.base.task].scores.values()))
        write_table(self.folder, self.base, result, notes(self.folder, main_score))
        write_results(self.folder, result)
        return result

    def train(self, spec: MethodSpec, earlier: MethodResult | None, seeds: int, tune: bool) -> MethodResult:
        """The result of a method with at least `seeds` runs, continuing an earlier one if there is one."""
        method = earlier
        if method is None:
            trials = self.tune(spec) if tune else []
            chosen = best_trial(trials).changes if trials else {}
            method = new_result(spec, recipe_for(spec, self.base), trials, chosen)
        done = {run.seed for run in method.runs}
        for seed in (seed for seed in range(seeds) if seed not in done):
            recipe = recipe_for(spec, self.base, method.chosen | {"seed": seed})
            run = trained_run(self.folder, f"runs/{spec.file_name}-{seed}", recipe, spec.label)
            if run.diverged:
                log(f"{spec.label}, seed {seed}: training diverged; the run is left out of the table")
                continue
            method = method.model_copy(update={"runs": (*method.runs, figures_of(run))})
            keep_predictions(self.folder, spec.label, run)
            if len(method.runs) == 1:
                keep_panel(self.folder, spec.file_name, spec.label, run)
        return method

    def train_on_real(self, recipe: Recipe) -> None:
        """Train and measure the model that is trained on real images, unless its panel is there."""
        title = real_train_title(recipe)
        if panel_file(self.folder, REAL_TRAIN).is_file():
            return
        run = trained_run(self.folder, "runs/real_train", recipe, title)
        if run.diverged:
            log(f"{title}: training diverged; it is left out of circle.png")
        else:
            keep_panel(self.folder, REAL_TRAIN, title, run)

    def tune(self, spec: MethodSpec) -> list[Trial]:
        """Short runs of a method, scored on synthetic images that they were not trained on."""
        score, trials = next(iter(TASKS[self.base.task].scores)), []
        for number, candidate in enumerate(candidates(spec, self.base)):
            recipe = recipe_for(spec, self.base, trial_settings(self.base, len(self.images), candidate))
            run = trained_run(self.folder, f"tune/{spec.file_name}-{number}", recipe, spec.label)
            evaluation = None if run.diverged else run.result().evaluation
            held_out, images = (getattr(evaluation, score), evaluation.images) if evaluation else (0.0, 1)
            trials.append(Trial(changes=candidate, held_out=held_out, images=images))
        return trials
