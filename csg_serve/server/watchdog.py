"""Beside a tritonserver: loads a model again whose Python process died, for example by the kernel, out of memory.

Triton 2.51 does not. It goes on to call such a model ready, fails each of its requests, and does not even load it again
when asked, as long as none of its files has changed.

    python -m csg_serve.server.watchdog REPOSITORY TOKEN     # TOKEN: on the command lines of the server's processes
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from csg.console import log
from csg.errors import CsgError
from csg_serve.server.state import LOG, load, read_state

LOOK_S = 1


def start_guard(repository: Path, token: str) -> None:
    """Have a process of its own guard the server that runs on a repository; it ends with it."""
    command = [sys.executable, "-m", "csg_serve.server.watchdog", str(repository.resolve()), token]
    with (repository / LOG).open("ab") as log_file:  # opened anew: the server's own holds a lock to its end
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log_file, stderr=log_file, start_new_session=True)


def guard(repository: Path, state: dict[str, Any]) -> None:
    """Look after the processes of a server's models until it ends."""
    server = psutil.Process(state["pid"])
    scripts: dict[int, Path] = {}
    suspects: set[int] = set()
    while True:
        try:
            server.wait(LOOK_S)
            return
        except psutil.TimeoutExpired:
            dead = _look(server, scripts)
        for script in {scripts.pop(pid) for pid in dead & suspects & scripts.keys()}:
            _load_again(repository, state, script)
        suspects = dead


def _look(server: psutil.Process, scripts: dict[int, Path]) -> set[int]:
    """Which processes are dead, for Triton to take leave of; of one that it has ended itself it does so in a moment.

    Args:
        scripts: of each process known, <repository>/<model>/<version>/model.py; filled.
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


def _load_again(repository: Path, state: dict[str, Any], script: Path) -> None:
    model, version = script.parent.parent.name, script.parent.name
    log(f"csg: the process of {model} version {version} died; the model is loaded again")
    try:
        script.touch()
        if state["control"] == "explicit":
            load(repository, state, model, int(version))
    except (OSError, CsgError) as error:
        log(f"csg: {model} is not loaded again: {error}")


if __name__ == "__main__":
    found = read_state(Path(sys.argv[1]))
    if found and found["token"] == sys.argv[2]:
        with suppress(psutil.NoSuchProcess):  # ended already
            guard(Path(sys.argv[1]), found)
