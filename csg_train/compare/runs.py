"""The runs of a comparison, each trained in a separate process unless it is there already.

A run may have been trained by someone else, on another machine: a run folder with the settings that the comparison
wants is taken as it is.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from csg.errors import CsgError, InputError, UsageError
from csg.files import atomic_write
from csg_train.compare.plan import without_folders
from csg_train.recipe import Recipe
from csg_train.training.run_folder import Run
from csg_train.training.signals import Stop, Stopped


@dataclass(frozen=True)
class Job:
    """A run that a comparison needs."""

    folder: Path
    """The comparison's folder."""
    name: str
    """The run's path in that folder."""
    recipe: Recipe
    """Its settings."""
    label: str
    """What the log calls it."""
    trackers: tuple[str, ...] = ()
    """Trackers besides TensorBoard."""

    @property
    def run(self) -> Run:
        """The run folder."""
        return Run(self.folder / self.name)

    @property
    def made(self) -> bool:
        """Whether the run is there: finished or diverged.

        Raises:
            UsageError: a run of this name has other settings.
        """
        run = self.run
        if run.started and not _same_settings(run, self.recipe):
            raise UsageError(f"run {run.path} has other settings", "remove it, or name another folder with --out")
        return run.ended

    def train(self, before: Sequence[str] = (), errors: TextIO | None = None) -> None:
        """Train the run, or continue it, in a process of its own.

        Args:
            before: words before the command.
            errors: where its process prints; None: where this one does.

        Raises:
            Stopped, InputError, CsgError: as `in_a_process`; a run that diverges is no error.
        """
        command = training_command(self.folder, self.name, self.recipe, self.trackers)
        try:
            in_a_process([*before, *command], errors)
        except CsgError:
            if not self.run.diverged:
                raise


class Killed(InputError):
    """The process of a run was killed."""


def training_command(folder: Path, name: str, recipe: Recipe, trackers: Sequence[str] = ()) -> list[str]:
    """The command that trains a run, or continues it; the recipe of a new one is written to `recipes/`.

    Args:
        folder, name, recipe, trackers: as in `Job`.
    """
    run = Run(folder / name)
    args = ["--resume", *_places(recipe)]
    if not run.started:
        file = folder / "recipes" / f"{name.replace('/', '-')}.yaml"
        atomic_write(file, recipe.to_yaml().encode())
        args = ["--recipe", str(file)]
        args += [word for tracker in trackers for word in ("--tracker", tracker)]
    return [sys.executable, "-m", "csg", "train", recipe.task, *args, "--out", str(run.path)]


def _same_settings(run: Run, recipe: Recipe) -> bool:
    """Whether a run has these settings, with files of the same names at any place."""
    found = run.recipe()
    if found.precision == "auto" and run.recorded:
        found = found.model_copy(update={"precision": run.environment().precision})
    return without_folders(found) == without_folders(recipe)


def _places(recipe: Recipe) -> list[str]:
    """The options that tell a resumed run where its images are now."""
    options = [("--data", source) for source in recipe.data.train] + [("--real-data", s) for s in recipe.data.real]
    return [word for option in options for word in option]


def in_a_process(command: Sequence[str], errors: TextIO | None = None) -> None:
    """Run a command in a separate process, whose peak memory is that of one run; passes the first signal on.

    Args:
        command: its words.
        errors: where it prints; None: where this process does.

    Raises:
        Stopped: the user stopped it.
        Killed: its process was killed.
        CsgError: the run failed; its process has printed why.
    """
    stop = Stop()
    with stop.listening():
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors, start_new_session=True)
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
        raise stopped()
    if process.returncode < 0:
        what = f"the process of a run was killed by {signal.Signals(-process.returncode).name}"
        raise Killed(what, "look for too little memory, and continue with the same command")
    if process.returncode:
        error = CsgError("a run failed, for the reason above", "correct it, and continue with the same command")
        error.exit_code = process.returncode
        raise error


def stopped() -> Stopped:
    """The error of a comparison that the user has stopped."""
    return Stopped("comparison stopped", "continue it with the same command")
