"""`csg compare cls` and `csg compare seg`: several methods, each with several seeds, on the same data and budget.

Each is a separate run, and all are in one folder:

tune/, runs/           the runs; finished ones are not repeated
plan.json              what the comparison was started with (csg_train/compare/plan.py)
comparison.json        the results of all methods (csg_train/compare/results.py)
table.md, circle.png, confusion.png   drawn from comparison.json and panels/
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from csg.console import log, print_json
from csg.errors import CsgError, InputError, UsageError
from csg.files import atomic_write
from csg.locks import working_in
from csg_train.compare.panels import draw_figures, keep_panel
from csg_train.compare.plan import keep_plan, without_folders
from csg_train.compare.results import (
    ComparisonResult,
    MethodResult,
    Trial,
    figures_of,
    in_order,
    new_result,
    read_results,
    write_results,
)
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
from csg_train.tasks import TASKS
from csg_train.training.command import load_task_recipe, with_absolute_paths
from csg_train.training.run_folder import Run
from csg_train.training.signals import Stop, Stopped

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
    """The methods, as `--method` takes them; none: those of `choose`."""
    seeds: int = 3
    """Runs of each method, with seeds 0, 1, ..."""
    tune: bool = True
    """Tune each method first."""
    out: Path | None = None
    """The comparison's folder; None: comparisons/<recipe>."""


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
    log(f"table.md, comparison.json, circle.png and confusion.png are in {folder}")


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
    comparison = Comparison(folder, base, len(images), tuning_rule(base, request.tune))
    methods = read_results(folder, base.task)
    for spec in chosen:
        method = comparison.train(spec, methods.get(spec.label), request.seeds, tune=request.tune)
        if method.runs:
            methods[spec.label] = method
            comparison.write(methods.values())
    if not methods:
        raise InputError("every run diverged, so there is no table", "lower the learning rates, or tune")
    result = comparison.write(methods.values())
    draw_figures(folder, [method.label for method in result.methods])
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
    images: int
    """The number of its synthetic images."""
    rule: str
    """How the methods are tuned."""

    def write(self, methods: Iterable[MethodResult]) -> ComparisonResult:
        """Write table and results of the methods there are."""
        ordered = in_order(methods)
        write_table(self.folder, self.base, self.rule, ordered)
        return write_results(self.folder, self.base, self.rule, ordered)

    def train(self, spec: MethodSpec, earlier: MethodResult | None, seeds: int, tune: bool) -> MethodResult:
        """The result of a method with at least `seeds` runs, continuing an earlier one if there is one."""
        method = earlier
        if method is None:
            trials = self.tune(spec) if tune else []
            chosen = best_trial(trials).changes if trials else {}
            method = new_result(spec, recipe_for(spec, self.base), trials, chosen)
        done = {run.seed for run in method.runs}
        for seed in (seed for seed in range(seeds) if seed not in done):
            run = self.run(spec, method.chosen | {"seed": seed}, f"runs/{spec.file_name}-{seed}")
            if run.diverged:
                log(f"{spec.label}, seed {seed}: training diverged; the run is left out of the table")
                continue
            method = method.model_copy(update={"runs": (*method.runs, figures_of(run))})
            if len(method.runs) == 1:
                keep_panel(self.folder, spec, run)
        return method

    def tune(self, spec: MethodSpec) -> list[Trial]:
        """Short runs of a method, scored on synthetic images that they were not trained on."""
        score, trials = next(iter(TASKS[self.base.task].scores)), []
        for number, candidate in enumerate(candidates(spec, self.base)):
            changes = trial_settings(self.base, self.images, candidate)
            run = self.run(spec, changes, f"tune/{spec.file_name}-{number}")
            evaluation = None if run.diverged else run.result().evaluation
            held_out, images = (getattr(evaluation, score), evaluation.images) if evaluation else (0.0, 1)
            trials.append(Trial(changes=candidate, held_out=held_out, images=images))
        return trials

    def run(self, spec: MethodSpec, changes: dict[str, Any], name: str) -> Run:
        """A finished or diverged run, trained in a separate process unless it exists.

        Raises:
            UsageError: the existing run has other settings.
            Stopped: the user stopped it.
        """
        recipe, run = recipe_for(spec, self.base, changes), Run(self.folder / name)
        if run.started and without_folders(run.recipe()) != without_folders(recipe):
            raise UsageError(f"run {run.path} has other settings", "remove it, or name another folder with --out")
        if run.finished or run.diverged:
            return run
        args = ["--resume", *_places(recipe)]
        if not run.started:
            file = self.folder / "recipes" / f"{name.replace('/', '-')}.yaml"
            atomic_write(file, recipe.to_yaml().encode())
            args = ["--recipe", str(file)]
        log(f"{spec.label}: {name}")
        try:
            _train([self.base.task, *args, "--out", str(run.path)])
        except CsgError:
            if not run.diverged:
                raise
        return run


def _places(recipe: Recipe) -> list[str]:
    """The options that tell a resumed run where its images are now."""
    options = [("--data", source) for source in recipe.data.train] + [("--real-data", s) for s in recipe.data.real]
    return [word for option in options for word in option]


def _train(args: Sequence[str]) -> None:
    """Run `csg train` in a separate process, whose peak memory is that of one run; passes the first signal on.

    Raises:
        Stopped: the user stopped it.
        CsgError: the run failed; its process has printed why.
    """
    command = [sys.executable, "-m", "csg", "train", *args]
    stop = Stop()
    with stop.listening():
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
        passed_on = False
        while True:
            try:
                process.wait(0.2)
                break
            except subprocess.TimeoutExpired:
                if stop.wanted and not passed_on:
                    process.terminate()
                    passed_on = True
    if stop.wanted or process.returncode == Stopped.exit_code:
        raise Stopped("comparison stopped", "continue it with the same command")
    if process.returncode < 0:
        what = f"the process of a run was killed by {signal.Signals(-process.returncode).name}"
        raise InputError(what, "look for too little memory, and continue with the same command")
    if process.returncode:
        error = CsgError("a run failed, for the reason above", "correct it, and continue with the same command")
        error.exit_code = process.returncode
        raise error
