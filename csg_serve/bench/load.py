"""Load on a served model: requests made beforehand, sent by callers that each wait for their answer before the next.

A request is sent as the bytes it was made to once, and its answer is not looked into: the client shares the machine's
cores with the server, and must take as little of them as it can.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import grpc
import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc.service_pb2 import ModelInferRequest

from csg.errors import ServerError, UsageError
from csg_serve.client.connection import ServedModel
from csg_serve.client.endpoints import Servers, as_servers
from csg_serve.client.transport import grpc_credentials, secret_header
from csg_serve.triton.protocol import GRPC_SECRET_HEADER

INFER = "/inference.GRPCInferenceService/ModelInfer"
LIMITS = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
DEADLINE_S = 300
Call = Callable[[bytes], Awaitable[bytes]]


@dataclass(frozen=True)
class Spell:
    """A time under load: each request's milliseconds, float64 (N,), from sending it to its answer; how long it was;
    and how many cores the client kept busy.
    """

    latencies_ms: NDArray[np.float64]
    seconds: float
    client_cores: float

    @property
    def per_s(self) -> float:
        """Requests a second."""
        return len(self.latencies_ms) / self.seconds

    def percentile(self, share: float) -> float:
        """Milliseconds within which this share of the requests, in percent, was answered."""
        return float(np.percentile(self.latencies_ms, share))


def request_bytes(served: ServedModel, images: NDArray[np.uint8]) -> bytes:
    """The request for some prepared images, uint8 (N, H, W, 3), as it goes over the wire."""
    request = ModelInferRequest(model_name=served.name, model_version=str(served.version))
    request.inputs.add(name=served.card.input.name, datatype=served.card.input.dtype, shape=images.shape)
    request.outputs.add(name=served.card.outputs[0].name)
    request.raw_input_contents.append(images.tobytes())
    return bytes(request.SerializeToString())


@asynccontextmanager
async def calling(server: str | Servers) -> AsyncIterator[Call]:
    """A function that sends a request's bytes over gRPC and returns its answer's; several servers take turns.

    Raises:
        UsageError: an address is one of HTTP, or malformed.
        ServerError: a server went away, took too long, or refuses the request.
    """
    servers = as_servers(server)
    headers = tuple(secret_header(servers, GRPC_SECRET_HEADER).items())
    async with AsyncExitStack() as stack:
        endpoints = []
        for address in servers.addresses:
            if address.http:
                raise UsageError(f"{address} is an address of HTTP", "give that of the gRPC endpoint")
            channel = grpc.aio.insecure_channel(address.authority, options=LIMITS)
            if address.tls:
                channel = grpc.aio.secure_channel(address.authority, grpc_credentials(servers), options=LIMITS)
            await stack.enter_async_context(channel)
            endpoints.append((address, channel.unary_unary(INFER)))
        turn = itertools.cycle(endpoints)

        async def call(request: bytes) -> bytes:
            address, infer = next(turn)
            try:
                answer: bytes = await infer(request, timeout=DEADLINE_S, metadata=headers)
            except grpc.aio.AioRpcError as error:
                detail = " ".join(str(error.details()).split())
                raise ServerError(f"the server at {address} did not answer: {detail}", "see its log") from None
            return answer

        yield call


async def keep_busy(call: Call, requests: Sequence[bytes], concurrency: int, seconds: float) -> Spell:
    """Send requests, taken in turn, with `concurrency` of them under way until the time is over."""
    turn, latencies = itertools.cycle(requests), []
    cpu, began = time.process_time(), time.perf_counter()

    async def one_after_the_other() -> None:
        while (sent := time.perf_counter()) < began + seconds:
            await call(next(turn))
            latencies.append(time.perf_counter() - sent)

    callers = [asyncio.create_task(one_after_the_other()) for _ in range(concurrency)]
    try:
        await asyncio.gather(*callers)
    finally:
        for caller in callers:
            caller.cancel()
        await asyncio.gather(*callers, return_exceptions=True)
    lasted = time.perf_counter() - began
    return Spell(np.array(latencies) * 1e3, lasted, (time.process_time() - cpu) / lasted)
