"""The server that runs on a model repository, as recorded in the repository.

<repository>/.csg-serve.log     the server's log; locked while one of its processes runs
<repository>/.csg-serve.json    `ServerState`: process, addresses, control mode
<repository>/.csg-serve.secret  the secret of the control API, if it requires one; readable by the owner only
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import psutil
from pydantic import Field

from csg.files import atomic_write
from csg.records import Record
from csg_serve.server.options import ENDPOINTS, Control

LOG, STATE, SECRET = ".csg-serve.log", ".csg-serve.json", ".csg-serve.secret"


class ServerState(Record):
    """A running server: the content of `<repository>/.csg-serve.json`."""

    schema_version: Literal[1] = 1
    """Version of this file format."""

    pid: int
    """Process id of tritonserver."""

    token: str = Field(pattern=r"^csg-[0-9a-f]{16}-$")
    """Random word on the command lines of the server's processes, and prefix of their shared memory regions."""

    http: str
    """HOST:PORT of the HTTP endpoint."""

    grpc: str
    """HOST:PORT of the gRPC endpoint."""

    metrics: str
    """HOST:PORT of the metrics endpoint."""

    control: Control
    """How the server finds new versions."""

    drain_s: int
    """Seconds that running requests get to finish when the server stops."""

    @property
    def addresses(self) -> dict[str, str]:
        """HOST:PORT of each endpoint, by its name."""
        return {name: getattr(self, name) for name in ENDPOINTS}


def write_state(repository: Path, state: ServerState) -> None:
    """Record the server that runs on a repository."""
    atomic_write(repository / STATE, state.model_dump_json().encode())


def read_state(repository: Path) -> ServerState | None:
    """Return the recorded server, which may have ended since; None if there is no valid record."""
    try:
        return ServerState.model_validate_json((repository / STATE).read_bytes())
    except (OSError, ValueError):  # pydantic's ValidationError is a ValueError
        return None


def running_server(repository: Path) -> ServerState | None:
    """Return the server that runs on a repository, or None."""
    state = read_state(repository)
    return state if state and server_processes(state) else None


def server_processes(state: ServerState) -> list[psutil.Process]:
    """Return the running processes of a server: tritonserver and its Python stubs.

    They are found by the token on their command lines, which no other process with a recycled pid has.
    """
    return [process for process in psutil.process_iter() if _has_token(process, state.token)]


def _has_token(process: psutil.Process, token: str) -> bool:
    try:
        return token in " ".join(process.cmdline())
    except psutil.Error:  # ended, a zombie, or another user's
        return False
