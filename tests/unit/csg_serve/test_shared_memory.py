"""Regions of shared memory."""

import asyncio
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest

from csg_serve.client import shared_memory
from csg_serve.client.shared_memory import FOLDER, Region, remove_dead_regions
from csg_serve.client.shared_memory_pool import SharedMemoryPool
from tests.helpers.client import regions

CLIENT = """
import sys
from multiprocessing import resource_tracker
from csg_serve.client.shared_memory import Region
region = Region(2**16)
print(resource_tracker._resource_tracker._pid, region.name, flush=True)
sys.stdin.read()
region.unlink()
"""


def test_a_region_carries_tensors():
    region = Region(2**16)
    try:
        assert (FOLDER / region.name).stat().st_size == region.size
        tensor = np.arange(12, dtype=np.uint8).reshape(3, 4)
        region.write(tensor)
        read = region.read((2, 4), np.uint8, offset=4)
    finally:
        region.unlink()
    np.testing.assert_array_equal(read, tensor[1:])
    assert not (FOLDER / region.name).exists()
    region.unlink()


def test_more_than_there_is_memory_is_refused_and_leaves_nothing():
    with pytest.raises(OSError):
        Region(2**50)
    assert not regions()


@contextmanager
def client():
    """Another process with a region: the process, its resource tracker, the file."""
    process = subprocess.Popen([sys.executable, "-c", CLIENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        tracker, name = process.stdout.readline().split()
        yield process, int(tracker), FOLDER / name
    finally:
        process.communicate()


def test_the_region_of_a_client_killed_with_its_tracker_is_removed_by_the_next():
    with client() as (killed, tracker, left), client() as (_, _, living):
        own = Region(2**16)
        os.kill(tracker, signal.SIGKILL)
        killed.kill()
        killed.wait()
        assert left.exists()
        remove_dead_regions()
        assert not left.exists()
        assert living.exists()
        assert (FOLDER / own.name).exists()
        own.unlink()
    assert not living.exists()


def test_only_regions_are_removed(tmp_path, monkeypatch):
    """Not what has the name of one and is a link, a folder, a pipe, or another user's, and nothing without memory."""
    monkeypatch.setattr(shared_memory, "FOLDER", tmp_path)
    names = [tmp_path / f"{shared_memory.PREFIX}1-{name}" for name in ("link", "folder", "pipe", "empty", "dead")]
    link, folder, pipe, empty, dead = names
    (tmp_path / "precious").write_bytes(b"1")
    link.symlink_to(tmp_path / "precious")
    folder.mkdir()
    os.mkfifo(pipe)
    empty.touch()
    dead.write_bytes(bytes(2**16))
    other = tmp_path / f"{shared_memory.PREFIX}1-other"
    if os.getuid() == 0:
        other.write_bytes(bytes(2**16))
        os.chown(other, 12345, 12345)
        names.append(other)
    remove_dead_regions()
    assert {path for path in names if path.exists() or path.is_symlink()} == {*names} - {dead}
    assert (tmp_path / "precious").exists()


class Waiting:
    """A transport of which one call lasts until it is let go on."""

    def __init__(self, waits):
        self.waits, self.reached, self.goes_on = waits, asyncio.Event(), asyncio.Event()

    async def call(self, name, *arguments):
        if name == self.waits:
            self.reached.set()
            await self.goes_on.wait()
        return SimpleNamespace(regions={})

    async def infer(self, *arguments):
        await self.call("infer")
        return np.zeros(1)


def begun(waits, then):
    """What `then` does with a pool, its transport and a request that has reached the call `waits`."""

    async def run():
        transport = Waiting(waits)
        pool = SharedMemoryPool(transport, enabled=True)
        request = asyncio.ensure_future(pool.infer(SimpleNamespace(tensor=np.zeros(9), answer_bytes=9), 1))
        await transport.reached.wait()
        assert regions()
        await then(pool, transport, request)

    asyncio.run(run())


@pytest.mark.parametrize("waits", ["register_system_shared_memory", "get_system_shared_memory_status", "infer"])
def test_a_request_that_is_given_up_leaves_no_region(waits):
    async def give_up(pool, transport, request):
        request.cancel()
        await asyncio.gather(request, return_exceptions=True)
        assert not regions()

    begun(waits, give_up)


def test_a_request_that_ends_after_its_client_leaves_no_region():
    async def close(pool, transport, request):
        await pool.close()
        transport.goes_on.set()
        assert (await request).size == 1
        assert not regions()

    begun("infer", close)
