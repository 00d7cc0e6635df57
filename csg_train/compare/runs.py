"""The runs of a comparison, each trained in a separate process unless it is there already.

A run may have been trained by someone else, on another machine: a run folder with the settings that the comparison
wants is taken as it is.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from csg.console import log
from csg.errors import CsgError, InputError, UsageError
from csg.files import atomic_write
from csg_train.compare.plan import without_folders
from csg_train.recipe import Recipe
from csg_train.training.run_folder import Run
from csg_train.training.signals import Stop, Stopped


def trained_run(folder: Path, name: str, recipe: Recipe, label: str) -> Run:
    """A finished or diverged run, trained unless it exists.

    Args:
        folder: of the comparison.
        name: of the run: its path in that folder.
        recipe: of the run.
        label: what the log calls it.

    Raises:
        UsageError: the existing run has other settings.
        Stopped: the user stopped it.
    """
    run = Run(folder / name)
    if run.started and not _same_settings(run, recipe):
        raise UsageError(f"run {run.path} has other settings", "remove it, or name another folder with --out")
    if run.finished or run.diverged:
        return run
    log(f"{label}: {name}")
    try:
        _train(training_command(folder, name, recipe))
    except CsgError:
        if not run.diverged:
            raise
    return run


def training_command(folder: Path, name: str, recipe: Recipe) -> list[str]:
    """The command that trains a run, or continues it; the recipe of a new one is written to `recipes/`.

    Args:
        folder, name, recipe: as for `trained_run`.
    """
    run = Run(folder / name)
    args = ["--resume", *_places(recipe)]
    if not run.started:
        file = folder / "recipes" / f"{name.replace('/', '-')}.yaml"
        atomic_write(file, recipe.to_yaml().encode())
        args = ["--recipe", str(file)]
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


def _train(command: Sequence[str]) -> None:
    """Run a command in a separate process, whose peak memory is that of one run; passes the first signal on.

    Raises:
        Stopped: the user stopped it.
        CsgError: the run failed; its process has printed why.
    """
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
