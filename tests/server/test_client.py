"""The client against real Tritons: protocols, TLS, secrets, several servers and their outages, shared memory."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from contextlib import aclosing, asynccontextmanager

import numpy as np
import psutil
import pytest
import trustme
from PIL import Image

import csg_serve.client.connection
import csg_serve.client.pool
import csg_serve.client.transport
from csg.bundle import read_bundle
from csg.errors import InputError, ServerError, UsageError
from csg_serve.client.client import Client, stream
from csg_serve.client.connection import open_model
from csg_serve.client.endpoints import Servers
from csg_serve.client.shared_memory import FOLDER, Region
from csg_serve.repository.deploy import deploy
from csg_serve.triton.deploy_options import DeployOptions
from csg_serve.triton.executable import find_triton
from tests.helpers.cli import csg, refused
from tests.helpers.proxy import Relay
from tests.helpers.tiny_bundle import COLOURS, write_colour_bundle, write_echo_bundle, write_scene_bundle

SECRET = "not-for-everyone"


def regions(pid=None):
    """The shared memory of a client's process: this one's by default."""
    return list(FOLDER.glob(f"csg-client-{pid or os.getpid()}-*"))


@contextlib.contextmanager
def triton(repository, *flags):
    """Addresses of a tritonserver on a repository: HTTP and gRPC."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(3)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        ports = [one.getsockname()[1] for one in sockets]
    found, token = find_triton(), f"csg-test-{os.getpid()}-{ports[0]}-"
    command = [str(found.executable), f"--model-repository={repository}", "--model-control-mode=none", *flags]
    command += [f"--backend-config=python,shm-region-prefix-name={token}"]
    command += [f"--backend-directory={found.backends}"] if found.backends else []
    for name, port in zip(("http", "grpc", "metrics"), ports, strict=True):
        command += [f"--{name}-address=127.0.0.1", f"--{name}-port={port}"]
    with repository.with_suffix(".log").open("wb") as log:
        process = subprocess.Popen(command, env=found.environment, stdout=log, stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", ports[1]), 1):
                break
            time.sleep(0.1)
        yield f"127.0.0.1:{ports[0]}", f"127.0.0.1:{ports[1]}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for left in FOLDER.glob(f"{token}*"):
            left.unlink(missing_ok=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images, certificates, and two repositories that agree in the models colour and scenes, but not in echo.

    The second one takes fewer images at a time.
    """
    root = tmp_path_factory.mktemp("client")
    for name, side in (("one", 4), ("two", 5)):
        write_colour_bundle(root / name / "colour")
        write_scene_bundle(root / name / "scenes")
        write_echo_bundle(root / name / "echo", side=side)
        for model in ("colour", "scenes", "echo"):
            options = DeployOptions(max_batch=4 if (name, model) == ("two", "colour") else None, encoded=False)
            deploy(read_bundle(root / name / model), root / f"repository-{name}", options=options)
    for number, colour in enumerate(COLOURS):
        (root / "colours" / colour).mkdir(parents=True)
        for again in range(10):
            Image.new("RGB", (60 + again, 50), colour).save(root / "colours" / colour / f"{number}-{again}.png")
    ca, other = trustme.CA(), trustme.CA()
    for name, authority in (("ca", ca), ("other-ca", other)):
        authority.cert_pem.write_to_path(root / f"{name}.pem")
    for name, issued in (("server", ca.issue_cert("127.0.0.1")), ("client", ca.issue_cert("client@csg"))):
        issued.private_key_pem.write_to_path(root / f"{name}.key")
        issued.cert_chain_pems[0].write_to_path(root / f"{name}.pem")
    (root / "secret").write_text(f"{SECRET}\n")
    return root


@pytest.fixture(scope="module")
def plain(folder):
    """HTTP and gRPC address of a server that asks for nothing."""
    with triton(folder / "repository-one") as addresses:
        yield addresses


@pytest.fixture(scope="module")
def guarded(folder):
    """HTTP and gRPC address of a server with TLS both ways over gRPC, and a secret."""
    guard = f"model-repository,shared-memory,statistics:csg-secret={SECRET}"
    with triton(
        folder / "repository-two",
        "--grpc-use-ssl-mutual=true",
        f"--grpc-server-cert={folder / 'server.pem'}",
        f"--grpc-server-key={folder / 'server.key'}",
        f"--grpc-root-cert={folder / 'ca.pem'}",
        f"--grpc-restricted-protocol={guard}",
        f"--http-restricted-api={guard}",
    ) as addresses:
        yield addresses


@pytest.fixture
def certificates(folder):
    return {"tls_ca": folder / "ca.pem", "tls_cert": folder / "client.pem", "tls_key": folder / "client.key"}


@pytest.fixture
def images(folder):
    """Thirty images, and the class of each."""
    paths = sorted((folder / "colours").rglob("*.png"), key=lambda path: path.name.rpartition("-")[2])
    return paths, [COLOURS.index(path.parent.name) for path in paths]


@asynccontextmanager
async def relayed(target, **options):
    relay = await Relay(target, **options).open()
    try:
        yield relay
    finally:
        await relay.cut()


def shorten_deadlines(monkeypatch):
    for module in (csg_serve.client.connection, csg_serve.client.transport):
        monkeypatch.setattr(module, "DEADLINE_S", 3)


async def classes_of(answers):
    return [int(answer.argmax()) async for answer in answers]


def test_addresses():
    forms = ("grpc://[::1]:8001", "localhost:8001", "http://127.0.0.2:8000/", "grpcs://10.0.0.1:1", "https://a.b:443")
    found = Servers(forms).addresses
    assert [address.authority for address in found] == [
        "[::1]:8001",
        "localhost:8001",
        "127.0.0.2:8000",
        "10.0.0.1:1",
        "a.b:443",
    ]
    assert [address.local for address in found] == [True, True, True, False, False]
    assert [address.http for address in found] == [False, False, True, False, True]
    assert [address.tls for address in found] == [False, False, False, True, True]
    for nonsense in ("localhost", "localhost:0", "localhost:65536", "ftp://a:1", "a b:1", "http://a:1/b", ""):
        with pytest.raises(UsageError, match="is no server address"):
            _ = Servers((nonsense,)).addresses


@pytest.mark.parametrize("form", ["{1}", "grpc://{1}", "http://{0}", "{1} http://{0}"])
def test_every_protocol_gives_the_same(plain, images, form):
    paths, classes = images
    client = Client(form.format(*plain).split(), "colour")
    assert client.card().classes == COLOURS
    mixed = [str(paths[0]), paths[1].read_bytes(), Image.open(paths[2]), *paths[3:]]
    assert [answer.argmax() for answer in client.predict(mixed)] == classes
    assert not regions()


@pytest.mark.parametrize("form", ["{1}", "http://{0}"])
def test_large_scenes_pass(plain, form):
    """Of different sizes, so that shared memory grows; each map is larger than a message may be by gRPC's own limit."""
    rng = np.random.default_rng(0)
    scenes = [rng.integers(0, 256, (2200, 2000 + 100 * n, 3), dtype=np.uint8) for n in range(3)]
    client = Client(form.format(*plain), "scenes")
    for scene, answer in zip(scenes, client.predict([Image.fromarray(scene) for scene in scenes]), strict=True):
        np.testing.assert_array_equal(answer, scene.argmax(2))
    assert not regions()


def test_a_broken_image_is_told_by_its_number(plain, images):
    with pytest.raises(InputError, match=r"not an image file \(number 2\)"):
        Client(plain[1], "colour").predict([images[0][0], b"broken"])


def test_shared_memory_is_used_and_given_back(plain, images):
    async def ask():
        async with open_model(plain[1], "colour") as served:
            transport = served.pool.members[0].transport
            async with aclosing(stream(served, images[0] * 10)) as answers:
                await anext(answers)
                names = {path.name for path in regions()}
                known = await transport.call("get_system_shared_memory_status", None)
                assert names & set(known.regions)
                await asyncio.sleep(0.5)  # those under way are done, and Triton lets go of regions
                await transport.call("unregister_system_shared_memory", None, "")  # as a restart does
                rest = await classes_of(answers)
            assert {path.name for path in regions()} - names, "new ones took their place"
        async with open_model(plain[1], "colour") as served:  # another process's connection would see the same
            known = await served.pool.members[0].transport.call("get_system_shared_memory_status", None)
            return rest, [name for name in known.regions if f"-{os.getpid()}-" in name]

    rest, left = asyncio.run(ask())
    assert rest == (images[1] * 10)[1:]
    assert not left
    assert not regions()


def test_without_room_there_is_no_region():
    with pytest.raises(OSError):
        Region(2**50)
    assert not regions()


def test_a_server_that_can_not_share_memory_gets_tensors_inline(plain, images, monkeypatch):
    """As another user's server, or one in a container, which does not find what it is to register."""
    monkeypatch.setattr(Region, "__init__", _elsewhere(Region.__init__))
    assert [answer.argmax() for answer in Client(plain[1], "colour").predict(images[0])] == images[1]
    assert not regions()


def _elsewhere(init):
    def make(self, size):
        init(self, size)
        self.name = self.name + "-not-there"

    return make


def test_a_stream_that_is_left_leaves_nothing(plain, images):
    async def ask():
        async with open_model(plain[1], "colour") as served, aclosing(stream(served, images[0] * 50)) as answers:
            await anext(answers)
            assert regions()
        return [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]

    assert not asyncio.run(ask())
    assert not regions()


def test_a_client_that_is_stopped_leaves_no_shared_memory(plain, images, tmp_path):
    (tmp_path / "list.txt").write_text("".join(f"{path} {label}\n" for path, label in zip(*images, strict=True)) * 2000)
    command = ["evaluate", "--server", plain[1], "--model", "colour", "--data", str(tmp_path / "list.txt"), "--json"]
    client = subprocess.Popen([sys.executable, "-m", "csg", *command], stderr=subprocess.PIPE, cwd=tmp_path)
    while not regions(client.pid):
        assert client.poll() is None
        time.sleep(0.01)
    client.send_signal(signal.SIGINT)
    _, words = client.communicate(timeout=60)
    assert client.returncode == 130
    assert b"Traceback" not in words
    assert not regions(client.pid)


KILLED = """
import asyncio, os, pathlib, signal, sys
from csg_serve.client.client import stream
from csg_serve.client.connection import open_model
from csg_serve.client.shared_memory import FOLDER

async def ask(server, path):
    async with open_model(server, "colour") as served:
        assert [answer async for answer in stream(served, [pathlib.Path(path)])]
        assert list(FOLDER.glob(f"csg-client-{os.getpid()}-*"))
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(ask(*sys.argv[1:]))
"""


def test_nor_does_one_that_is_killed(plain, images):
    """Python's resource tracker outlives it for that; it holds standard error too."""
    client = subprocess.Popen([sys.executable, "-c", KILLED, plain[1], images[0][0]], stderr=subprocess.PIPE)
    client.communicate(timeout=60)
    assert client.returncode == -signal.SIGKILL
    assert not regions(client.pid)


def test_a_cut_is_outlived_and_told_once(plain, images, capsys):
    async def ask():
        async with relayed(plain[1]) as relay, open_model(f"127.0.0.1:{relay.port}", "colour") as served:
            async with aclosing(stream(served, images[0] * 20)) as answers:
                found = [int((await anext(answers)).argmax())]
                await relay.cut()
                opened = asyncio.create_task(_later(1.0, relay.open()))
                found += await classes_of(answers)
            await opened
            return found

    assert asyncio.run(ask()) == images[1] * 20
    words = capsys.readouterr().err
    assert words.count("asking again for 60 s") == 1
    assert words.count("answers again") == 1


async def _later(seconds, what):
    await asyncio.sleep(seconds)
    await what


@pytest.mark.parametrize("protocol", ["", "http://"])
def test_a_server_that_stays_away_is_given_up(plain, images, protocol, monkeypatch):
    monkeypatch.setattr(csg_serve.client.pool, "AWAY_S", 1)

    async def ask():
        async with (
            relayed(plain[0 if protocol else 1]) as relay,
            open_model(f"{protocol}127.0.0.1:{relay.port}", "colour") as served,
            aclosing(stream(served, images[0] * 20)) as answers,
        ):
            await anext(answers)
            await relay.cut()
            await classes_of(answers)

    with pytest.raises(ServerError, match=r"the server at .* did not answer.*; see its log"):
        asyncio.run(ask())
    assert not regions()


def test_a_server_that_comes_back_with_another_model_is_not_asked(plain, guarded, images, monkeypatch):
    monkeypatch.setattr(csg_serve.client.pool, "AWAY_S", 2)

    async def ask():
        async with (
            relayed(plain[0]) as relay,
            open_model(f"http://127.0.0.1:{relay.port}", "echo") as served,
            aclosing(stream(served, images[0] * 20)) as answers,
        ):
            await anext(answers)
            await relay.cut()
            rest = asyncio.create_task(classes_of(answers))
            while not served.pool.members[0].back:
                await asyncio.sleep(0.01)
            relay.target = guarded[0].rpartition(":")[::2]
            await relay.open()
            await rest

    with pytest.raises(ServerError, match="it has another model echo now"):
        asyncio.run(ask())


@pytest.mark.parametrize("trouble", ["cut", "stall"])
def test_of_two_servers_one_may_go_and_come_back(plain, images, trouble, monkeypatch, capsys):
    """No minute is waited, no image lost, none answered twice; what came back works again."""
    shorten_deadlines(monkeypatch)
    paths, classes = images[0] * 40, images[1] * 40

    async def ask():
        async with (
            relayed(plain[0]) as relay,
            open_model([plain[1], f"http://127.0.0.1:{relay.port}"], "colour") as served,
        ):
            other = served.pool.members[1]
            async with aclosing(stream(served, paths)) as answers:
                found = [int((await anext(answers)).argmax())]
                assert relay.passed
                if trouble == "cut":
                    await relay.cut()
                relay.stalled = True
                while other.back is None:
                    found.append(int((await anext(answers)).argmax()))
                found += await classes_of(answers)
            assert other.back, "still away"
            relay.stalled = False
            if trouble == "cut":
                await relay.open()
            await other.back
            before = relay.passed
            again = await classes_of(stream(served, paths[:40]))
            assert relay.passed > before
            return found, again

    found, again = asyncio.run(ask())
    assert found == classes
    assert again == classes[:40]


def test_one_of_two_servers_is_enough_to_begin_with(plain, images, folder):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nobody = f"127.0.0.1:{unused.getsockname()[1]}"
    client = Client([nobody, plain[1]], "colour")
    assert [answer.argmax() for answer in client.predict(images[0])] == images[1]
    with pytest.raises(ServerError, match=rf"no Triton answers at {nobody}, http://{nobody}"):
        Client([nobody, f"http://{nobody}"]).card()


def test_several_servers_have_the_same_model(plain, guarded, folder):
    data = ("--data", folder / "colours", "--json")
    two = ("--server", plain[1], "--server", f"http://{guarded[0]}")
    report = csg("evaluate", *two, "--model", "colour", *data)
    assert report.returncode == 0, report.stderr
    assert (json.loads(report.stdout)["images"], json.loads(report.stdout)["accuracy"]) == (30, 1.0)
    with pytest.raises(ServerError, match=rf"echo at {plain[1]} and echo at .*{guarded[0]} are not the same model"):
        Client([plain[1], f"http://{guarded[0]}"], "echo").card()


def test_tls_both_ways(guarded, folder, images, certificates):
    address = guarded[1]
    paths, classes = images
    ca, cert, key = certificates.values()
    files = ("--tls-ca", ca, "--tls-cert", cert, "--tls-key", key)
    done = csg("predict", *paths[:3], "--server", address, "--model", "colour", *files, "--json")
    assert done.returncode == 0, done.stderr
    assert [one["class"] for one in json.loads(done.stdout)["predictions"]] == [COLOURS[n] for n in classes[:3]]
    refused(csg("predict", paths[0], "--server", address), 4, f"no Triton answers at {address}", "--tls-ca")
    for wrong, kind, words in (
        (
            {"tls_cert": None, "tls_key": None},
            ServerError,
            "no Triton answers at .*--tls-cert with --tls-key",
        ),
        ({"tls_ca": folder / "other-ca.pem"}, ServerError, "CERTIFICATE_VERIFY_FAILED.*check --tls-ca"),
        ({"tls_key": None}, UsageError, "go together; give both --tls-cert and --tls-key"),
        ({"tls_ca": folder / "none.pem"}, InputError, r"can't use .*none\.pem for TLS: No such file"),
        ({"tls_key": ca}, InputError, r"can't use .*client\.pem with .*ca\.pem"),
    ):
        with pytest.raises(kind, match=words):
            Client(address, "colour", **{**certificates, **wrong}).card()
    with pytest.raises(UsageError, match="address without TLS"):
        Client(f"grpc://{address}", **certificates).card()


def test_https_in_front_of_http(plain, folder, images):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem", folder / "server.key")

    async def ask(ca):
        async with relayed(plain[0], ssl=context) as relay:
            servers = Servers((f"https://127.0.0.1:{relay.port}",), tls_ca=folder / ca)
            async with open_model(servers, "colour") as served:
                return await classes_of(stream(served, images[0]))

    assert asyncio.run(ask("ca.pem")) == images[1]
    with pytest.raises(ServerError, match=r"(?i)certificate.*check --tls-ca"):
        asyncio.run(ask("other-ca.pem"))


def test_a_secret_is_needed_for_nothing_but_the_list_of_models(guarded, folder, images, certificates):
    """Without it tensors go inline, here with messages larger than gRPC's own limit; with it through shared memory."""
    address, paths = guarded[1], images[0]
    scene = np.random.default_rng(0).integers(0, 256, (2200, 2000, 3), dtype=np.uint8)
    clients = [Client(address, "scenes", **certificates, secret=secret) for secret in (None, "wrong", SECRET)]
    for client in (*clients, Client(f"http://{guarded[0]}", "scenes")):
        np.testing.assert_array_equal(client.predict([Image.fromarray(scene)])[0], scene.argmax(2))
    with pytest.raises(UsageError, match=r"does not say which models it has; name one with --model, or give .* secret"):
        Client(address, **certificates).predict(paths)
    with pytest.raises(ServerError, match="no model nothing ready"):
        Client(address, "nothing", **certificates).predict(paths)
    with pytest.raises(UsageError, match="several csg models: colour, echo, scenes"):
        Client(address, **certificates, secret=SECRET).predict(paths)


def test_the_models_of_each_server(plain, guarded, folder):
    ask = ("models", "--server", plain[1], "--server", f"http://{guarded[0]}")
    refused(csg(*ask), 4, f"the server at http://{guarded[0]} refuses", "--secret-file")
    done = csg(*ask, "--secret-file", folder / "secret", "--json")
    assert done.returncode == 0, done.stderr
    states = json.loads(done.stdout)["models"]
    assert all(one["images"] >= one["requests"] > 0 for one in states if one["model"] == "colour")
    found = {(one["server"], one["model"], one["state"]) for one in states}
    assert found == {
        (address, model, "READY")
        for address in (plain[1], f"http://{guarded[0]}")
        for model in ("colour", "scenes", "echo")
    }


def test_another_server_answers_for_a_model_whose_process_died(plain, guarded, folder, images, monkeypatch):
    """As by the kernel, out of memory: Triton starts no other one. The last test, since the server stays so."""
    shorten_deadlines(monkeypatch)
    monkeypatch.setattr(csg_serve.client.pool, "AWAY_S", 2)
    addresses = [plain[1], f"http://{guarded[0]}"]

    async def ask():
        async with open_model(addresses, "colour") as served, aclosing(stream(served, images[0] * 20)) as answers:
            found = [int((await anext(answers)).argmax())]
            script = f"{folder}/repository-two/colour/1/model.py"
            stubs = [one for one in psutil.process_iter(["cmdline"]) if script in (one.info["cmdline"] or ())]
            assert stubs
            for stub in stubs:
                stub.kill()
            return found + await classes_of(answers)

    assert asyncio.run(ask()) == images[1] * 20
    with pytest.raises(ServerError, match=f"the server at {addresses[1]} did not answer"):
        Client(addresses[1], "colour").predict(images[0])
