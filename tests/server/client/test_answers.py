"""The client's answers over every protocol, and its shared memory."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from contextlib import aclosing

import numpy as np
import pytest
from PIL import Image

from csg_serve import Client, open_model, stream
from csg_serve.client.shared_memory import Region
from tests.helpers.client import classes_of, regions
from tests.helpers.tiny_bundle import COLOURS

pytestmark = pytest.mark.server


@pytest.mark.parametrize("form", ["{1}", "grpc://{1}", "http://{0}", "{1} http://{0}"])
def test_every_protocol_gives_the_same_answers(plain, images, form):
    paths, classes = images
    with Client(form.format(*plain).split(), "colour") as client:
        assert client.card().classes == COLOURS
        mixed = [str(paths[0]), paths[1].read_bytes(), Image.open(paths[2]), *paths[3:]]
        assert [answer.label for answer in client.predict(mixed)] == [COLOURS[index] for index in classes]
    assert not regions()


@pytest.mark.parametrize("form", ["{1}", "http://{0}"])
def test_large_images_and_label_maps_are_transferred(plain, form):
    """Three growing sizes need larger regions; each label map exceeds gRPC's default message limit."""
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (2200, 2000 + 100 * n, 3), dtype=np.uint8) for n in range(3)]
    with Client(form.format(*plain), "scenes") as client:
        for pixels, answer in zip(images, client.predict(images), strict=True):
            np.testing.assert_array_equal(answer.mask, pixels.argmax(2))
    assert not regions()


def test_shared_memory_is_used_and_removed(plain, images):
    async def run():
        async with open_model(plain[1], "colour") as served:
            transport = served.pool.replicas[0].transport
            async with aclosing(stream(served, images[0] * 10)) as answers:
                await anext(answers)
                names = {path.name for path in regions()}
                known = await transport.call("get_system_shared_memory_status")
                assert names & set(known.regions)
                await asyncio.sleep(0.5)  # requests in flight are done, and their regions can be unregistered
                await transport.call("unregister_system_shared_memory", "")  # as a restart does
                rest = await classes_of(answers)
            assert {path.name for path in regions()} - names, "new regions replaced them"
        async with open_model(plain[1], "colour") as served:
            known = await served.pool.replicas[0].transport.call("get_system_shared_memory_status")
            return rest, [name for name in known.regions if f"-{os.getpid()}-" in name]

    rest, left = asyncio.run(run())
    assert rest == (images[1] * 10)[1:]
    assert not left
    assert not regions()


def test_a_server_that_cannot_open_shared_memory_gets_tensors_inline(plain, images, monkeypatch):
    """Like a server of another user or in a container, which does not find the region to register."""
    monkeypatch.setattr(Region, "__init__", _under_another_name(Region.__init__))
    answers = Client(plain[1], "colour").predict(images[0])
    assert [answer.label for answer in answers] == [COLOURS[index] for index in images[1]]
    assert not regions()


def _under_another_name(init):
    def make(self, size):
        init(self, size)
        self.name = self.name + "-not-there"

    return make


def test_leaving_a_stream_early_cleans_up(plain, images):
    async def run():
        async with open_model(plain[1], "colour") as served, aclosing(stream(served, images[0] * 50)) as answers:
            await anext(answers)
            assert regions()
        return [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]

    assert not asyncio.run(run())
    assert not regions()


def test_an_interrupted_client_leaves_no_shared_memory(plain, images, tmp_path):
    (tmp_path / "list.txt").write_text("".join(f"{path} {label}\n" for path, label in zip(*images, strict=True)) * 2000)
    command = ["evaluate", "--server", plain[1], "--model", "colour", "--data", str(tmp_path / "list.txt"), "--json"]
    client = subprocess.Popen([sys.executable, "-m", "csg", *command], stderr=subprocess.PIPE, cwd=tmp_path)
    while not regions(client.pid):
        assert client.poll() is None
        time.sleep(0.01)
    client.send_signal(signal.SIGINT)
    _, stderr = client.communicate(timeout=60)
    assert client.returncode == 130
    assert b"Traceback" not in stderr
    assert not regions(client.pid)


KILLED = """
import asyncio, os, pathlib, signal, sys
from multiprocessing import resource_tracker
from csg_serve import open_model, stream
from csg_serve.client.shared_memory import FOLDER

async def run(server, path, tracker):
    async with open_model(server, "colour") as served:
        assert [answer async for answer in stream(served, [pathlib.Path(path)])]
        assert list(FOLDER.glob(f"csg-client-{os.getpid()}-*"))
        if tracker == "too":
            os.kill(resource_tracker._resource_tracker._pid, signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(run(*sys.argv[1:]))
"""


def killed_client(*args):
    client = subprocess.Popen([sys.executable, "-c", KILLED, *args], stderr=subprocess.PIPE)
    client.communicate(timeout=60)
    assert client.returncode == -signal.SIGKILL
    return client.pid


def test_a_killed_client_leaves_no_shared_memory(plain, images):
    """Python's resource tracker, which outlives the client, removes it; `communicate` waits for the tracker too."""
    assert not regions(killed_client(plain[1], images[0][0], "not"))


def test_what_a_client_leaves_that_is_killed_with_its_tracker_is_removed_by_the_next(plain, images):
    pid = killed_client(plain[1], images[0][0], "too")
    assert regions(pid)

    async def known():
        async with open_model(plain[1], "colour") as served:
            assert [answer async for answer in stream(served, images[0][:1])]
            return (await served.pool.replicas[0].transport.call("get_system_shared_memory_status")).regions

    assert not [name for name in asyncio.run(known()) if f"-{pid}-" in name]
    assert not regions(pid)
