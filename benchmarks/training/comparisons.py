"""Comparisons of several lines, trained several at a time, that continue from their committed tables.

Each line is a comparison in a folder of OUT. When all methods have finished a seed, `csg compare` takes their runs into
its table, and the runs may be removed: with docs/results as OUT, what git keeps is what the same command continues
from, on another machine too.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from csg.files import atomic_write
from csg.records import read_record
from csg_train.compare.comparison import Comparison
from csg_train.compare.plan import PLAN, Plan, keep_plan
from csg_train.compare.results import MethodResult, Trial, read_results
from csg_train.compare.runs import training_command
from csg_train.compare.tuning import best_trial, candidates, held_out_images, recipe_for, trial_settings
from csg_train.methods.spec import MethodSpec, parse_method
from csg_train.recipe import Recipe
from csg_train.tasks import TASKS
from csg_train.training.command import load_task_recipe, with_absolute_paths
from csg_train.training.run_folder import Run

FACTORS = (1.0, 1 / 3, 3.0)
"""Of the recipe's learning rates: what `none` does best with on held-out synthetic images is for all methods."""

WAYS = "ways.json"
"""File of the learning rates of a line's ways."""


@dataclass(frozen=True)
class Line:
    """A comparison."""

    name: str
    """Its folder."""
    recipe: str
    """The recipe that all methods share."""
    train: tuple[str, ...]
    """Synthetic images."""
    real: str
    """Real images."""
    settings: dict[str, Any]
    """What differs from the recipe."""
    methods: tuple[str, ...]
    """The methods."""
    seeds: int = 3
    """Runs of each."""
    tune: bool = False
    """Whether each method is tuned on synthetic images first."""
    rates: bool = False
    """Whether the learning rates are chosen first, with trainings as long as the others."""
    ways: tuple[str, ...] = ()
    """Ends of methods that have learning rates of their own, those that `none` with this end is tuned to."""

    def base(self, data: Path, rates: dict[str, float]) -> Recipe:
        """The recipe that all methods share, with its images and learning rates that differ from it."""
        sources = {"data.train": [str(data / name) for name in self.train], "data.real": [str(data / self.real)]}
        task = "seg" if self.recipe in ("camvid", "digit-scenes") else "cls"
        return with_absolute_paths(load_task_recipe(task, self.recipe, self.settings | rates | sources))

    def with_rates(self, rates: dict[str, dict[str, float]]) -> list[MethodSpec]:
        """The methods, those of `ways` with their learning rates."""
        return [self._with_rates(name, rates) for name in self.methods]

    def _with_rates(self, name: str, rates: dict[str, dict[str, float]]) -> MethodSpec:
        own = rates.get(next((way for way in self.ways if name.endswith(way)), ""), {})
        kept = [part for part in name.split(":") if part.partition("=")[0] not in own]
        return parse_method(":".join([*kept, *(f"{key}={value:.3g}" for key, value in own.items())]))

    def command(
        self, data: Path, out: Path, seeds: int, rates: dict[str, float], specs: Sequence[MethodSpec]
    ) -> list[str]:
        """What takes the finished runs into a table."""
        words = [sys.executable, "-m", "csg", "compare", self.base(data, rates).task]
        words += ["--recipe", self.recipe, "--out", str(out / self.name)]
        words += [w for name in self.train for w in ("--data", str(data / name))]
        words += ["--real-data", str(data / self.real), "--seeds", str(seeds), *([] if self.tune else ["--no-tune"])]
        words += [w for spec in specs for w in ("--method", spec.label)]
        words += [w for name, value in (self.settings | rates).items() for w in ("--set", f"{name}={value}")]
        return words


Job = tuple[Path, Callable[[], Recipe]]
"""The folder of a run, and its settings."""


class Trainings:
    """Runs of `csg train`, several at a time, until a moment.

    Args:
        at_once: how many.
        end: the moment, of time.monotonic().
    """

    def __init__(self, at_once: int, end: float):
        self.pool, self.end = ThreadPoolExecutor(at_once), end

    def all(self, jobs: Iterator[Job], then: Callable[[Path], None] | None = None) -> None:
        """Train each run that is not finished, in this order.

        Args:
            jobs: folders of runs, and their settings.
            then: called with the folder of each run after it.
        """

        def train(job: Job) -> None:
            self._train(*job)
            if then:
                then(job[0])

        list(self.pool.map(train, jobs))

    def _train(self, folder: Path, recipe: Callable[[], Recipe]) -> None:
        run = Run(folder)
        if run.ended or time.monotonic() > self.end:
            return
        comparison, kind = folder.parent.parent, folder.parent.name
        command = training_command(comparison, f"{kind}/{folder.name}", recipe())
        log_file = comparison / f"logs/{kind}-{folder.name}.log"
        log_file.parent.mkdir(parents=True, exist_ok=True)
        with log_file.open("a") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
            try:
                process.wait(max(1.0, self.end - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGTERM)
                process.wait()
        if process.returncode and not run.diverged:
            print(f"{folder}: exit code {process.returncode}, see {log_file}", flush=True)


class Making:
    """The runs of a line.

    Args:
        line: the line.
        data: the folder with all images.
        out: the folder of all comparisons.
    """

    def __init__(self, line: Line, data: Path, out: Path):
        self.line, self.data, self.folder = line, data, out / line.name
        self.rates_folder = out / "rates" / line.name
        self.of_ways: dict[str, dict[str, float]] = {}
        if (self.folder / WAYS).is_file():
            self.of_ways = json.loads((self.folder / WAYS).read_text())
        self.specs = line.with_rates(self.of_ways)
        self.base = line.base(data, {})
        self.images = TASKS[self.base.task].read_synthetic(self.base)
        self.chosen = self._rates_of_plan()
        self.taking = Lock()

    def rates(self) -> Iterator[Job]:
        """The runs that choose the learning rates."""
        for factor in FACTORS if self.line.rates and not self.chosen else ():
            changes = self._rates(factor) | held_out_images(self.base) | {"evaluate_every": 0}
            recipe = recipe_for(parse_method("none"), self.base, changes)
            yield self.rates_folder / f"{factor:.2f}", lambda recipe=recipe: recipe

    def _rates_of_plan(self) -> dict[str, float]:
        """The learning rates that were chosen before, if the comparison has been started."""
        if not self.line.rates or not (self.folder / PLAN).is_file():
            return {}
        rates = read_record(self.folder / PLAN, Plan, "restore it").recipe["optim"]
        return {f"optim.{name}": rates[name] for name in ("lr_backbone", "lr_heads")}

    def _rates(self, factor: float) -> dict[str, float]:
        return {f"optim.{name}": factor * getattr(self.base.optim, name) for name in ("lr_backbone", "lr_heads")}

    def start(self) -> None:
        """Choose the learning rates, and fix what all methods share."""
        if self.line.rates and not self.chosen:
            self.chosen = best_trial([self._trial(factor) for factor in FACTORS]).changes
        base = self.line.base(self.data, self.chosen)
        self.base = keep_plan(self.folder, base, self.line.tune, self.images.fingerprint())

    def _trial(self, factor: float) -> Trial:
        run = Run(self.rates_folder / f"{factor:.2f}")
        evaluation = None if run.diverged else run.result().evaluation
        held_out, images = (evaluation.mean_class_accuracy, evaluation.images) if evaluation else (0.0, 1)
        print(f"{self.line.name}: {factor:.2f} of the learning rates: {held_out:.4f} of {images} held-out images")
        return Trial(changes=self._rates(factor), held_out=held_out, images=images)

    def tries(self) -> Iterator[Job]:
        """The runs of tuning."""
        untuned = [spec for spec in self.specs if self.line.tune and spec.label not in self._results()]
        for spec in [*untuned, *(self._of_way(way) for way in self.line.ways if way not in self.of_ways)]:
            for number, candidate in enumerate(candidates(spec, self.base)):
                changes = trial_settings(self.base, len(self.images), candidate)
                recipe = recipe_for(spec, self.base, changes)
                yield self.folder / f"tune/{spec.file_name}-{number}", lambda recipe=recipe: recipe

    def _of_way(self, way: str) -> MethodSpec:
        return parse_method("none" + way)

    def choose(self) -> None:
        """Give the methods of `ways` the learning rates that tuning found best, and keep these."""
        for way in (way for way in self.line.ways if way not in self.of_ways):
            trial = best_trial(Comparison(self.folder, self.base, self.images, "").tune(self._of_way(way)))
            print(f"{self.line.name}{way}: {trial.changes}, {trial.held_out:.4f} of {trial.images} held-out images")
            self.of_ways[way] = trial.changes
            atomic_write(self.folder / WAYS, json.dumps(self.of_ways, indent=1).encode())
        self.specs = self.line.with_rates(self.of_ways)

    def runs(self, seeds: range) -> Iterator[Job]:
        """The runs of the table that it does not have, seed by seed."""
        for seed in (seed for seed in seeds if seed < self.line.seeds):
            for spec in self.specs:
                if (spec.label, seed) not in self._in_table():
                    yield self._folder(spec, seed), lambda spec=spec, seed=seed: self._recipe(spec, seed)

    def take(self) -> None:
        """Take the runs into the table, if all methods have ended another seed; nothing while another thread does."""
        if self.taking.acquire(blocking=False):
            try:
                self._take()
            finally:
                self.taking.release()

    def _take(self) -> None:
        table, seeds = self._in_table(), self.seeds()
        every = ((spec, seed) for seed in range(seeds) for spec in self.specs)
        if all((spec.label, seed) in table or Run(self._folder(spec, seed)).diverged for spec, seed in every):
            return
        command = self.line.command(self.data, self.folder.parent, seeds, self.chosen, self.specs)
        with (self.folder / "logs/compare.log").open("a") as log:
            code = subprocess.run(command, stdout=log, stderr=log, check=False).returncode
        print(f"{self.line.name}: {seeds} seeds, exit code {code}", flush=True)

    def seeds(self) -> int:
        """How many seeds all methods have ended."""
        table = self._in_table()

        def ended(seed: int) -> bool:
            return all((spec.label, seed) in table or Run(self._folder(spec, seed)).ended for spec in self.specs)

        return next((seed for seed in range(self.line.seeds) if not ended(seed)), self.line.seeds)

    def _results(self) -> dict[str, MethodResult]:
        return read_results(self.folder, self.base.task)

    def _in_table(self) -> set[tuple[str, int]]:
        return {(method.label, run.seed) for method in self._results().values() for run in method.runs}

    def _folder(self, spec: MethodSpec, seed: int) -> Path:
        return self.folder / f"runs/{spec.file_name}-{seed}"

    def _recipe(self, spec: MethodSpec, seed: int) -> Recipe:
        chosen: dict[str, Any] = {}
        if earlier := self._results().get(spec.label):
            chosen = earlier.chosen
        elif self.line.tune:
            chosen = best_trial(Comparison(self.folder, self.base, self.images, "").tune(spec)).changes
        return recipe_for(spec, self.base, chosen | {"seed": seed})


def ended(jobs: Iterator[Job]) -> bool:
    """Whether all of these runs have ended, and none was left out because the time was over."""
    return all(Run(folder).ended for folder, _ in jobs)


def main(lines: Sequence[Line], doc: str | None) -> None:
    """Make the runs that the tables of the lines lack, and add them.

    Args:
        lines: all lines.
        doc: what the benchmark is for, shown by --help.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the folder with the folders of images")
    parser.add_argument("out", type=Path, help="the folder of the comparisons, such as docs/results")
    parser.add_argument("--at-once", type=int, default=2, help="runs that train at the same time")
    parser.add_argument("--minutes", type=float, default=1e6, help="after them what runs is stopped")
    names = [line.name for line in lines]
    parser.add_argument("--lines", nargs="+", choices=names, default=names, help="some lines alone")
    given = parser.parse_args()
    trainings = Trainings(given.at_once, time.monotonic() + 60 * given.minutes)
    making = {line.name: Making(line, given.data, given.out) for line in lines if line.name in given.lines}
    trainings.all(job for one in making.values() for job in one.rates())
    rated = [one for one in making.values() if ended(one.rates())]
    for one in rated:
        one.start()
    trainings.all(job for one in rated for job in one.tries())
    tuned = [one for one in rated if ended(one.tries())]
    for one in tuned:
        one.choose()
    jobs = (job for seeds in (range(3), range(3, 5)) for one in tuned for job in one.runs(seeds))
    trainings.all(jobs, lambda folder: making[folder.parent.parent.name].take())
    for one in making.values():
        one.take()
        print(f"# {one.line.name}: {one.seeds()} of {one.line.seeds} seeds")
