"""The client's retries, against small servers: which server gets a request, and what happens when one fails."""

import asyncio
from contextlib import aclosing

import grpc
import pytest
from PIL import Image

import csg_serve.client.connection
import csg_serve.client.pool
from csg.errors import InputError, ServerError, UsageError
from csg_serve import open_model, stream
from csg_serve.client.connection import IN_FLIGHT
from csg_serve.client.statistics import ModelStatistics, total_statistics
from csg_serve.client.stream import iter_answers
from tests.helpers.small_server import SmallServer, running
from tests.helpers.tiny_bundle import COLOURS, tiny_card

IMAGES = [Image.new("RGB", (40, 40), colour) for colour in COLOURS] * 20
CLASSES = [0, 1, 2] * 20
UNAVAILABLE = (grpc.StatusCode.UNAVAILABLE, "try again")


@pytest.fixture
def short_budget(monkeypatch):
    monkeypatch.setattr(csg_serve.client.pool, "RETRY_BUDGET_S", 0.5)


@pytest.fixture
def short_deadline(monkeypatch):
    monkeypatch.setattr(csg_serve.client.connection, "DEADLINE_S", 1)


def predict(*servers, before=None, model="colour"):
    """The class of each image, through the servers; `before` is called after the first answer."""

    async def run():
        async with (
            running(*servers),
            open_model([server.address for server in servers], model) as served,
            aclosing(stream(served, IMAGES)) as predictions,
        ):
            found = [int((await anext(predictions)).argmax())]
            if before:
                await before()
            return found + [int(prediction.argmax()) async for prediction in predictions]

    return asyncio.run(run())


def test_servers_share_the_requests():
    one, two = SmallServer(), SmallServer()
    one.delay_s = two.delay_s = 0.02
    assert predict(one, two) == CLASSES
    assert min(one.requests, two.requests) > 3
    assert max(one.busiest, two.busiest) <= IN_FLIGHT


def test_a_request_without_an_answer_is_sent_again(capsys):
    server = SmallServer()
    server.failures = [UNAVAILABLE] * 2
    assert predict(server) == CLASSES
    assert capsys.readouterr().err == "", "an outage that is over at the first attempt is not worth a line"


def test_a_restarted_server_gets_the_rest(capsys):
    server = SmallServer()
    server.delay_s = 0.01

    async def restart():
        await server.stop()
        asyncio.get_running_loop().call_later(0.4, lambda: asyncio.ensure_future(server.start()))

    assert predict(server, before=restart) == CLASSES
    logged = capsys.readouterr().err
    assert logged.count("retrying for 60 s") == logged.count("answers again") == 1


def test_a_server_that_stays_away_is_given_up(short_budget):
    server = SmallServer()
    with pytest.raises(ServerError, match=r"the server at .* did not answer: .*; see its log"):
        predict(server, before=server.stop)


def test_a_server_that_takes_too_long_is_left_out_of_a_request(short_deadline):
    slow, fast = SmallServer(), SmallServer()
    slow.delay_s = 3
    assert predict(slow, fast) == CLASSES
    assert slow.requests <= 2 * IN_FLIGHT, "it is down until it answers again"
    with pytest.raises(ServerError, match="did not answer"):
        predict(slow)


def test_a_new_version_of_the_same_model_takes_over():
    server = SmallServer()

    async def redeploy():
        server.versions = [2]

    assert predict(server, before=redeploy) == CLASSES


@pytest.mark.parametrize("smaller", [1, 3, 7])
def test_a_server_that_was_away_may_take_smaller_batches(smaller):
    open_one, away = SmallServer(max_batch=8), SmallServer(max_batch=smaller)

    async def run():
        async with running(open_one, away):
            await away.stop()
            async with open_model([away.address, open_one.address], "colour") as served:
                assert served.max_batch == 8
                await away.start()
                await served.pool.replicas[0].recovery_task
                await open_one.stop()
                return [int(prediction.argmax()) async for prediction in stream(served, IMAGES)], served.max_batch

    assert asyncio.run(run()) == (CLASSES, smaller)


@pytest.mark.parametrize("versions", [[1], [2]], ids=["restarted", "redeployed"])
def test_a_server_may_take_smaller_batches_later(versions):
    """All requests in flight are refused, and sent again in parts."""
    server = SmallServer(max_batch=8)
    server.delay_s = 0.02

    async def replace():
        server.max_batch, server.versions = 3, versions

    assert predict(server, before=replace) == CLASSES


def test_another_model_under_the_name_does_not():
    server = SmallServer()

    async def replace():
        server.card, server.versions = tiny_card().model_copy(update={"classes": ("a", "b", "c")}), [2]

    with pytest.raises(ServerError, match="has another model colour now; start again with the new model"):
        predict(server, before=replace)


def test_a_refused_request_is_not_sent_again():
    server = SmallServer()
    server.failures = [(grpc.StatusCode.INVALID_ARGUMENT, "unexpected shape\nfor input")]
    with pytest.raises(ServerError, match=r"did not answer: .*unexpected shape for input"):
        predict(server)


def test_servers_with_different_models_are_refused():
    one, two = SmallServer(), SmallServer(tiny_card().model_copy(update={"precision_note": "another export"}))
    with pytest.raises(ServerError, match=r"colour at .* and colour at .* are not the same model"):
        predict(one, two)


def test_a_restricted_server_needs_the_name_of_the_model():
    server = SmallServer()
    server.restricted = True
    assert predict(server) == CLASSES
    with pytest.raises(UsageError, match="lists its models only with its secret; name a model with --model"):
        predict(server, model=None)
    server.versions = []
    with pytest.raises(ServerError, match=r"has no model colour ready; ready models: none"):
        predict(server)


def test_an_unreadable_image_has_its_own_answer():
    broken = [IMAGES[0], b"broken", IMAGES[2]]

    async def run():
        server = SmallServer()
        async with running(server), open_model(server.address) as served:
            return [answer async for answer in iter_answers(served, broken)]

    first, second, third = asyncio.run(run())
    assert isinstance(second.prediction, InputError)
    assert [first.index, second.index, third.index] == [0, 1, 2]
    assert [first.prediction.argmax(), third.prediction.argmax()] == [0, 2]
    assert first.request_s == third.request_s > 0


def test_unordered_answers_do_not_wait_for_a_slow_server():
    slow, fast = SmallServer(), SmallServer()
    slow.delay_s = 0.5

    async def run():
        async with running(slow, fast), open_model([slow.address, fast.address]) as served:
            return [answer async for answer in iter_answers(served, IMAGES, ordered=False)]

    answers = asyncio.run(run())
    assert fast.requests > slow.requests, "the server with fewer requests in flight gets the next one"
    indices = [answer.index for answer in answers]
    assert sorted(indices) == list(range(len(IMAGES)))
    assert indices != sorted(indices)
    assert [CLASSES[answer.index] for answer in answers] == [int(answer.prediction.argmax()) for answer in answers]


def test_statistics_are_summed_over_the_servers():
    async def run():
        one, two = SmallServer(), SmallServer()
        one.requests, two.requests = 3, 4
        async with running(one, two), open_model([one.address, two.address]) as served:
            return await total_statistics(served.pool, served.name, served.version)

    assert asyncio.run(run()).images == 7


def test_statistics_add_subtract_and_average():
    before = ModelStatistics(requests=1, images=2, executions=1, queue_ns=1_000_000, compute_ns=2_000_000)
    after = before + ModelStatistics(requests=2, images=6, executions=2, queue_ns=4_000_000, compute_ns=1_000_000)
    difference = after - before
    assert (difference.queue_ms, difference.compute_ms, difference.mean_batch) == (2.0, 0.5, 3.0)
    assert (ModelStatistics().queue_ms, ModelStatistics().mean_batch) == (None, 0.0)
