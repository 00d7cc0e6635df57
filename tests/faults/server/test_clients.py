"""Broken images, and clients that go away in the middle or are killed."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import psutil
import pytest
import tritonclient.grpc.aio
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException

from csg_serve.client.client import Client
from csg_serve.client.shared_memory import FOLDER, PREFIX
from csg_serve.triton.local import find_local_secret
from csg_serve.triton.protocol import GRPC_SECRET_HEADER
from tests.helpers.broken_images import COUNT, GOOD, broken, files_of_requests
from tests.helpers.cli import csg
from tests.helpers.evaluations import evaluate, figures
from tests.helpers.small_disk import right
from tests.helpers.tiny_bundle import COLOURS

pytestmark = [pytest.mark.server, pytest.mark.slow]


def test_ten_thousand_requests_five_percent_of_them_broken(served):
    """Sixty-four at a time, which share batches: each gets its own answer or its own error."""

    async def ask(client, file):
        tensor = InferInput("encoded", [1, 1], "BYTES")
        tensor.set_data_from_numpy(np.array([[file]], np.object_))
        try:
            return int((await client.infer("colour_encoded", [tensor])).as_numpy("logits").argmax())
        except InferenceServerException as error:
            return error.status(), "image 0 can't be read" in error.message()

    async def ask_all():
        answers, files = [None] * COUNT, enumerate(files_of_requests())

        async def work(client):
            for place, file in files:
                answers[place] = await ask(client, file)

        async with tritonclient.grpc.aio.InferenceServerClient(served.grpc) as client:
            await asyncio.gather(*(work(client) for _ in range(64)))
        return answers

    refusal = ("StatusCode.INVALID_ARGUMENT", True)
    assert asyncio.run(ask_all()) == [refusal if broken(number) else number % 3 for number in range(COUNT)]
    with InferenceServerClient(served.grpc) as client:
        (counts,) = client.get_inference_statistics("colour_encoded").model_stats
    asked = counts.inference_stats.success.count + counts.inference_stats.fail.count
    assert COUNT <= asked < COUNT + 100, "each request once, and the watchdog's golden images"


def test_an_evaluation_of_ten_thousand_images_five_percent_of_them_broken(served, lists, undisturbed, tmp_path):
    done = csg(*evaluate(served, lists / "all.txt", tmp_path / "one"), "--on-unreadable", "skip")
    assert done.returncode == 0, done.stderr
    assert figures(done.stdout) == undisturbed
    assert json.loads(done.stdout)["skipped"] == 500
    said = Counter(line.partition(": ")[0] for line in done.stderr.splitlines())
    assert said["skipped"] == 500
    lines = [json.loads(line) for line in (tmp_path / "one" / "journal.jsonl").read_text().splitlines()]
    skipped = [line["index"] for line in lines if line["kind"] == "skipped"]
    assert sorted(skipped) == [number for number in range(COUNT) if broken(number)]


def http_request(file, stated):
    head = f"POST /v2/models/colour_encoded/infer HTTP/1.1\r\nHost: a\r\nContent-Length: {stated}\r\n"
    head += "Inference-Header-Content-Length: 0\r\nContent-Type: application/octet-stream\r\n\r\n"
    return head.encode() + file


def test_clients_that_go_away_in_the_middle(served):
    """Half a head, half a body, no ear for the answer, another protocol, a call given up: connections are let go of."""
    server = psutil.Process(served.state["pid"])
    assert right(served)
    before = server.num_fds()
    whole = http_request(GOOD[0], len(GOOD[0]))
    cases = [(served.http, part) for part in (whole[:30], http_request(GOOD[0][:20], 10**6), whole, b"\0\xff" * 99)]
    cases += [(served.grpc, part) for part in (whole, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 50)]
    for address, part in cases * 25:
        host, port = address.split(":")
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(part)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # close by a reset

    async def give_up():
        async with tritonclient.grpc.aio.InferenceServerClient(served.grpc) as client:
            tensor = InferInput("encoded", [3, 1], "BYTES")
            tensor.set_data_from_numpy(np.array(GOOD, np.object_)[:, None])
            calls = [asyncio.ensure_future(client.infer("colour_encoded", [tensor])) for _ in range(50)]
            await asyncio.sleep(0.02)
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)

    asyncio.run(give_up())
    assert right(served)
    deadline = time.monotonic() + 120
    while server.num_fds() > before + 5:
        assert time.monotonic() < deadline, f"{server.num_fds()} files are open, {before} were"
        time.sleep(0.1)


KILLED = """
import asyncio, io, os, signal, sys
from csg_serve.client.stream import stream
from csg_serve.client.connection import open_model

async def ask(server, path):
    async with open_model(server, "colour") as served:
        count = 0
        async for answer in stream(served, [open(path, "rb").read()] * 500):
            count += 1
            if count == 100:
                os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(ask(*sys.argv[1:]))
"""


def known_regions(served):
    with InferenceServerClient(served.grpc) as client:
        headers = {GRPC_SECRET_HEADER: find_local_secret("grpc", int(served.grpc.rpartition(":")[2]))}
        regions = client.get_system_shared_memory_status(headers=headers).regions
        return {name for name in regions if name.startswith(PREFIX)}


@pytest.mark.parametrize("protocol", ["", "http://"])
def test_what_killed_clients_leave_does_not_pile_up(served, lists, protocol):
    """kill -9 with requests under way: their regions' files go, the next client has the server let go of the rest."""
    address = f"http://{served.http}" if protocol else served.grpc
    for _ in range(3):
        command = [sys.executable, "-c", KILLED, address, lists / "red" / "a.png"]
        client = subprocess.Popen(command, stderr=subprocess.PIPE)
        _, words = client.communicate(timeout=60)  # Python's resource tracker holds standard error, to its end
        assert client.returncode == -signal.SIGKILL, words
        assert not list(FOLDER.glob(f"{PREFIX}{client.pid}-*"))
        assert 1 <= len(known_regions(served)) <= 4, "of this client; those of the one before are gone"
    assert [answer.label for answer in Client(address, "colour").predict(GOOD)] == [*COLOURS]
    assert not known_regions(served)
