"""`csg serve --stop` ends the server of its repository, and nothing else."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import urllib.request

import psutil
import pytest

from csg_serve.server.state import LOG, SECRET, SHARED_MEMORY, STATE, ServerState, read_state, write_state
from tests.helpers.cli import csg, refused
from tests.helpers.served import processes_of, serving

pytestmark = pytest.mark.server


def stop(repository):
    return csg("serve", "--stop", "--repository", repository)


@pytest.mark.slow
def test_a_copy_a_forged_record_and_a_recycled_pid_lead_to_no_server(colour_repository, tmp_path):
    """Of a repository next to the served one, above it, and with the start of its name."""
    with serving(colour_repository) as state:
        record = read_state(colour_repository)
        others = [tmp_path / "copy", tmp_path / "repo", colour_repository / "colour", tmp_path]
        shutil.copytree(colour_repository, others[0])
        for other in others:
            other.mkdir(exist_ok=True)
            for changed in ({}, {"pid": 1}, {"pid": os.getpid()}, {"token": f"csg-{16 * 'a'}-"}):
                write_state(other, record.model_copy(update=changed))
                refused(stop(other), 4, "no server runs on")
            (other / STATE).unlink()
        for changed in ({"pid": 1}, {"pid": os.getpid()}):
            write_state(colour_repository, record.model_copy(update={"token": f"csg-{16 * 'a'}-", **changed}))
            refused(stop(colour_repository), 4, "not one of this machine", "stop it there")
        write_state(colour_repository, record)
        assert urllib.request.urlopen(f"http://{state['http']}/v2/models/colour/ready").status == 200
        (tmp_path / "link").symlink_to(colour_repository)
        assert stop(tmp_path / "link").returncode == 0
    assert not processes_of(colour_repository)


def test_a_process_that_speaks_of_a_server_is_not_ended(colour_repository):
    """Such as an editor or a search with the token on its command line."""
    record = made_up()
    write_state(colour_repository, record)
    sleeping = [sys.executable, "-c", "import time; time.sleep(60)", record.token]
    for words in ((), (str(colour_repository / STATE),), (f"--model-repository={colour_repository}2",)):
        with subprocess.Popen([*sleeping, *words]) as process:
            refused(stop(colour_repository), 4, "no server runs on")
            assert process.poll() is None
            process.kill()


@pytest.mark.slow
def test_a_start_clears_the_memory_of_killed_servers_and_of_no_other(colour_repository, tmp_path):
    shutil.copytree(colour_repository, tmp_path / "other")
    with serving(tmp_path / "other"):
        living = read_state(tmp_path / "other").token
        with serving(colour_repository):
            killed = read_state(colour_repository).token
            assert list(SHARED_MEMORY.glob(f"{killed}*"))
            for process in processes_of(colour_repository):
                process.send_signal(signal.SIGKILL)
            psutil.wait_procs(processes_of(colour_repository), 10)
            with serving(colour_repository, "--control", "explicit"):
                assert not list(SHARED_MEMORY.glob(f"{killed}*"))
                assert list(SHARED_MEMORY.glob(f"{living}*"))
                assert (colour_repository / SECRET).exists()


def test_a_server_that_is_not_seen_from_here_is_named_as_such(colour_repository):
    """In another container, on another machine: its lock is all there is to see."""
    with (colour_repository / LOG).open("ab") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        refused(stop(colour_repository), 4, "not one of this machine", "stop it there")
        refused(csg("serve", "--repository", colour_repository), 4, "already runs", "stop it there")


def made_up():
    address = "127.0.0.1:1"
    addresses = {"http": address, "grpc": address, "metrics": address}
    return ServerState(pid=os.getpid(), token=f"csg-{16 * 'b'}-", control="poll", drain_s=1, **addresses)
