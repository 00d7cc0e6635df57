"""Where the trainings of a comparison run: one after another here, or on the machines of a Ray cluster."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Protocol

from pydantic import ValidationError

from csg.console import log
from csg.did_you_mean import use_one_of
from csg.errors import UsageError
from csg.extras import install_command
from csg_train.compare.resources import RunResources
from csg_train.compare.runs import Job
from csg_train.compare.timing import Pace, timed_try
from csg_train.methods.spec import parse_assignments
from csg_train.recipe import Recipe
from csg_train.training.memory import release_memory

EXECUTORS = ("local", "ray")
EXAMPLE = "for example --executor ray:cpus=4:gpus=1"


class Executor(Protocol):
    """Trains the runs of a comparison."""

    at_once: int
    """Runs that are trained at a time."""

    def start(self, job: Job) -> None:
        """Let a run be trained when there is room."""

    def finish(self, job: Job) -> float:
        """Wait until a run is made, started now if it was not before; returns the seconds that its training took.

        Raises:
            Stopped: the user stopped the comparison.
            CsgError: the run failed.
        """

    def paces(self, recipes: Sequence[Recipe]) -> list[Pace]:
        """How fast runs of these recipes are, where they are trained."""

    def close(self) -> None:
        """Stop what is still being trained; it can be continued."""


class LocalExecutor:
    """Trains one run after another on this machine."""

    at_once = 1

    def start(self, job: Job) -> None:
        """Nothing: a run starts when it is waited for."""

    def finish(self, job: Job) -> float:
        """Train a run."""
        log(f"{job.label}: {job.name}")
        started = time.monotonic()
        job.train()
        return time.monotonic() - started

    def paces(self, recipes: Sequence[Recipe]) -> list[Pace]:
        """How fast runs of these recipes are on this machine."""
        found = []
        for recipe in recipes:
            found.append(timed_try(recipe))
            release_memory()  # the runs have processes of their own, beside this one
        return found

    def close(self) -> None:
        """Nothing is being trained."""


def open_executor(text: str) -> Executor:
    """The executor that a user names.

    Args:
        text: `local`, or `ray` with what each run gets: `ray:cpus=4:gpus=1:memory=16`.

    Raises:
        UsageError: there is no such executor or resource, or Ray is not installed.
        ServerError: the cluster can't be reached.
    """
    name, *assignments = text.split(":")
    if name not in EXECUTORS:
        raise UsageError(f"there is no executor {name!r}", use_one_of(name, EXECUTORS))
    given = parse_assignments(assignments, f"--executor {text}", EXAMPLE)
    if name == "local":
        if given:
            raise UsageError("--executor local has no resources", "use local alone, or ray:cpus=N")
        return LocalExecutor()
    resources = _resources(text, given)
    try:
        from csg_train.compare.ray_executor import RayExecutor
    except ModuleNotFoundError as error:
        raise UsageError(f"--executor ray needs the module {error.name}", install_command("ray")) from None
    return RayExecutor(resources)


def _resources(text: str, given: dict[str, Any]) -> RunResources:
    try:
        return RunResources(**given)
    except ValidationError as error:
        first = error.errors()[0]
    name = ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        raise UsageError(f"--executor {text}: there is no resource {name}", use_one_of(name, RunResources.model_fields))
    raise UsageError(f"--executor {text}: {name}: {first['msg']}", EXAMPLE)
