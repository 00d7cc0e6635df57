"""The results of a comparison (`comparison.json`): all that a later call needs; the runs themselves may be gone."""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from csg.errors import InputError
from csg.files import atomic_write
from csg.records import Record, read_record
from csg.strict_json import json_text
from csg_train.energy import Energy
from csg_train.methods import METHODS
from csg_train.methods.spec import MethodSpec, method_settings
from csg_train.recipe import Recipe
from csg_train.tasks import TASKS
from csg_train.training.metrics_log import MetricsLine
from csg_train.training.optimizer import PrecisionName
from csg_train.training.run_folder import Run
from csg_train.training.run_result import Evaluation, StudentRule

ENERGIES = ("E_0", "E_1", "E_2")
NUCLEAR_NORM = "nuclear_norm"
MORE_SCORES = ("mirrored", "last", "best_on_real")
"""The main score of a run measured in other ways, where it is."""
JSON = "comparison.json"
Share = Annotated[float, Field(ge=0, le=1)]


class Trial(Record):
    """A tuning run."""

    changes: dict[str, float]
    """The settings that it tried, by dotted name."""
    held_out: Share
    """Its score on held-out synthetic images, 0 to 1."""
    images: Annotated[int, Field(ge=1)]
    """The number of these images."""


class BestStep(Record):
    """The best measurement of a run on the real images: an oracle, since it is chosen on them."""

    step: int
    """Steps made before it."""
    scores: dict[str, Share]
    """Its scores, as those of the run."""


class RunFigures(Record):
    """The figures of a finished run, and what it was made with. Those with a default are missing in older files."""

    seed: int
    """Its seed."""
    scores: dict[str, Share]
    """Scores on the real images, 0 to 1, by the names of the evaluation's fields."""
    energy: Energy | None
    """Hyperspherical energy of the embeddings of the real images; None for a single image."""
    seconds_per_step: float
    """Mean duration of a step."""
    peak_memory_mib: int
    """Peak memory."""
    steps: int
    """Steps made."""
    images: int
    """Real images measured on."""
    precision: PrecisionName
    """Precision of the training."""
    device: str
    """Name of the GPU or the processor."""
    threads: int
    """Threads of torch on the CPU."""
    commit: str | None
    """Commit of csg."""
    torch: str | None = None
    """Version of torch."""
    rule: StudentRule = "last"
    """How the student was chosen."""
    mirrored: dict[str, Share] | None = None
    """The student's scores if its answers for each image and its mirror image are averaged."""
    last: dict[str, Share] | None = None
    """The scores of the last weights, if the student has others."""
    nuclear_norm: Share | None = None
    """What ranks systems on the real images without their labels (`csg.label_free`); it is no accuracy."""
    held_out: Share | None = None
    """The main score on held-out synthetic images, if the run has some."""
    best_on_real: BestStep | None = None
    """The best measurement on the real images, if the run was measured in between."""
    curve: tuple[tuple[int, Share], ...] = ()
    """Steps, and the main score on the real images after them, if the run was measured in between."""

    def value(self, name: str) -> float | None:
        """A figure by name: a score, an energy, `seconds_per_step`, `peak_memory_mib`, or one of MORE_SCORES.

        Returns:
            None if there is none.
        """
        if name in ENERGIES:
            return float(getattr(self.energy, name)) if self.energy else None
        if name in MORE_SCORES:
            found = getattr(self, name)
            scores = found.scores if isinstance(found, BestStep) else found
            return float(scores[next(iter(self.scores))]) if scores else None
        found = self.scores[name] if name in self.scores else getattr(self, name)
        return None if found is None else float(found)


class MethodResult(Record):
    """A method of the comparison, how it was tuned, and the figures of its finished runs."""

    label: str
    """The method as the user wrote it."""
    method: str
    """The name of the method."""
    settings: dict[str, Any]
    """The settings that the user gave it."""
    paths: dict[str, str]
    """Names of the files and folders that its settings name, by setting."""
    trials: tuple[Trial, ...] = ()
    """Its tuning runs."""
    chosen: dict[str, float]
    """The settings that tuning chose, by dotted name."""
    runs: tuple[RunFigures, ...] = ()
    """One for each seed."""

    @field_validator("runs")
    @classmethod
    def _one_run_a_seed(cls, runs: tuple[RunFigures, ...]) -> tuple[RunFigures, ...]:
        if len({run.seed for run in runs}) < len(runs):
            raise ValueError("a seed is there twice")
        return runs

    def values(self, name: str) -> list[float]:
        """A figure of each run that has it."""
        return [value for run in self.runs if (value := run.value(name)) is not None]

    def mean(self, name: str) -> float | None:
        """Mean of a figure over the runs; None if no run has it."""
        values = self.values(name)
        return statistics.fmean(values) if values else None

    def deviation(self, name: str) -> float | None:
        """Standard deviation of a figure over the runs; None for a single run."""
        values = self.values(name)
        return statistics.stdev(values) if len(values) > 1 else None


class Difference(Record):
    """How far a method is from the reference, over the seeds that both have and the images."""

    label: str
    """The method."""
    reference: str
    """The method that it is compared with."""
    mean: float
    """Mean difference of the main score, -1 to 1; above 0 the method is ahead."""
    low: float
    """Lower end of the 95 % interval (csg_train/compare/intervals.py)."""
    high: float
    """Upper end."""
    deviation: float | None
    """Standard deviation of the difference over seeds; None for a single seed."""
    seeds: int
    """Seeds that both have."""
    images: int
    """Images that both were measured on."""

    @property
    def verdict(self) -> str:
        """`ahead`, `behind`, or `not settled`, as always with a single seed."""
        if self.seeds == 1 or self.low <= 0 <= self.high:
            return "not settled"
        return "ahead" if self.low > 0 else "behind"


class ComparisonResult(Record):
    """The content of `comparison.json`."""

    version: Literal[1, 2] = 2
    """Version of the format; what version 2 adds is missing in files of version 1."""
    recipe: str
    """Name of the recipe that all methods share."""
    rule: str
    """How the methods were tuned."""
    rows: tuple[dict[str, Any], ...]
    """One flat object for each run, for scripts: method, seed, scores, energies, time, memory."""
    methods: tuple[MethodResult, ...]
    """The methods in the order of METHODS."""
    differences: tuple[Difference, ...] = ()
    """Of the methods whose predictions are kept, from the reference."""
    pairs: tuple[Difference, ...] = ()
    """Of every two methods whose predictions are kept, the later one in the table from the earlier."""


def new_result(spec: MethodSpec, recipe: Recipe, trials: Sequence[Trial], chosen: dict[str, Any]) -> MethodResult:
    """A method without runs."""
    paths = method_settings(spec.name, recipe.task, recipe.methods[spec.name]).paths()
    return MethodResult(
        label=spec.label,
        method=spec.name,
        settings={name: value for name, value in spec.settings.items() if name not in paths},
        paths={name: path.name for name, path in paths.items()},
        trials=tuple(trials),
        chosen=chosen,
    )


def figures_of(run: Run) -> RunFigures:
    """The figures of a finished run that was measured on real images."""
    result, recipe, environment = run.result(), run.recipe(), run.environment()
    assert result.real is not None
    task = TASKS[recipe.task]

    def scores(evaluation: Evaluation) -> dict[str, float]:
        return {name: getattr(evaluation, name) for name in task.scores}

    best = result.best_on_real
    return RunFigures(
        seed=recipe.seed,
        scores=scores(result.real),
        energy=result.energy,
        seconds_per_step=result.seconds_per_step,
        peak_memory_mib=result.peak_memory_mib,
        steps=result.steps,
        images=result.real.images,
        precision=environment.precision,
        device=environment.device,
        threads=environment.threads,
        commit=environment.commit,
        torch=environment.packages.get("torch"),
        rule=result.student.rule if result.student else "last",
        mirrored=scores(result.mirrored) if result.mirrored else None,
        last=scores(result.last) if result.last else None,
        nuclear_norm=result.nuclear_norm,
        held_out=next(iter(scores(result.held_out).values())) if result.held_out else None,
        best_on_real=BestStep(step=best.step, scores=scores(best.evaluation)) if best else None,
        curve=_curve(run, f"real/{next(iter(task.scores))}") if recipe.evaluate_every else (),
    )


def _curve(run: Run, name: str) -> tuple[tuple[int, float], ...]:
    """The steps of a run after which a figure was measured, and the figure."""
    lines = map(MetricsLine.from_json, run.metrics.read_text(errors="replace").splitlines())
    found = {line.step: line.figures[name] for line in lines if line and name in line.figures}
    return tuple((step, value) for step, value in found.items() if value is not None)


def read_results(folder: Path, task: str) -> dict[str, MethodResult]:
    """The methods that earlier calls have finished, by label.

    Raises:
        InputError: the file is damaged, or its scores are not those of the task.
    """
    file, hint = folder / JSON, "restore it, or name another folder with --out"
    if not os.path.lexists(file):  # a link to nothing is no reason to train again
        return {}
    found = read_record(file, ComparisonResult, hint)
    methods = {method.label: method for method in found.methods}
    runs = [run for method in found.methods for run in method.runs]
    if len(methods) < len(found.methods) or any(run.scores.keys() != TASKS[task].scores.keys() for run in runs):
        raise InputError(f"{file} is damaged: a method is there twice, or its scores are not those of {task}", hint)
    return methods


def in_order(methods: Iterable[MethodResult]) -> list[MethodResult]:
    """Methods in the order of METHODS; those that are no longer installed come last."""
    order = {name: index for index, name in enumerate(METHODS)}
    return sorted(methods, key=lambda method: order.get(method.method, len(order)))


def new_comparison(
    base: Recipe,
    rule: str,
    methods: Sequence[MethodResult],
    differences: Sequence[Difference],
    pairs: Sequence[Difference] = (),
) -> ComparisonResult:
    """What a comparison has found."""
    rows = tuple(_row(method.label, run) for method in methods for run in method.runs)
    return ComparisonResult(
        recipe=base.name,
        rule=rule,
        rows=rows,
        methods=tuple(methods),
        differences=tuple(differences),
        pairs=tuple(pairs),
    )


def write_results(folder: Path, result: ComparisonResult) -> None:
    """Write `comparison.json`."""
    atomic_write(folder / JSON, f"{json_text(result.model_dump(mode='json'))}\n".encode())


def _row(label: str, run: RunFigures) -> dict[str, Any]:
    return {
        "method": label,
        "seed": run.seed,
        **run.scores,
        **{name: value for name in (*MORE_SCORES, NUCLEAR_NORM) if (value := run.value(name)) is not None},
        "hse": {name.removeprefix("E_"): run.value(name) for name in ENERGIES},
        "step_ms": 1000 * run.seconds_per_step,
        "peak_mb": run.peak_memory_mib,
    }
