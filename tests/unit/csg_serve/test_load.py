"""The load of `csg bench`, against small servers."""

import asyncio

import grpc
import numpy as np
import pytest

from csg.errors import ServerError, UsageError
from csg_serve import open_model
from csg_serve.bench.load import LoadResult, generate_load, open_sender, parse_logits
from csg_serve.bench.samples import prepare_requests, read_samples
from csg_serve.client.endpoints import Servers
from tests.helpers.small_server import SmallServer, running


def load(*servers, concurrency=3, seconds=0.3):
    """The result of a load on the servers."""

    async def run():
        addresses = tuple(server.address for server in servers)
        async with open_model(addresses, "colour") as served, open_sender(Servers(addresses)) as send:
            requests = prepare_requests(served, read_samples(served.card, ()), 2)
            return await generate_load(send, requests, concurrency, seconds)

    async def with_servers():
        async with running(*servers):
            return await run()

    return asyncio.run(with_servers())


def test_every_request_that_was_answered_is_counted():
    server = SmallServer()
    server.delay_s = 0.01
    result = load(server)
    assert server.requests == len(result.latencies_ms)
    assert server.busiest == 3
    assert result.latencies_ms.min() >= 10
    assert result.seconds >= 0.3


def test_servers_get_the_requests_in_turn():
    one, two = SmallServer(), SmallServer()
    load(one, two)
    assert abs(one.requests - two.requests) <= 1


def test_a_failed_request_ends_the_load():
    server = SmallServer()
    server.failures = [(grpc.StatusCode.INTERNAL, "out of\nmemory")]
    with pytest.raises(ServerError, match=r"did not answer: out of memory; see its log"):
        load(server)


@pytest.mark.parametrize("answer", [b"", b"\xff" * 20, b"\x0a\x06colour"])
def test_what_is_no_answer_is_no_accuracy(answer):
    async def run():
        async with running(server := SmallServer()), open_model(server.address) as served:
            with pytest.raises(ServerError, match=rf"the server at {server.address} answers wrongly: "):
                parse_logits(served, np.zeros((1, 32, 32, 3), np.uint8), answer)

    asyncio.run(run())


def test_http_is_refused():
    async def run():
        async with open_sender("http://localhost:8000"):
            pass

    with pytest.raises(UsageError, match="is an HTTP address; give the address of the gRPC endpoint"):
        asyncio.run(run())


def test_percentiles_and_throughput():
    result = LoadResult(latencies_ms=np.arange(1.0, 102.0), seconds=2.0, client_cores=0.5)
    assert (result.percentile(50), result.percentile(99), result.requests_per_s) == (51, 100, 50.5)
