"""More connections than a server may have open at a time, and the size of its log meanwhile."""

import json
import resource
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import ExitStack, contextmanager

import psutil
import pytest
from PIL import Image

from csg_serve import Client
from csg_serve.server import log_keeper
from csg_serve.server.state import STATE
from tests.helpers.cli import CSG, FREE_PORTS, csg
from tests.helpers.served import processes_of

pytestmark = [pytest.mark.server, pytest.mark.slow]

CONNECTIONS = 1100
LIMITED = (
    "import os, resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, {}); os.execv(sys.argv[1], sys.argv[1:])"
)


@contextmanager
def serving_within(limits, repository, *options):
    """A server started by a `csg serve` with these soft and hard limits of open files; yields its state."""
    command = [sys.executable, "-c", LIMITED.format(limits), *CSG, "serve", "--detach", "--json", *FREE_PORTS]
    command += ["--repository", str(repository), *options]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    try:
        yield json.loads(done.stdout), done.stderr
    finally:
        if (repository / STATE).exists():
            assert csg("serve", "--stop", "--repository", repository).returncode == 0


@contextmanager
def idle_connections(address):
    """More connections than 1,024, which send nothing."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 2 * CONNECTIONS), hard))
    host, port = address.split(":")
    try:
        with ExitStack() as stack:
            for _ in range(CONNECTIONS):
                stack.enter_context(socket.create_connection((host, int(port))))
            yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_soft_limit_is_none(colour_repository):
    """1,100 idle connections under a soft limit of 1,024: the next client is served."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with serving_within((1024, hard), colour_repository) as (state, _):
        assert psutil.Process(state["pid"]).rlimit(resource.RLIMIT_NOFILE) == (hard, hard)
        for address in (state["http"], state["grpc"]):
            with idle_connections(address):
                for server in (state["grpc"], f"http://{state['http']}"):
                    assert Client(server).predict(red()).label == "red"
        assert "Too many open files" not in (colour_repository / ".csg-serve.log").read_text()


def test_out_of_descriptors_a_server_keeps_its_models_and_a_small_log(colour_repository):
    """A hard limit of 1,024, and the keeper of the log killed in between: it serves again when the connections end."""
    with serving_within((1024, 1024), colour_repository, "--control", "explicit") as (state, said):
        assert "at most 1024 files and connections (ulimit -Hn)" in said
        ready = f"http://{state['http']}/v2/models/colour/ready"
        for keeper_killed in (False, True):
            with idle_connections(state["http"]), pytest.raises(OSError):
                time.sleep(3)
                urllib.request.urlopen(ready, timeout=2)
            assert urllib.request.urlopen(ready, timeout=20).status == 200
            assert Client(state["grpc"]).predict(red()).label == "red"
            assert sum(file.stat().st_size for file in colour_repository.glob(".csg-serve.log*")) < 2**20
            if not keeper_killed:
                assert "Too many open files" in (colour_repository / ".csg-serve.log").read_text()
                (keeper,) = [p for p in processes_of(colour_repository) if log_keeper.__file__ in p.cmdline()]
                keeper.kill()


def red():
    return Image.new("RGB", (40, 40), (250, 9, 3))
