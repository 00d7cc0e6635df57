"""The client when servers go away, stall, and come back."""

import asyncio
import socket
from contextlib import aclosing

import psutil
import pytest

import csg_serve.client.connection
import csg_serve.client.pool
import csg_serve.client.transport
from csg.errors import ServerError
from csg_serve import Client, open_model, stream
from tests.helpers.client import classes_of, regions, relayed, shorten_deadlines
from tests.helpers.tiny_bundle import COLOURS

pytestmark = pytest.mark.server


def test_an_outage_is_survived_and_logged_once(plain, images, capsys):
    async def run():
        async with relayed(plain[1]) as relay, open_model(f"127.0.0.1:{relay.port}", "colour") as served:
            async with aclosing(stream(served, images[0] * 20)) as answers:
                found = [int((await anext(answers)).argmax())]
                await relay.cut()
                opened = asyncio.create_task(_later(1.0, relay.open()))
                found += await classes_of(answers)
            await opened
            return found

    assert asyncio.run(run()) == images[1] * 20
    logged = capsys.readouterr().err
    assert logged.count("retrying for 60 s") == 1
    assert logged.count("answers again") == 1


async def _later(seconds, what):
    await asyncio.sleep(seconds)
    await what


@pytest.mark.parametrize("protocol", ["", "http://"])
def test_a_server_that_stays_away_is_given_up(plain, images, protocol, monkeypatch):
    monkeypatch.setattr(csg_serve.client.pool, "RETRY_BUDGET_S", 1)

    async def run():
        async with (
            relayed(plain[0 if protocol else 1]) as relay,
            open_model(f"{protocol}127.0.0.1:{relay.port}", "colour") as served,
            aclosing(stream(served, images[0] * 20)) as answers,
        ):
            await anext(answers)
            await relay.cut()
            await classes_of(answers)

    with pytest.raises(ServerError, match=r"the server at .* did not answer.*; see its log"):
        asyncio.run(run())
    assert not regions()


def test_a_server_that_comes_back_with_another_model_gets_no_requests(plain, guarded, images, monkeypatch):
    monkeypatch.setattr(csg_serve.client.pool, "RETRY_BUDGET_S", 2)

    async def run():
        async with (
            relayed(plain[0]) as relay,
            open_model(f"http://127.0.0.1:{relay.port}", "echo") as served,
            aclosing(stream(served, images[0] * 20)) as answers,
        ):
            await anext(answers)
            await relay.cut()
            rest = asyncio.create_task(classes_of(answers))
            while not served.pool.replicas[0].recovery_task:
                await asyncio.sleep(0.01)
            relay.target = guarded[0].rpartition(":")[::2]
            await relay.open()
            await rest

    with pytest.raises(ServerError, match="has another model echo now"):
        asyncio.run(run())


@pytest.mark.parametrize("trouble", ["cut", pytest.param("stall", marks=pytest.mark.slow)])
def test_one_of_two_servers_may_go_away_and_come_back(plain, images, trouble, monkeypatch):
    """The other one continues at once, every image gets one answer, and the returned server gets requests again."""
    shorten_deadlines(monkeypatch)
    paths, classes = images[0] * 40, images[1] * 40

    async def run():
        async with (
            relayed(plain[0]) as relay,
            open_model([plain[1], f"http://127.0.0.1:{relay.port}"], "colour") as served,
        ):
            other = served.pool.replicas[1]
            async with aclosing(stream(served, paths)) as answers:
                found = [int((await anext(answers)).argmax())]
                assert relay.passed
                if trouble == "cut":
                    await relay.cut()
                relay.stalled = True
                while other.recovery_task is None:
                    found.append(int((await anext(answers)).argmax()))
                found += await classes_of(answers)
            assert other.recovery_task, "it is still down"
            relay.stalled = False
            if trouble == "cut":
                await relay.open()
            await other.recovery_task
            before = relay.passed
            again = await classes_of(stream(served, paths[:40]))
            assert relay.passed > before
            return found, again

    found, again = asyncio.run(run())
    assert found == classes
    assert again == classes[:40]


def test_one_of_two_servers_is_enough_to_start(plain, images, folder):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nobody = f"127.0.0.1:{unused.getsockname()[1]}"
    with Client([nobody, plain[1]], "colour") as client:
        assert [answer.label for answer in client.predict(images[0])] == [COLOURS[index] for index in images[1]]
    with pytest.raises(ServerError, match=rf"no Triton answers at {nobody}, http://{nobody}"):
        Client([nobody, f"http://{nobody}"]).card()


@pytest.mark.slow
def test_another_server_answers_for_a_model_whose_process_died(plain, guarded, folder, images, monkeypatch):
    """Killed as by the kernel when memory runs out; Triton does not restart it. The last test to use the server."""
    shorten_deadlines(monkeypatch)
    monkeypatch.setattr(csg_serve.client.pool, "RETRY_BUDGET_S", 2)
    addresses = [plain[1], f"http://{guarded[0]}"]

    async def run():
        async with open_model(addresses, "colour") as served, aclosing(stream(served, images[0] * 20)) as answers:
            found = [int((await anext(answers)).argmax())]
            script = f"{folder}/repository-two/colour/1/model.py"
            stubs = [one for one in psutil.process_iter(["cmdline"]) if script in (one.info["cmdline"] or ())]
            assert stubs
            for stub in stubs:
                stub.kill()
            return found + await classes_of(answers)

    assert asyncio.run(run()) == images[1] * 20
    with pytest.raises(ServerError, match=f"the server at {addresses[1]} did not answer"):
        Client(addresses[1], "colour").predict(images[0])
