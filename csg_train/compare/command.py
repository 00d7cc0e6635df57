"""`csg compare cls` and `csg compare seg`: systems times seeds on the same data and budget.

Each is a run of its own, in one folder:

tune/, runs/           the runs; those that are finished are not made again
plan.json              the recipe that all of them share, and whether they are tuned
comparison.json, table.md, circle.png, confusion.png   what came out (csg_train/compare/results.py)
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from csg.console import log, print_json
from csg.errors import CsgError, InputError, UsageError
from csg.files import atomic_write
from csg_train.compare.results import (
    TABLE,
    Row,
    Try,
    decide,
    draw,
    figures_of,
    in_order,
    keep_panel,
    new_row,
    read_rows,
    summarise,
)
from csg_train.compare.tuning import choose, missing_settings, recipe_for, tries
from csg_train.methods.spec import MethodSpec, method_settings
from csg_train.recipe import Recipe, SegmentationData, parse_recipe
from csg_train.recipe.settings import METHOD_PREFIX
from csg_train.tasks import TASKS
from csg_train.training.command import load_task_recipe, with_absolute_paths
from csg_train.training.optimizer import precision_for
from csg_train.training.run_folder import Run
from csg_train.training.signals import Stop, Stopped

COMPARISONS = Path("comparisons")
SHORTER = 4  # a tuning run than a whole one
HELD_OUT = 0.2  # of a single synthetic source


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
    """The methods, as `--method` takes them; none: all of METHODS."""
    seeds: int = 3
    """Runs of each method, with seeds 0, 1, ..."""
    tune: bool = True
    """Tune each method first."""
    out: Path | None = None
    """The comparison's folder; None: comparisons/<recipe>."""


def compare_command(request: CompareRequest, as_json: bool) -> None:
    """Train what is not trained yet, and write table and figures, again after each method."""
    base = with_absolute_paths(_shared_recipe(request))
    chosen, left_out = choose(request.methods, base)
    folder, images = request.out or COMPARISONS / base.name, TASKS[request.task].read_synthetic(base)
    base = keep_plan(folder, base, request.tune, images.fingerprint())
    comparison = Comparison(folder, base, len(images))
    names = ", ".join(spec.label for spec in chosen)
    default = "" if request.recipe else " (default)"
    log(f"compare {request.task}: recipe {base.name}{default}, {names}; seeds 0 to {request.seeds - 1}; {folder}")
    for spec in left_out:
        setting = f"methods.{spec.name}.{missing_settings(spec, base)[0]}"
        log(f"{spec.label} is left out: {setting} has no default; set it with --set {setting}=VALUE")
    rows = read_rows(folder)
    for spec in chosen:
        row = comparison.row(spec, rows.get(spec.label), request.seeds, request.tune)
        if row.runs:
            rows[spec.label] = row
            result = summarise(folder, base, in_order(rows.values()), kept(base) if request.tune else None)
    if not rows:
        raise InputError("every run diverged, so there is no table", "lower the learning rates, or tune")
    draw(folder, [row.label for row in in_order(rows.values())])
    if as_json:
        print_json(result)
    else:
        sys.stdout.write((folder / TABLE).read_text())
    log(f"table.md, comparison.json, circle.png and confusion.png are in {folder}")


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
    """The folder, the recipe that all systems share, and how many synthetic images it has."""

    folder: Path
    base: Recipe
    images: int

    def row(self, spec: MethodSpec, row: Row | None, seeds: int, tune: bool) -> Row:
        """The system's row with at least so many seeds, going on from an earlier one if there is one."""
        if row is None:
            tries = self.tune(spec) if tune else []
            row = new_row(spec, recipe_for(spec, self.base), tries, decide(tries).changes if tries else {})
        done = {run["seed"] for run in row.runs}
        for seed in (seed for seed in range(seeds) if seed not in done):
            run = self.run(spec, row.chosen | {"seed": seed}, f"runs/{spec.file_name}-{seed}")
            if run.diverged:
                log(f"{spec.label}, seed {seed}: training diverged; it has no part in the table")
                continue
            row.runs.append(figures_of(run))
            if len(row.runs) == 1:
                keep_panel(self.folder, spec, run)
        return row

    def tune(self, spec: MethodSpec) -> list[Try]:
        """Three short runs of a method, scored on synthetic images that they were not trained on."""
        found_tries = []
        for number, changes in enumerate(tries(spec, self.base)):
            run = self.run(spec, changes | self._tuning(changes), f"tune/{spec.file_name}-{number}")
            if run.diverged:
                found_tries.append(Try(changes, 0.0, 1))
                continue
            result = run.result()
            found = result["held_out" if "held_out" in result else "real"]
            found_tries.append(Try(changes, found[next(iter(TASKS[self.base.task].SCORES))], found["images"]))
        return found_tries

    def _tuning(self, changes: dict[str, Any]) -> dict[str, Any]:
        """Settings of a tuning run that tries `changes`: so many steps fewer at learning rates so much higher, and what
        it is measured on. With the steps alone fewer, the tries would favour rates too high for the whole run.
        """
        optim, data = self.base.optim, self.base.data
        steps = optim.epochs * (self.images // min(optim.batch, self.images))
        quarter: dict[str, Any] = {
            "seed": 0,
            "evaluate_every": 0,
            "optim.max_steps": math.ceil(min(steps, optim.max_steps or steps) / SHORTER),
        }
        for name in ("optim.lr_backbone", "optim.lr_heads"):
            quarter[name] = SHORTER * changes.get(name, getattr(optim, name.removeprefix("optim.")))
        if isinstance(data, SegmentationData):
            quarter["data.real_labels"] = None
        if len(data.train) > 1:
            return quarter | {"data.train": data.train[:-1], "data.real": data.train[-1:]}
        return quarter | {"data.real": (), "data.holdout": HELD_OUT}

    def run(self, spec: MethodSpec, changes: dict[str, Any], name: str) -> Run:
        """A finished run, or a diverged one, made in a process of its own unless it is there already.

        Raises:
            UsageError: what is there was made with other settings.
            Stopped: the user stopped it.
        """
        recipe, run = recipe_for(spec, self.base, changes), Run(self.folder / name)
        started = (run.path / "recipe.yaml").is_file()
        if started and run.recipe() != recipe:
            raise UsageError(f"run {run.path} was made with other settings", "remove it, or name another --out")
        if run.finished or run.diverged:
            return run
        words = ["--resume"]
        if not started:
            file = self.folder / "recipes" / f"{name.replace('/', '-')}.yaml"
            atomic_write(file, recipe.to_yaml().encode())
            words = ["--recipe", str(file)]
        words += ["--out", str(run.path)]
        log(f"{spec.label}: {name}")
        try:
            _train([self.base.task, *words])
        except CsgError:
            if not run.diverged:
                raise
        return run


def keep_plan(folder: Path, base: Recipe, tune: bool, fingerprint: str) -> Recipe:
    """The recipe that all systems share, with one precision for all; the one the folder was started with.

    Of the sources the plan keeps the names and a fingerprint, so that it can be gone on with on another machine.

    Raises:
        UsageError: recipe or images were others, or tuning was on and is off now, or the other way round.
    """
    file = folder / "plan.json"
    if not file.is_file():
        if folder.exists() and any(folder.iterdir()):
            raise UsageError(f"{folder} is no comparison's folder", "name another with --out")
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        base = base.model_copy(update={"precision": precision_for(base.precision, device).name})
        plan = {"tune": tune, "images": fingerprint, "recipe": _named(base)}
        atomic_write(file, (json.dumps(plan, indent=2) + "\n").encode())
        return base
    found = json.loads(file.read_text())
    if found["tune"] != tune:
        raise UsageError(
            f"{folder} was started with --{'' if found['tune'] else 'no-'}tune", "do the same, or --out DIR"
        )
    if base.precision == "auto":
        base = base.model_copy(update={"precision": found["recipe"]["precision"]})
    if _named(base) != _named(parse_recipe(found["recipe"], str(file))):
        raise UsageError(f"{folder} was started with another recipe", "name another folder with --out")
    if fingerprint != found["images"]:
        raise UsageError(f"{folder} was started with other synthetic images", "name another folder with --out")
    return base


def _named(recipe: Recipe) -> dict[str, Any]:
    """The recipe's settings; of paths the names alone."""
    tree = recipe.model_dump(mode="json")
    for name in ("train", "real"):
        tree["data"][name] = [Path(source).name for source in tree["data"][name]]
    for name in ("labels", "real_labels"):
        if tree["data"].get(name):
            tree["data"][name] = Path(tree["data"][name]).name
    for method, settings in tree["methods"].items():
        paths = method_settings(method, recipe.task, settings).paths()
        settings |= {name: path.name for name, path in paths.items()}
    return tree


def kept(base: Recipe) -> str:
    """What tuning runs are scored on, in words."""
    if len(base.data.train) > 1:
        return f"all of {Path(base.data.train[-1]).name}, the last of the synthetic sources"
    return f"{HELD_OUT:.0%} of them, the same for all"


def _train(words: Sequence[str]) -> None:
    """`csg train` in a process of its own, so that its memory is its own; a signal is handed on once."""
    command = [sys.executable, "-m", "csg", "train", *words]
    stop = Stop()
    with stop.listening():
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
        handed_on = False
        while True:
            try:
                process.wait(0.2)
                break
            except subprocess.TimeoutExpired:
                if stop.wanted and not handed_on:
                    process.terminate()
                    handed_on = True
    if stop.wanted or process.returncode == Stopped.exit_code:
        raise Stopped("comparison stopped", "the same command goes on with it")
    if process.returncode:
        error = CsgError("a run failed, for the reason above", "mend it; the same command goes on")
        error.exit_code = process.returncode if process.returncode > 0 else 1
        raise error
