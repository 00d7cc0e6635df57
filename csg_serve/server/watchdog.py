"""Watchdog of a tritonserver: loads a model again after its Python process died, for example out of memory.

Triton 2.51 does not: it keeps reporting such a model as ready, fails each of its requests, and does not load it again
when told to unless one of its files has changed.

    python -m csg_serve.server.watchdog REPOSITORY TOKEN     # TOKEN: on the command lines of the server's processes
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil

from csg.console import log
from csg.errors import CsgError
from csg_serve.server.control import load_model
from csg_serve.server.state import LOG, ServerState, read_state

WATCH_S = 1


def start_watchdog(repository: Path, token: str) -> None:
    """Start the watchdog of the server that runs on a repository, as a process that ends with the server."""
    command = [sys.executable, "-m", "csg_serve.server.watchdog", str(repository.resolve()), token]
    with (repository / LOG).open("ab") as log_file:  # opened again: the server's own file object holds its lock
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log_file, stderr=log_file, start_new_session=True)


def watch(repository: Path, state: ServerState) -> None:
    """Watch the processes of a server's models until the server ends.

    A process that is dead in two looks in a row is reported: one that Triton ended itself disappears in between.
    """
    server = psutil.Process(state.pid)
    scripts: dict[int, Path] = {}
    suspects: set[int] = set()
    while True:
        try:
            server.wait(WATCH_S)
            return
        except psutil.TimeoutExpired:
            dead = _find_dead(server, scripts)
        for script in {scripts.pop(pid) for pid in dead & suspects & scripts.keys()}:
            _load_again(repository, state, script)
        suspects = dead


def _find_dead(server: psutil.Process, scripts: dict[int, Path]) -> set[int]:
    """Return the pids of dead model processes that Triton has not collected.

    Args:
        server: tritonserver.
        scripts: <repository>/<model>/<version>/model.py of each known process, by pid; new processes are added.
    """
    dead = set()
    for process in server.children():
        try:
            script = next((word for word in process.cmdline() if word.endswith("/model.py")), None)
        except psutil.ZombieProcess:
            dead.add(process.pid)
        except psutil.NoSuchProcess:
            continue
        else:
            if script:
                scripts[process.pid] = Path(script)
    return dead


def _load_again(repository: Path, state: ServerState, script: Path) -> None:
    model, version = script.parent.parent.name, script.parent.name
    log(f"csg: the process of {model} version {version} died; loading the model again")
    try:
        script.touch()
        if state.control == "explicit":
            load_model(repository, state, model, int(version))
    except (OSError, CsgError) as error:
        log(f"csg: {model} could not be loaded again: {error}")


if __name__ == "__main__":
    found = read_state(Path(sys.argv[1]))
    if found and found.token == sys.argv[2]:
        with suppress(psutil.NoSuchProcess):  # the server has already ended
            watch(Path(sys.argv[1]), found)
