"""Watchdog of a tritonserver: loads a model again whose Python process died, for example out of memory, or that answers
wrongly, and takes it out of service if its answers stay wrong.

Triton 2.51 does not: it keeps reporting a model without a process as ready, fails each of its requests, and does not
load it again when told to unless one of its files has changed. A polling Triton unloads no model whose folder is there:
the model's processes are ended instead, so that its requests fail. Only the Python backend has such processes; with
another backend the watchdog of a polling server can only write to the log.

    python -m csg_serve.server.watchdog REPOSITORY TOKEN     # TOKEN: on the command lines of the server's processes
"""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil

from csg.console import log
from csg.errors import CsgError
from csg_serve.server.control import is_in_service, load_model, unload_model
from csg_serve.server.deployments import is_being_deployed
from csg_serve.server.state import LOG, ServerState, read_state
from csg_serve.server.stubs import Stubs
from csg_serve.triton.failures import mark_served

WATCH_S = 1
FIRST_S = 5
"""Seconds until the answers are watched too: `csg serve` verifies them before it says that the server is ready."""


def start_watchdog(repository: Path, token: str) -> None:
    """Start the watchdog of the server that runs on a repository, as a process that ends with the server."""
    command = [sys.executable, "-m", "csg_serve.server.watchdog", str(repository.resolve()), token]
    with (repository / LOG).open("ab") as log_file:  # opened again: the server's own file object holds its lock
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log_file, stderr=log_file, start_new_session=True)


def watch(repository: Path, state: ServerState) -> None:
    """Watch the processes and the answers of a server's models until the server ends."""
    server = psutil.Process(state.pid)
    stubs = Stubs(server, state.token)
    answers, started = None, time.monotonic()
    while True:
        try:
            server.wait(WATCH_S)
            return
        except psutil.TimeoutExpired:
            died = stubs.died()
        for script in died:
            model, version = script.parent.parent.name, script.parent.name
            if not is_being_deployed(repository, model) and is_in_service(repository, state, model, int(version)):
                log(f"csg: the process of {model} version {version} died; loading the model again")
                _load_again(repository, state, stubs, script)
        if answers is None and time.monotonic() > started + FIRST_S:
            from csg_serve.server.answer_watch import (
                AnswerWatch,
            )  # imports gRPC while a server is not starting any more

            answers = AnswerWatch(repository, state)
        for finding in answers.look() if answers else ():
            model, version = finding.found.model, str(finding.found.version)
            log(f"csg: {model} version {version} answers wrongly: {finding.found.reason}")
            if finding.act == "load again":
                log(f"csg: loading {model} again")
                _load_again(repository, state, stubs, repository / model / version / "model.py")
            elif state.control == "explicit":
                log(f"csg: unloading {model}")
                mark_served(repository, model, finding.found.reason)
                unload_model(repository, model)
            else:
                _end_processes(stubs, repository / model / version)


def _load_again(repository: Path, state: ServerState, stubs: Stubs, script: Path) -> None:
    """Load a model again; Triton does so only if a file of the version's folder has changed."""
    folder = script.parent
    stubs.loads_again(script)
    try:
        next(file for file in sorted(folder.glob("model.*"), reverse=True) if file.is_file()).touch()
        if state.control == "explicit":
            load_model(repository, state, folder.parent.name, int(folder.name))
    except (OSError, StopIteration, CsgError) as error:
        stubs.load_failed(script)
        log(f"csg: {folder.parent.name} could not be loaded again: {error}")


def _end_processes(stubs: Stubs, folder: Path) -> None:
    """End the processes of a version, and forget them: they are not dead, and not to be started again."""
    pids = stubs.forget(folder)
    ended = "its processes end" if pids else "it has no processes that could be ended; stop the server"
    log(f"csg: {folder.parent.name} is taken out of service: {ended}")
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            psutil.Process(pid).kill()


if __name__ == "__main__":
    found = read_state(Path(sys.argv[1]))
    if found and found.token == sys.argv[2]:
        with suppress(psutil.NoSuchProcess):  # the server has already ended
            watch(Path(sys.argv[1]), found)
