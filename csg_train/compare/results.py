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
from csg_train.training.optimizer import PrecisionName
from csg_train.training.run_folder import Run

ENERGIES = ("E_0", "E_1", "E_2")
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


class RunFigures(Record):
    """The figures of a finished run, and what it was made with."""

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

    def value(self, name: str) -> float | None:
        """A figure by name: a score, an energy, `seconds_per_step` or `peak_memory_mib`; None if there is none."""
        if name in ENERGIES:
            return float(getattr(self.energy, name)) if self.energy else None
        return float(self.scores[name] if name in self.scores else getattr(self, name))


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


class ComparisonResult(Record):
    """The content of `comparison.json`."""

    version: Literal[1] = 1
    """Version of the format."""
    recipe: str
    """Name of the recipe that all methods share."""
    rule: str
    """How the methods were tuned."""
    rows: tuple[dict[str, Any], ...]
    """One flat object for each run, for scripts: method, seed, scores, energies, time, memory."""
    methods: tuple[MethodResult, ...]
    """The methods in the order of METHODS."""


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
    return RunFigures(
        seed=recipe.seed,
        scores={name: getattr(result.real, name) for name in TASKS[recipe.task].scores},
        energy=result.energy,
        seconds_per_step=result.seconds_per_step,
        peak_memory_mib=result.peak_memory_mib,
        steps=result.steps,
        images=result.real.images,
        precision=environment.precision,
        device=environment.device,
        threads=environment.threads,
        commit=environment.commit,
    )


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


def write_results(folder: Path, base: Recipe, rule: str, methods: Sequence[MethodResult]) -> ComparisonResult:
    """Write `comparison.json`."""
    rows = tuple(_row(method.label, run) for method in methods for run in method.runs)
    result = ComparisonResult(recipe=base.name, rule=rule, rows=rows, methods=tuple(methods))
    atomic_write(folder / JSON, f"{json_text(result.model_dump(mode='json'))}\n".encode())
    return result


def _row(label: str, run: RunFigures) -> dict[str, Any]:
    return {
        "method": label,
        "seed": run.seed,
        **run.scores,
        "hse": {name.removeprefix("E_"): run.value(name) for name in ENERGIES},
        "step_ms": 1000 * run.seconds_per_step,
        "peak_mb": run.peak_memory_mib,
    }
