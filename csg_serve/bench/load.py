"""Generate load on a served model: requests prepared in advance, sent by callers that each wait for their answer.

A request is serialised once, and its answer is not parsed: the client shares the machine's cores with the server, and
must use as few of them as possible.

Shape letters: N images, H W height and width of the model's input.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from tritonclient.grpc.service_pb2 import ModelInferRequest, ModelInferResponse

from csg.errors import ServerError, UsageError, one_line
from csg_serve.client.connection import ServedModel, inference_of
from csg_serve.client.endpoints import Servers, as_servers
from csg_serve.client.grpc_transport import grpc_credentials, inference_answer
from csg_serve.client.pool import wrong_answer
from csg_serve.client.proxies import place, proxy_hint, proxy_option
from csg_serve.client.transport import NOT_TRITON, TransportError
from csg_serve.triton.protocol import GRPC_SECRET_HEADER

INFER_METHOD = "/inference.GRPCInferenceService/ModelInfer"
LIMITS = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", 2**28)]
DEADLINE_S = 300

Send = Callable[[bytes], Awaitable[bytes]]
"""Sends a serialised request, and returns the serialised answer."""


@dataclass(frozen=True)
class LoadResult:
    """Measurements of a period under load."""

    latencies_ms: NDArray[np.float64]
    """Milliseconds from sending each request to its answer, float64 (number of requests,)."""
    seconds: float
    """Length of the period."""
    client_cores: float
    """Cores that the client kept busy."""

    @property
    def requests_per_s(self) -> float:
        """Requests answered per second."""
        return len(self.latencies_ms) / self.seconds

    def percentile(self, percent: float) -> float:
        """Percentile of the latency in milliseconds."""
        return float(np.percentile(self.latencies_ms, percent))


def serialize_request(served: ServedModel, images: NDArray[np.uint8]) -> bytes:
    """The request for prepared images, uint8 (N, H, W, 3), as it is sent over gRPC."""
    request = ModelInferRequest(model_name=served.name, model_version=str(served.version))
    request.inputs.add(name=served.card.input.name, datatype=served.card.input.dtype, shape=images.shape)
    request.outputs.add(name=served.card.outputs[0].name)
    request.raw_input_contents.append(images.tobytes())
    return bytes(request.SerializeToString())


def parse_logits(served: ServedModel, images: NDArray[np.uint8], answer: bytes) -> NDArray[Any]:
    """The logits in a serialised answer, float32 (N, K).

    Raises:
        ServerError: it is no answer to a request of these images.
    """
    try:
        found = inference_answer(ModelInferResponse.FromString(answer))
        return inference_of(served, images, (len(served.card.classes),)).check(found, served.version, None)
    except DecodeError:
        raise wrong_answer(served.server, NOT_TRITON) from None
    except TransportError as error:
        raise wrong_answer(served.server, error.detail) from None


@asynccontextmanager
async def open_sender(server: str | Servers) -> AsyncIterator[Send]:
    """Connect over gRPC; several servers get the requests in turn.

    Raises:
        UsageError: an address is malformed, or is one of HTTP.
        ServerError: a server is gone, took too long, or refuses a request.
    """
    servers = as_servers(server)
    headers = tuple(servers.secret_header(GRPC_SECRET_HEADER).items())
    async with AsyncExitStack() as stack:
        endpoints = []
        for address in servers.addresses:
            if address.http:
                raise UsageError(f"{address} is an HTTP address", "give the address of the gRPC endpoint")
            options = [*LIMITS, *proxy_option(address).items()]
            channel = grpc.aio.insecure_channel(address.target, options=options)
            if address.tls:
                channel = grpc.aio.secure_channel(address.target, grpc_credentials(servers), options=options)
            await stack.enter_async_context(channel)
            endpoints.append((address, channel.unary_unary(INFER_METHOD)))
        turns = itertools.cycle(endpoints)

        async def send(request: bytes) -> bytes:
            address, infer = next(turns)
            try:
                answer: bytes = await infer(request, timeout=DEADLINE_S, metadata=headers)
            except grpc.aio.AioRpcError as error:
                detail = one_line(error.details())
                what = f"the server at {place([address])} did not answer: {detail}"
                raise ServerError(what, proxy_hint([address], "see its log")) from None
            return answer

        yield send


async def generate_load(send: Send, requests: Sequence[bytes], concurrency: int, seconds: float) -> LoadResult:
    """Send the requests in turn, with `concurrency` of them in flight, until the time is over."""
    turns, latencies = itertools.cycle(requests), []
    cpu_started, started = time.process_time(), time.perf_counter()

    async def caller() -> None:
        while (sent := time.perf_counter()) < started + seconds:
            await send(next(turns))
            latencies.append(time.perf_counter() - sent)

    callers = [asyncio.create_task(caller()) for _ in range(concurrency)]
    try:
        await asyncio.gather(*callers)
    finally:
        for task in callers:
            task.cancel()
        await asyncio.gather(*callers, return_exceptions=True)
    elapsed = time.perf_counter() - started
    return LoadResult(np.array(latencies) * 1e3, elapsed, (time.process_time() - cpu_started) / elapsed)
