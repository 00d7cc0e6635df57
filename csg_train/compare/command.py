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
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from csg.console import log, print_json
from csg.errors import InputError, UsageError
from csg.locks import working_in
from csg_train.compare.comparison import Comparison
from csg_train.compare.drawing import draw_figures
from csg_train.compare.executors import open_executor
from csg_train.compare.plan import keep_plan
from csg_train.compare.references import keep_imagenet_panel, real_train_recipe
from csg_train.compare.results import (
    ComparisonResult,
    read_results,
)
from csg_train.compare.table import TABLE
from csg_train.compare.trainings import Trainings
from csg_train.compare.tuning import (
    choose,
    missing_settings,
    tuning_rule,
)
from csg_train.methods.spec import MethodSpec
from csg_train.recipe import Recipe
from csg_train.recipe.settings import METHOD_PREFIX
from csg_train.tasks import TASKS
from csg_train.training.command import load_task_recipe, with_absolute_paths
from csg_train.training.trackers import check_trackers

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
    executor: str = "local"
    """Where the runs are trained (`csg_train.compare.executors.open_executor`)."""
    trackers: tuple[str, ...] = ()
    """Trackers of each run besides TensorBoard."""


def compare_command(request: CompareRequest, as_json: bool) -> None:
    """Train what is not trained yet, and write table and figures; the table is updated after each method.

    Raises:
        UsageError: a method or a setting is wrong, or another process is working in the folder.
        InputError: the images can't be used, a file of the comparison is damaged, or every run diverged.
        ServerError: the cluster can't be reached.
        Stopped: by Ctrl-C or SIGTERM; the same command continues.
    """
    check_trackers(request.trackers)
    base = with_absolute_paths(_shared_recipe(request))
    chosen, left_out = choose(request.methods, base)
    folder = request.out or COMPARISONS / base.name
    with working_in(folder), closing(open_executor(request.executor)) as executor:
        _say_left_out(left_out, base)
        trainings = Trainings(executor, request.trackers)
        result = _compare(request, base, folder, chosen=chosen, trainings=trainings)
    if as_json:
        print_json(result.model_dump(mode="json"))
    else:
        sys.stdout.write((folder / TABLE).read_text())
    log(f"table.md, comparison.json, scores.png, circle.png and confusion.png are in {folder}")


def _compare(
    request: CompareRequest, base: Recipe, folder: Path, *, chosen: Sequence[MethodSpec], trainings: Trainings
) -> ComparisonResult:
    images = TASKS[request.task].read_synthetic(base)
    base = keep_plan(folder, base, request.tune, images.fingerprint())
    names = ", ".join(spec.label for spec in chosen)
    default = "" if request.recipe else " (default)"
    log(f"compare {request.task}: recipe {base.name}{default}, {names}; seeds 0 to {request.seeds - 1}; {folder}")
    real_train = real_train_recipe(base, request.real_train, images) if request.real_train else None
    comparison = Comparison(
        folder=folder,
        base=base,
        images=images,
        rule=tuning_rule(base, request.tune),
        seeds=request.seeds,
        tuned=request.tune,
        trainings=trainings,
    )
    methods = read_results(folder, base.task)
    comparison.begin(chosen, methods, real_train)
    for spec in chosen:
        method = comparison.train(spec, methods.get(spec.label))
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


def _say_left_out(specs: Sequence[MethodSpec], base: Recipe) -> None:
    for spec in specs:
        setting = f"methods.{spec.name}.{missing_settings(spec, base)[0]}"
        log(f"{spec.label} is left out: {setting} has no default; set it with --set {setting}=VALUE")


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
