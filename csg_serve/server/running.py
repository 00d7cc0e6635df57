"""A running server that a Python program has started."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from csg_serve.server.state import ServerState, server_processes
from csg_serve.server.stop import stop_server


@dataclass(frozen=True)
class RunningServer:
    """A running server. It is stopped by `stop` or at the end of `with`."""

    repository: Path
    """Folder of its model repository."""
    state: ServerState
    """What is recorded of it: process and addresses."""

    @property
    def grpc(self) -> str:
        """HOST:PORT of gRPC, for `csg_serve.Client`."""
        return self.state.grpc

    @property
    def http(self) -> str:
        """HOST:PORT of HTTP."""
        return self.state.http

    @property
    def metrics(self) -> str:
        """HOST:PORT of the metrics."""
        return self.state.metrics

    def stop(self) -> None:
        """Stop the server after it has answered its running requests; one that has ended is left alone."""
        if server_processes(self.repository, self.state):
            stop_server(self.repository, self.state)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
