"""The trainings of a comparison as tasks of Ray, which places them, and repeats those whose machine is lost.

A task runs `csg train` in a process of its own, as a comparison on one machine does. All machines see the folder of the
comparison, so a repeated task continues from the run's last checkpoint.
"""

from __future__ import annotations

import io
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, redirect_stdout
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from csg.console import log
from csg.errors import CsgError, InputError, ServerError, one_line
from csg.files import LOCK, absolute
from csg.locks import lock
from csg_train.compare.plan import PLAN
from csg_train.compare.resources import RunResources
from csg_train.compare.runs import Job, Killed, stopped
from csg_train.compare.timing import Pace, timed_try
from csg_train.recipe import Recipe
from csg_train.training.signals import Stop, Stopped

RETRIES = 10
"""How often a training is continued whose machine or process was lost."""
STOPPING_S = 120.0
"""How long stopped trainings may take to write their checkpoints."""
GIB = 2**30


class RayExecutor:
    """Trains runs on the machines of a Ray cluster, as many at a time as have room.

    Args:
        resources: what each run gets.

    Raises:
        ServerError: the cluster can't be reached.
    """

    def __init__(self, resources: RunResources):
        self.output = ExitStack()
        self.output.enter_context(redirect_stdout(io.StringIO()))  # Ray prints there what happens to its machines
        try:
            ray.init(log_to_driver=False, include_dashboard=False, logging_level="ERROR")
        except (ConnectionError, RuntimeError, ValueError) as error:
            what = f"the Ray cluster can't be reached: {one_line(error)}"
            self.output.close()
            raise ServerError(what, "check RAY_ADDRESS, and `ray status` on this machine") from None
        total = ray.cluster_resources()
        gpus = resources.gpus if resources.gpus is not None else float(total.get("GPU", 0) >= 1)
        self.needs = {"CPU": resources.cpus, "GPU": gpus, "memory": (resources.memory or 0) * GIB}
        room = [_room(node["Resources"], self.needs) for node in ray.nodes() if node["Alive"]]
        self.at_once = max(1, sum(room))
        self.tasks: dict[str, Any] = {}
        log(f"Ray: {len(room)} machines, room for {sum(room)} trainings at a time")
        if not sum(room):
            log("warning: no machine of the cluster has what a run needs; waiting for one that has")

    def start(self, job: Job) -> None:
        """Let a run be trained when there is room."""
        job = Job(absolute(job.folder), job.name, job.recipe, job.label, job.trackers)
        if job.name not in self.tasks:
            self.tasks[job.name] = self._task(_train).remote(job)

    def finish(self, job: Job) -> float:
        """Wait until a run is made."""
        self.start(job)
        machine, seconds = self._result(self.tasks[job.name])
        log(f"{job.label}: {job.name} was trained on {machine}")
        return float(seconds)

    def paces(self, recipes: Sequence[Recipe]) -> list[Pace]:
        """How fast runs of these recipes are on the machines of the cluster."""
        tasks = [self._task(timed_try).remote(recipe) for recipe in recipes]
        return [self._result(task) for task in tasks]

    def close(self) -> None:
        """Stop what is still being trained, which writes checkpoints, and leave the cluster."""
        running = [task for task in self.tasks.values() if not ray.wait([task], timeout=0)[0]]
        for task in running:
            ray.cancel(task)
        if running:
            log("stopping the trainings on the cluster; each writes a checkpoint")
            ray.wait(running, num_returns=len(running), timeout=STOPPING_S)
        ray.shutdown()
        self.output.close()

    def _task(self, function: Callable[..., Any]) -> Any:
        return ray.remote(
            num_cpus=self.needs["CPU"],
            num_gpus=self.needs["GPU"],
            memory=self.needs["memory"] or None,
            max_retries=RETRIES,
            retry_exceptions=[Killed],
            max_calls=1,  # a process for each: peak memory, GPU memory and settings of torch are its own
        )(function)

    def _result(self, task: Any) -> Any:
        stop = Stop()
        with stop.listening():
            while not ray.wait([task], timeout=0.3)[0]:
                if stop.wanted:
                    raise stopped()
        try:
            return ray.get(task)
        except RayTaskError as error:
            if isinstance(error.cause, CsgError):
                raise error.cause from None
            what = f"a task failed: {one_line(error.cause)}"
            raise InputError(what, "install the same csg on all machines") from None
        except RayError as error:
            raise InputError(f"Ray gave up a run: {one_line(error)}", "continue with the same command") from None


def _room(has: dict[str, float], needs: dict[str, float]) -> int:
    """How many runs a machine has room for."""
    return int(min(has.get(name, 0.0) // amount for name, amount in needs.items() if amount))


def _train(job: Job) -> tuple[str, float]:
    """Train a run, in a worker of Ray; returns the machine's name and the seconds.

    Raises:
        InputError: the machine does not see the comparison's folder, or the run failed.
        Killed: its process was killed; Ray starts the task again.
    """
    started, machine = time.monotonic(), socket.gethostname()
    if not (job.folder / PLAN).is_file():
        what = f"machine {machine} does not see {job.folder}"
        raise InputError(what, "put it into a folder that all machines share (--out), at the same path")
    with lock(job.run.path / LOCK, wait=""):  # a process that has lost its worker may still be writing its checkpoint
        pass
    if job.run.ended:
        return machine, 0.0
    log_file = job.folder / "logs" / f"{job.name.replace('/', '-')}.log"
    log_file.parent.mkdir(exist_ok=True)
    with log_file.open("a") as errors:
        try:
            job.train([sys.executable, "-m", "csg_train.compare.ends_with_parent"], errors)
        except (Stopped, Killed):
            raise
        except CsgError as error:
            failed = InputError(f"run {job.name} failed on {machine}: {_last_error(log_file.read_text())}", error.hint)
            failed.exit_code = error.exit_code
            raise failed from None
    return machine, time.monotonic() - started


def _last_error(text: str) -> str:
    lines = [line for line in text.splitlines() if "error: " in line]
    return one_line(lines[-1].partition("error: ")[2]) if lines else "it has printed no reason"
