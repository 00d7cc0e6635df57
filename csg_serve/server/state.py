"""The server that runs on a model repository, as recorded in the repository.

<repository>/.csg-serve.log     the server's log; locked while one of its processes runs
<repository>/.csg-serve.json    `ServerState`: process, addresses, control mode
<repository>/.csg-serve.secret  the secret of the control API, if it requires one; readable by the owner only
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal

import psutil
from pydantic import Field

from csg.files import atomic_write
from csg.records import Record
from csg_serve.server.options import ENDPOINTS, Control

LOG, STATE, SECRET = ".csg-serve.log", ".csg-serve.json", ".csg-serve.secret"
SHARED_MEMORY = Path("/dev/shm")
REGION = re.compile(r"csg-[0-9a-f]{16}-")
"""Start of the name of a server's region: its token."""
HOME = re.compile(rf"^--model-repository=|/{re.escape(LOG)}$|/[^/]+/[^/]+/model\.py$")
"""What stands before or after the path of the repository on the command lines of a server's processes."""


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

    tls: bool = False
    """Whether gRPC uses TLS."""

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
    return state if state and server_processes(repository, state) else None


def server_processes(repository: Path, state: ServerState) -> list[psutil.Process]:
    """Return the running processes of a repository's server: tritonserver, its Python stubs, and what watches them.

    Their command lines name the token, which no process with a recycled pid has, and the repository: a record that was
    copied with a repository, or written by somebody, leads to no server of another repository.
    """
    home = str(repository.resolve())
    return [process for process, words in _command_lines() if _has_token(words, state.token) and home in _homes(words)]


def main_process(repository: Path, state: ServerState) -> list[psutil.Process]:
    """Return tritonserver's own process while it runs."""
    flag = f"--model-repository={repository.resolve()}"
    return [process for process, words in _command_lines() if _has_token(words, state.token) and flag in words]


def clear_regions() -> None:
    """Remove the shared memory of killed servers: regions that have the token of no running process."""
    running = [words for _, words in _command_lines()]
    for region in SHARED_MEMORY.glob("csg-*"):
        token = REGION.match(region.name)
        if token and not any(_has_token(words, token[0]) for words in running):
            with suppress(OSError):  # another user's, or removed by another start
                region.unlink()


def _command_lines() -> Iterator[tuple[psutil.Process, list[str]]]:
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # ended, a zombie, or another user's
            yield process, process.cmdline()


def _has_token(words: list[str], token: str) -> bool:
    return any(token in word for word in words)


def _homes(words: list[str]) -> set[str]:
    """Return what the words of a command line may name as the repository: as it is, by its log, or by a model."""
    return {HOME.sub("", word) for word in words}
