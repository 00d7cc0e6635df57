"""The run folder: what a training leaves, and what a resumed one continues from.

recipe.yaml            every setting
environment.json       software, hardware, seed, data, classes (csg_train/training/environment.py)
metrics.jsonl          a line for each logged step and each evaluation; TensorBoard events hold the same figures
trackers.json          which other trackers follow the run (csg_train/training/trackers)
checkpoints/           the last two states of an unfinished run
                       best-*: with `evaluate_every`, the best weights so far
student.safetensors    the trained student
best-on-real.safetensors   with `evaluate_every`: the weights that are best on the real images, an oracle
predictions.npz        what the networks of the result predict for each real image: `student`, and `last` and
                       `best_on_real` if there are such; classes (N,) with the true ones in `labels`, or matrices
                       (N, K, K + 1) of pixels by true and predicted class, the last column for none of the K
profile/               with `--profile`: what the time of some steps was spent on (csg_train/training/profiling.py)
pictures/              samples, curves, confusion, mistakes and scenes as PNG files (csg_train/pictures)
result.json            the result, as `csg train --json` prints it; written last, so a run without it is unfinished
diverged.txt           instead of the last five: why there is no student
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from csg.card import ClassSpec
from csg.console import log
from csg.errors import CsgError, InputError, UsageError
from csg.files import atomic_write
from csg.folders import wrong_folder
from csg.npz import npz_bytes
from csg.parsing import parse_yaml
from csg.records import Record, read_record
from csg.strict_json import json_text
from csg_train.recipe import Recipe, parse_recipe
from csg_train.recipe.schema import VERSION
from csg_train.training.environment import Environment
from csg_train.training.run_files import (
    BEST_ON_REAL,
    CHECKPOINTS,
    DIVERGED,
    ENVIRONMENT,
    METRICS,
    PICTURES,
    PREDICTIONS,
    RECIPE,
    RESULT,
    STUDENT,
)
from csg_train.training.run_result import RunResult
from csg_train.training.tensor_files import read_tensors, write_tensors

KEEP_CHECKPOINTS = 2
WRITTEN = Recipe.model_fields.keys() - {"checkpoint", "speed"}
"""What every recipe of a run contains, of an older csg too: all settings are written. A file that was cut off would
mean the defaults."""


@dataclass(frozen=True)
class Run:
    """A run folder."""

    path: Path
    """Its path."""

    @property
    def started(self) -> bool:
        """Whether the folder has a recipe, so that the run can be resumed."""
        return (self.path / RECIPE).is_file()

    @property
    def recorded(self) -> bool:
        """Whether the folder has the environment that the run was started with."""
        return (self.path / ENVIRONMENT).is_file()

    @property
    def finished(self) -> bool:
        """Whether the training is complete."""
        return (self.path / RESULT).exists()

    @property
    def diverged(self) -> bool:
        """Whether the training ended because its weights were not finite."""
        return (self.path / DIVERGED).is_file()

    @property
    def ended(self) -> bool:
        """Whether there is nothing to resume."""
        return self.finished or self.diverged

    @property
    def metrics(self) -> Path:
        """The file of metrics."""
        return self.path / METRICS

    @property
    def pictures(self) -> Path:
        """The folder of pictures that a run has when it ends."""
        return self.path / PICTURES

    @property
    def checkpoints(self) -> Path:
        """The folder of the states of an unfinished run."""
        return self.path / CHECKPOINTS

    def recipe(self) -> Recipe:
        """All settings.

        Raises:
            InputError: this is not a run folder, or its recipe is damaged.
        """
        tree = self._recipe_tree()
        if missing := WRITTEN - tree.keys():
            what = f"{self.path / RECIPE} is damaged: it has no {min(missing)}"
            raise InputError(what, "restore it, or name another run")
        if isinstance(data := tree.get("data"), dict):
            data.setdefault("jpeg_scaling", False)  # written by a csg that could not do so
        if tree.get("version") == 1:
            tree.pop("evaluate_every", None)  # in epochs; a run of that version can't be resumed
        try:
            return parse_recipe(tree, str(self.path / RECIPE))
        except UsageError as error:  # the user did not write this recipe
            raise InputError(error.message, "restore the file, or name another run") from None

    def _recipe_tree(self) -> dict[str, Any]:
        file = self.path / RECIPE
        if not self.started:
            raise wrong_folder(self.path, "run", f"it has no {RECIPE}; name a folder that `csg train` made")
        try:
            tree = parse_yaml(file.read_bytes())
        except ValueError:
            tree = None
        if not isinstance(tree, dict):
            raise InputError(f"{file} is damaged", "restore it, or name another run")
        return tree

    def require_current_recipe(self) -> None:
        """Raise InputError if the recipe is of an older version: what such a run draws at random is not drawn now."""
        if self._recipe_tree().get("version") != VERSION:
            raise InputError(
                f"run {self.path} was started by an older csg, which drew other random numbers: it can't be resumed",
                "start a new run",
            )

    @property
    def resume_command(self) -> str:
        """What a user types to continue the run; raises as `recipe`."""
        processes = self.environment().processes if self.recorded else 1
        several = f"torchrun --nproc-per-node {processes} -m " if processes > 1 else ""
        return f"{several}csg train {self.recipe().task} --resume --out {self.path}"

    def environment(self) -> Environment:
        """What the run was started with.

        Raises:
            InputError: the file is missing or damaged.
        """
        return read_record(self.path / ENVIRONMENT, Environment, "train again, or name another run")

    def class_spec(self) -> ClassSpec:
        """The classes of the run's student; raises as `environment`."""
        return self.environment().class_spec

    def result(self) -> RunResult:
        """The result of a finished run.

        Raises:
            InputError: the run is not finished, or the file is damaged.
        """
        if not self.finished:
            command = self.resume_command
            self.require_not_diverged()
            raise InputError(f"run {self.path} is not finished", f"finish it with `{command}`")
        return read_record(self.path / RESULT, RunResult, "train again, or name another run")

    def require_not_diverged(self) -> None:
        """Raise InputError if the training diverged: the run has no student, and can't be resumed."""
        if self.diverged:
            raise InputError(
                f"run {self.path} diverged, so it has no student and can't be resumed",
                "start a new run with lower learning rates (--set optim.lr_backbone=...)",
            )

    def write(self, name: str, content: str) -> None:
        """Write a text file of the run atomically."""
        atomic_write(self.path / name, content.encode())

    def write_record(self, name: str, record: Record) -> None:
        """Write a record as JSON, atomically."""
        self.write(name, json_text(record.model_dump(mode="json")) + "\n")

    def student(self) -> dict[str, torch.Tensor]:
        """The state dict of the trained student.

        Raises:
            InputError: the file is missing or can't be read.
            VerificationError: its content has changed.
        """
        return read_tensors(self.path / STUDENT)[0]

    def write_student(self, state: dict[str, torch.Tensor]) -> None:
        """Write the state dict of the trained student."""
        write_tensors(self.path / STUDENT, state, {})

    def write_best_on_real(self, state: dict[str, torch.Tensor], step: int) -> None:
        """Write the weights that are best on the real images, and note their step."""
        write_tensors(self.path / BEST_ON_REAL, state, {"step": str(step)})

    def write_predictions(self, of_images: Mapping[str, np.ndarray]) -> None:
        """Write what the networks of the result predict for the real images, by name."""
        atomic_write(self.path / PREDICTIONS, npz_bytes(of_images))

    def save_checkpoint(self, step: int, tensors: dict[str, torch.Tensor]) -> None:
        """Write the state after `step` steps, and remove all older checkpoints but the last.

        Raises:
            InputError: it can't be written; the older ones stay.
        """
        file = self._checkpoint(step)
        try:
            write_tensors(file, tensors, {"step": str(step)})
        except OSError as error:
            kept = self._checkpoints()
            raise InputError(
                f"checkpoint {file} can't be written: {error.strerror}"
                + (f" (that of step {kept[-1]} is kept)" if kept else ""),
                f"free space, then continue with `{self.resume_command}`",
            ) from None
        for old in self._checkpoints()[:-KEEP_CHECKPOINTS]:
            self._checkpoint(old).unlink()

    def load_checkpoint(self) -> tuple[int, dict[str, torch.Tensor]] | None:
        """The step and state of the newest intact checkpoint, None if there is none; warns of damaged ones."""
        for step in reversed(self._checkpoints()):
            try:
                return step, read_tensors(self._checkpoint(step))[0]
            except CsgError as error:
                log(f"warning: {error.message}; the checkpoint before it is used")
        return None

    @property
    def last_step(self) -> int:
        """The step of the newest checkpoint of an unfinished run; 0 without one."""
        return max(self._checkpoints(), default=0)

    def drop_checkpoints(self) -> None:
        """Remove all checkpoints of a finished run."""
        for file in self.checkpoints.glob("*.safetensors"):
            file.unlink()
        if self.checkpoints.is_dir():
            self.checkpoints.rmdir()

    def _checkpoint(self, step: int) -> Path:
        return self.checkpoints / f"step-{step:08d}.safetensors"

    def _checkpoints(self) -> list[int]:
        found = (re.fullmatch(r"step-(\d+)\.safetensors", file.name) for file in self.checkpoints.glob("*.safetensors"))
        return sorted(int(match[1]) for match in found if match)


def newest_run(folder: Path, task: str = "*", unfinished: bool = False) -> Path:
    """The run below `folder` (runs/<task>/<name>) that was started last.

    Args:
        folder: of all runs.
        task: of the run, cls or seg; by default either.
        unfinished: look only at runs that can be resumed: neither finished nor diverged.

    Raises:
        InputError: there is none.
    """
    recipes = sorted(folder.glob(f"{task}/*/{RECIPE}"), key=lambda file: file.stat().st_mtime_ns)
    runs = [file.parent for file in recipes if not (unfinished and Run(file.parent).ended)]
    if not runs:
        kind = "unfinished run" if unfinished else "run"
        raise InputError(f"there is no {kind} in {folder}/", "train one with `csg train`, or name its folder")
    return runs[-1]
