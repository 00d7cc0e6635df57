"""`csg serve --stop`: end the server of a repository, and no other process."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil

from csg.console import log, print_json
from csg.errors import ServerError
from csg.locks import is_locked
from csg_serve.server.state import (
    LOG,
    SECRET,
    STATE,
    ServerState,
    clear_regions,
    main_process,
    running_server,
    server_processes,
)

STUB_EXIT_S = 5
"""Seconds that the Python stubs get to end after tritonserver has."""

STARTED_ELSEWHERE = "it was started in another container, on another machine or under another path: stop it there"


def stop_command(repository: Path, as_json: bool) -> None:
    """Run `csg serve --stop`: stop the server of a repository after it has answered its running requests.

    Raises:
        ServerError: no server runs on the repository, or it is another user's.
    """
    state = running_server(repository)
    if state is None and is_locked(repository / LOG):
        raise ServerError(f"the server on {repository}/ is not one of this machine", STARTED_ELSEWHERE)
    if state is None:
        raise ServerError(f"no server runs on {repository}/", "`csg serve` starts one")
    stop_server(repository, state)
    log(f"stopped the server on {repository}/ (process {state.pid})")
    if as_json:
        print_json({"pid": state.pid, **state.addresses})


def stop_server(repository: Path, state: ServerState) -> None:
    """Send SIGTERM to tritonserver, which finishes its running requests; kill what remains when its time is up.

    Raises:
        ServerError: the server belongs to another user.
    """
    main, processes = partial(main_process, repository, state), partial(server_processes, repository, state)
    try:
        for process in main():
            with suppress(psutil.NoSuchProcess):
                process.terminate()
        if have_ended(main, state.drain_s):
            have_ended(processes, STUB_EXIT_S)
        else:
            log(f"requests were still running after {state.drain_s} s; ending the server anyway")
    except psutil.AccessDenied:
        raise ServerError(f"the server on {repository}/ is another user's", "let that user stop it") from None
    finally:
        _remove(repository, state)


def have_ended(find: Callable[[], list[psutil.Process]], seconds: float) -> bool:
    """Wait for processes to end; return whether all did in time."""
    deadline = time.monotonic() + seconds
    while running := find():
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)
    return not running


def _remove(repository: Path, state: ServerState) -> None:
    """Kill what remains of a server, and remove its files and its shared memory; not those of another user."""
    with suppress(psutil.AccessDenied):
        for process in server_processes(repository, state):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        for file in (STATE, SECRET):
            (repository / file).unlink(missing_ok=True)
        clear_regions()
