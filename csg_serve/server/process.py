"""Start of tritonserver: a process that outlives `csg serve`, with a log of bounded size and the most files allowed."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from csg_serve.server import log_keeper


def start_server(
    command: Sequence[str], environment: Mapping[str, str], log_file: IO[bytes], token: str
) -> subprocess.Popen[bytes]:
    """Start tritonserver as the leader of its own process group, so that Ctrl-C reaches csg only.

    Args:
        command: its command line.
        environment: its environment variables.
        log_file: its log, locked: tritonserver and its stubs inherit the lock, and hold it until the last of them ends.
        token: word on the command lines of the server's processes.
    """
    keeper = subprocess.Popen(
        [sys.executable, "-I", log_keeper.__file__, str(Path(log_file.name).resolve()), token],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert keeper.stdin
    with keeper.stdin as output:
        server = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=[log_file.fileno()],
            restore_signals=False,  # SIGPIPE stays ignored: the server survives the keeper of its log
            start_new_session=True,
        )
    with suppress(OSError):  # it has already ended
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (descriptor_limit(), descriptor_limit()))
    return server


def descriptor_limit() -> int:
    """Return how many files and connections a server may have open at a time: the hard limit of this process."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]
