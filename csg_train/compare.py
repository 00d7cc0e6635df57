"""`csg compare cls`: systems times seeds on the same data and budget, each a run of its own, in one folder.

tune/, runs/           the runs; those that are finished are not made again
plan.json              the recipe that all of them share, and whether they are tuned
comparison.json, table.md, circle.png, confusion.png   what came out (csg_train/comparison.py)
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from csg.console import print_json, say
from csg.errors import CsgError, UsageError
from csg.files import write_bytes
from csg.realset import read_labelled
from csg_train.comparison import Row, Try, decide, draw, earlier_rows, summarise
from csg_train.optimisation import precision_for
from csg_train.recipe import Recipe, load_recipe, parse_recipe
from csg_train.run import Run
from csg_train.stop import Stop, Stopped
from csg_train.systems import System, choose
from csg_train.train import synthetic_sources, whole_paths

COMPARISONS = Path("comparisons")
HELD_OUT = 0.2  # of a single synthetic source


def compare_command(
    source: str | None,
    changes: dict[str, Any],
    assignments: list[str],
    systems: list[str] | None,
    seeds: int,
    tune: bool,
    styles: str | None,
    weights: str | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Train what is not trained yet, and write table and figures; again after each system."""
    given = {key: value for key, value in changes.items() if value is not None}
    base = whole_paths(load_recipe(source or "digits", given, assignments))
    if not base.data.real:
        raise UsageError("a comparison measures on real images", "name them with --real")
    chosen, left_out = choose(systems, str(Path(styles).resolve()) if styles else None)
    folder = out or COMPARISONS / base.name
    base = keep_plan(folder, base, tune)
    comparison = Comparison(folder, base, len(read_labelled(synthetic_sources(base))), weights)
    names = ", ".join(system.name for system in chosen)
    say(f"compare cls: recipe {base.name}{'' if source else ' (default)'}, {names}; seeds 0 to {seeds - 1}; {folder}")
    for name in left_out:
        say(f"{name} is left out: it restyles with images of yours, named by --styles DIR")
    rows = {row.system.name: row for row in earlier_rows(folder)}
    for system in chosen:
        tries = comparison.tune(system) if tune else []
        best = decide(tries).changes if tries else {}
        count = max(seeds, len(rows[system.name].runs)) if system.name in rows else seeds
        runs = [comparison.run(system, best | {"seed": seed}, f"runs/{system.folder}-{seed}") for seed in range(count)]
        rows[system.name] = Row(system, tries, best, runs)
        result = summarise(folder, base, list(rows.values()), kept(base) if tune else None)
    draw(folder, list(rows.values()))
    if as_json:
        print_json(result)
    else:
        sys.stdout.write((folder / "table.md").read_text())
    say(f"table.md, comparison.json, circle.png and confusion.png are in {folder}")


@dataclass(frozen=True)
class Comparison:
    """The folder, the recipe that all systems share, and how many synthetic images it has."""

    folder: Path
    base: Recipe
    images: int
    weights: str | None

    def tune(self, system: System) -> list[Try]:
        """Three short runs of a system, scored on synthetic images that they were not trained on."""
        tries = []
        for number, changes in enumerate(system.tries(self.base)):
            run = self.run(system, changes | self._tuning(), f"tune/{system.folder}-{number}")
            result = run.result()
            found = result["held_out" if "held_out" in result else "real"]
            tries.append(Try(changes, found["mean_class_accuracy"], found["images"]))
        return tries

    def _tuning(self) -> dict[str, Any]:
        """Settings of a tuning run: a quarter of the steps, and what it is measured on."""
        optim, data = self.base.optim, self.base.data
        steps = optim.epochs * (self.images // min(optim.batch, self.images))
        quarter = {
            "seed": 0,
            "evaluate_every": 0,
            "optim.max_steps": math.ceil(min(steps, optim.max_steps or steps) / 4),
        }
        if len(data.train) > 1:
            return quarter | {"data.train": data.train[:-1], "data.real": data.train[-1:]}
        return quarter | {"data.real": (), "data.holdout": HELD_OUT}

    def run(self, system: System, changes: dict[str, Any], name: str) -> Run:
        """A finished run, made in a process of its own unless it is there already.

        Raises:
            UsageError: what is there was made with other settings.
            Stopped: the user stopped it.
        """
        recipe, run = system.recipe(self.base, changes), Run(self.folder / name)
        started = (run.path / "recipe.yaml").is_file()
        if started and run.recipe() != recipe:
            raise UsageError(f"run {run.path} was made with other settings", "remove it, or name another --out")
        if run.finished:
            return run
        words = ["--resume"]
        if not started:
            file = self.folder / "recipes" / f"{name.replace('/', '-')}.yaml"
            write_bytes(file, recipe.to_yaml().encode())
            words = ["--recipe", str(file)]
        words += ["--out", str(run.path), *(["--weights", self.weights] if self.weights else [])]
        say(f"{system.name}: {name}")
        _train(words)
        return run


def keep_plan(folder: Path, base: Recipe, tune: bool) -> Recipe:
    """The recipe that all systems share, with one precision for all; the one the folder was started with.

    Raises:
        UsageError: that was another, or tuning was on and is off now, or the other way round.
    """
    file = folder / "plan.json"
    if not file.is_file():
        if folder.exists() and any(folder.iterdir()):
            raise UsageError(f"{folder} is no comparison's folder", "name another with --out")
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        base = base.model_copy(update={"precision": precision_for(base.precision, device).name})
        plan = {"tune": tune, "recipe": base.model_dump(mode="json")}
        write_bytes(file, (json.dumps(plan, indent=2) + "\n").encode())
        return base
    found = json.loads(file.read_text())
    if found["tune"] != tune:
        raise UsageError(
            f"{folder} was started with --{'' if found['tune'] else 'no-'}tune", "do the same, or --out DIR"
        )
    shared = parse_recipe(found["recipe"], str(file))
    if base.precision == "auto":
        base = base.model_copy(update={"precision": shared.precision})
    if base != shared:
        raise UsageError(f"{folder} was started with another recipe", "name another folder with --out")
    return base


def kept(base: Recipe) -> str:
    """What tuning runs are scored on, in words."""
    if len(base.data.train) > 1:
        return f"all of {Path(base.data.train[-1]).name}, the last of the synthetic sources"
    return f"{HELD_OUT:.0%} of them, the same for all"


def _train(words: Sequence[str]) -> None:
    """`csg train cls` in a process of its own, so that its memory is its own; a signal is handed on once."""
    command = [sys.executable, "-m", "csg", "train", "cls", *words]
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
