"""Two processes of one training, as `torchrun` starts them, that take one command after another.

They import everything once; `torchrun` itself takes the seconds of three processes for each command.
"""

import contextlib
import multiprocessing
import os
import socket
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from csg.console import stderr
from tests.helpers.cli import Done, csg


@contextlib.contextmanager
def two_processes():
    """A function that runs a csg command in both processes, and returns what they printed together."""
    spawn = multiprocessing.get_context("spawn")
    first, second = (ProcessPoolExecutor(1, spawn, os.chdir, ("/",)) for _ in range(2))
    with first, second:

        def run(*words):
            port, folder = _free_port(), Path.cwd()
            jobs = [pool.submit(_command, rank, port, folder, words) for rank, pool in enumerate((first, second))]
            ended = [job.result(timeout=300) for job in jobs]
            code = max(done.returncode for done in ended)
            return Done(code, "".join(done.stdout for done in ended), "".join(done.stderr for done in ended))

        yield run


def _command(rank, port, folder, words):
    group = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in group.items()} | {"MASTER_ADDR": "127.0.0.1"})
    stderr.quiet = False
    return csg(*words, cwd=folder)


def _free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
