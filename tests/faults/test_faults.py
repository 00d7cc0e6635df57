"""What breaks in production, with the real server: broken images, clients and processes that die, a full disk, two
deployments at once, SIGTERM under load. Each answer is checked, and an evaluation that went through it ends in the
figures of one that did not.
"""

import asyncio
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import psutil
import pytest
import tritonclient.grpc.aio
from PIL import Image
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException

from csg_serve.client.client import Client
from csg_serve.client.shared_memory import FOLDER, PREFIX
from tests.helpers.cli import CSG, FREE_PORTS, csg, csg_process, refused
from tests.helpers.served import deploy, start_in_foreground
from tests.helpers.tiny_bundle import COLOURS, write_colour_bundle

COUNT, BROKEN_EVERY = 10_000, 20  # 5 % of them
DISK = 16 * 2**20
OWN = ("images_per_s", "latency_ms", "folder", "version", "skipped")  # of one evaluation and not of another


def png(colour, size=(6, 5)):
    stream = io.BytesIO()
    Image.new("RGB", size, colour).save(stream, "PNG")
    return stream.getvalue()


GOOD = [png(colour) for colour in COLOURS]
BROKEN = [b"", b"hello", GOOD[0][:40], GOOD[1][:45], GOOD[2][:45] + b"\0" * 20]


def broken(number):
    return number % BROKEN_EVERY == 7


def files_of_requests():
    for number in range(COUNT):
        yield BROKEN[number // BROKEN_EVERY % len(BROKEN)] if broken(number) else GOOD[number % 3]


class Served:
    """A repository on a small disk of its own, where one may be mounted, and `csg serve` in the foreground on it."""

    def __init__(self, root):
        self.root, self.repository, self.bundle = root, root / "disk" / "repository", root / "bundle"
        self.ports = FREE_PORTS
        (root / "disk").mkdir()
        self.mounted = not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "none", root / "disk"], stderr=subprocess.DEVNULL
        ).returncode
        write_colour_bundle(self.bundle)
        deploy(self.bundle, self.repository)

    def start(self):
        self.process = start_in_foreground(self.repository, "--drain-seconds", 3, *self.ports)
        self.state = json.loads((self.repository / ".csg-serve.json").read_text())
        self.grpc, self.http = self.state["grpc"], self.state["http"]
        self.ports = [w for n in ("http", "grpc", "metrics") for w in (f"--{n}-port", self.state[n].split(":")[1])]

    def end(self):
        """SIGTERM: the exit code, and what was said."""
        self.process.send_signal(signal.SIGTERM)
        _, words = self.process.communicate(timeout=60)
        return self.process.returncode, words

    def remove(self):
        if self.process.poll() is None:
            self.end()
        csg("serve", "--stop", "--repository", self.repository)
        if self.mounted:
            subprocess.run(["umount", "--lazy", self.root / "disk"], check=True)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    found = Served(tmp_path_factory.mktemp("faults"))
    try:
        found.start()
        yield found
    finally:
        found.remove()


@pytest.fixture(scope="module")
def lists(tmp_path_factory):
    """List files of 10,000 images, 5 % of them broken, and of the others alone; every tenth is labelled wrong."""
    root = tmp_path_factory.mktemp("images")
    for place, colour in enumerate(COLOURS):
        (root / colour).mkdir()
        files = {"a": GOOD[place], "wrong": GOOD[place - 1]} | {f"broken-{n}": file for n, file in enumerate(BROKEN)}
        for name, file in files.items():
            (root / colour / f"{name}.png").write_bytes(file)
    lines = []
    for number in range(COUNT):
        kind = f"broken-{number // BROKEN_EVERY % len(BROKEN)}" if broken(number) else "a" if number % 11 else "wrong"
        lines.append(f"{COLOURS[number % 3]}/{kind}.png {number % 3}\n")
    (root / "all.txt").write_text("".join(lines))
    (root / "good.txt").write_text("".join(line for line in lines if "broken" not in line))
    return root


def figures(words):
    """Of an evaluation's JSON those that a disturbance may not change."""
    return {name: value for name, value in json.loads(words).items() if name not in OWN}


def evaluate(served, data, out):
    return "evaluate", "--json", "--server", served.grpc, "--model", "colour", "--data", data, "--out", out


@pytest.fixture(scope="module")
def undisturbed(served, lists, tmp_path_factory):
    """The figures of the images that can be read."""
    done = csg(*evaluate(served, lists / "good.txt", tmp_path_factory.mktemp("evaluation") / "one"))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["accuracy"] == pytest.approx(10 / 11, abs=1e-3)
    return figures(done.stdout)


@contextmanager
def evaluating(served, data, out):
    """A running `csg evaluate`, well under way; it has to end well."""
    command = [*CSG, *map(str, evaluate(served, data, out))]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        journal = out / "journal.jsonl"
        while not journal.exists() or journal.read_bytes().count(b"\n") < 200:
            assert process.poll() is None
            time.sleep(0.01)
        yield process
    finally:
        if sys.exc_info()[0]:
            process.kill()


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
    assert counts.inference_stats.success.count + counts.inference_stats.fail.count == COUNT


def test_an_evaluation_of_ten_thousand_images_five_percent_of_them_broken(served, lists, undisturbed, tmp_path):
    done = csg(*evaluate(served, lists / "all.txt", tmp_path / "one"), "--on-unreadable", "skip")
    assert done.returncode == 0, done.stderr
    assert figures(done.stdout) == undisturbed
    assert json.loads(done.stdout)["skipped"] == 500
    said = Counter(line.partition(": ")[0] for line in done.stderr.splitlines())
    assert said["skipped"] == 500
    lines = [json.loads(line) for line in (tmp_path / "one" / "journal.jsonl").read_text().splitlines()]
    skipped = [line["place"] for line in lines if "skipped" in line]
    assert sorted(skipped) == [number for number in range(COUNT) if broken(number)]


def right(served):
    """Whether pixels and files are answered, and rightly."""
    answers = Client(served.grpc, "colour").predict(GOOD)
    with InferenceServerClient(served.grpc) as client:
        tensor = InferInput("encoded", [3, 1], "BYTES")
        tensor.set_data_from_numpy(np.array(GOOD, np.object_)[:, None])
        logits = client.infer("colour_encoded", [tensor], client_timeout=60).as_numpy("logits")
    return [answer.argmax() for answer in answers] == [0, 1, 2] == logits.argmax(1).tolist()


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
    deadline = time.monotonic() + 30
    while server.num_fds() > before + 5:
        assert time.monotonic() < deadline, f"{server.num_fds()} files are open, {before} were"
        time.sleep(0.1)


KILLED = """
import asyncio, io, os, signal, sys
from csg_serve.client.client import stream
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
        return {name for name in client.get_system_shared_memory_status().regions if name.startswith(PREFIX)}


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
    assert [answer.argmax() for answer in Client(address, "colour").predict(GOOD)] == [0, 1, 2]
    assert not known_regions(served)


def content(folder):
    """Every file but those of `csg serve` and of the lock, and the folders without one."""
    files = {f.relative_to(folder): f.read_bytes() for f in folder.rglob("*") if f.is_file() and ".csg" not in f.name}
    return files, {f.relative_to(folder) for f in folder.rglob(".*") if f.is_dir()}


def test_a_disk_that_is_full_at_a_deployment(served):
    """At ever other places on the way: what was there is there, byte for byte, and answers; until there is room."""
    if not served.mounted:
        pytest.skip("no disk can be mounted here")
    before, filler, refusals = content(served.repository), served.root / "disk" / "filler", 0
    deploy = ("deploy", served.bundle, "--repository", served.repository)
    for free in range(0, 200 * 1024, 24 * 1024):
        with filler.open("wb") as file:
            left = os.statvfs(file.fileno())
            os.posix_fallocate(file.fileno(), 0, left.f_bavail * left.f_frsize - free)
        done = csg(*deploy)
        filler.unlink()
        if done.returncode == 0:
            break
        refused(done, 3, "No space left on device; nothing was deployed")
        refusals += 1
        found, hidden = content(served.repository)
        assert {name: found[name] for name in before[0]} == before[0]
        assert hidden == before[1]
        assert right(served)
    assert refusals >= 3
    assert done.returncode == 0, "with as much room as it needs"
    assert Client(served.grpc, "colour").card().name == "colour"
    assert right(served)


def test_deployments_at_once(served):
    """Of one model and of another, in processes of their own: all land, and the later one of the same is served."""
    names = ["colour", "colour", "other"]

    def deploy(name):
        options = ("--name", name, "--repository", served.repository, "--json")
        return csg_process("deploy", served.bundle, *options, *(() if name == "colour" else ("--no-encoded",)))

    with ThreadPoolExecutor(len(names)) as pool:
        done = list(pool.map(deploy, names))
    assert [one.returncode for one in done] == [0] * len(names), [one.stderr for one in done]
    deployed = [(json.loads(one.stdout)["model"], json.loads(one.stdout)["version"]) for one in done]
    newest = max(version for model, version in deployed if model == "colour")
    assert len(set(deployed)) == len(names)
    shown = json.loads(csg("models", "--server", served.grpc, "--json").stdout)["models"]
    ready = {(one["model"], one["version"]) for one in shown if one["state"] == "READY"}
    assert ready == {("colour", newest), ("colour_encoded", newest), ("other", 1)}
    assert not content(served.repository)[1]
    assert right(served)


def test_sigterm_under_load_and_a_new_server(served, lists, undisturbed, tmp_path):
    """What was under way is answered, the rest waits for the next server: no image is lost, none counts twice."""
    with evaluating(served, lists / "good.txt", tmp_path / "one") as client:
        code, words = served.end()
        assert client.poll() is None
        assert (code, "Traceback" in words) == (0, False), words
        served.start()
        out, said = client.communicate(timeout=180)
    assert client.returncode == 0, said
    assert figures(out) == undisturbed
    places = Counter(json.loads(line).get("place") for line in (tmp_path / "one" / "journal.jsonl").open())
    assert places.pop(None) == 1
    assert places == Counter(range(9500))


def processes_of_model(served, name):
    return [
        process
        for process in psutil.Process(served.state["pid"]).children()
        if process.status() != psutil.STATUS_ZOMBIE and f"/{name}/" in " ".join(process.cmdline())
    ]


def test_the_process_of_a_model_is_killed(served, lists, undisturbed, tmp_path):
    """Triton would fail each request from then on; csg serve has the model loaded again, and the evaluation goes on."""
    with evaluating(served, lists / "good.txt", tmp_path / "one") as client:
        process, *_ = processes_of_model(served, "colour")
        process.kill()
        assert client.poll() is None
        out, said = client.communicate(timeout=180)
    assert client.returncode == 0, said
    assert figures(out) == undisturbed
    log = (served.repository / ".csg-serve.log").read_text()
    assert "csg: the process of colour version" in log
    process, *_ = processes_of_model(served, "colour_encoded")
    process.kill()
    deadline = time.monotonic() + 60
    while "csg: the process of colour_encoded version" not in log:
        assert time.monotonic() < deadline
        time.sleep(0.2)
        log = (served.repository / ".csg-serve.log").read_text()
    while True:
        try:
            assert all(right(served) for _ in range(5))
            break
        except InferenceServerException:
            assert time.monotonic() < deadline
