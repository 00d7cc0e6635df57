"""A real Triton on a model repository, started and stopped as a user does."""

import json
import subprocess
from contextlib import contextmanager

import psutil

from csg_serve.server.state import STATE
from tests.helpers.cli import CSG, FREE_PORTS, csg, csg_process

SECRET = "only-for-the-operators"
KEY = {"triton-grpc-protocol-csg-secret": SECRET}  # headers of a client that knows it


def deploy(bundle, repository, *options):
    """`csg deploy` of a bundle, which has to succeed; returns the finished command."""
    done = csg("deploy", bundle, "--repository", repository, *options)
    assert done.returncode == 0, done.stderr
    return done


@contextmanager
def serving(repository, *options):
    """A server on a repository while the block runs, or until the block stops it.

    Yields:
        dict: what `csg serve --detach --json` prints: pid and addresses.
    """
    done = csg_process("serve", "--detach", "--json", "--repository", repository, *FREE_PORTS, *options)
    assert done.returncode == 0, done.stderr
    try:
        yield json.loads(done.stdout)
    finally:
        if (repository / STATE).exists():
            stopped = csg("serve", "--stop", "--repository", repository)
            assert stopped.returncode == 0, stopped.stderr


def start_in_foreground(repository, *options):
    """`csg serve` as a process that is ready; the caller ends it. Its standard output and error are pipes."""
    command = [*CSG, "serve", "--json", "--repository", str(repository), *map(str, options)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while "press Ctrl-C" not in (line := process.stderr.readline()):
        assert line, "csg serve ended before it was ready"
    return process


def processes_of(repository):
    """Processes with the repository's path on their command line: tritonserver, its models' and csg's own."""
    return [p for p in psutil.process_iter(["cmdline"]) if str(repository) in " ".join(p.info["cmdline"] or [])]
