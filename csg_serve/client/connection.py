"""Connect to one or several servers of the same model, and send a request.

Shape letters: N images, H W height and width of the model's input.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csg.card import ModelCard, Output, SegmentationInput
from csg.errors import ServerError
from csg.files import validate_name
from csg_serve.client.address import Address
from csg_serve.client.endpoints import Servers, as_servers
from csg_serve.client.find_model import SECRET_HINT, FoundModel, find_model
from csg_serve.client.grpc_transport import GrpcTransport
from csg_serve.client.pool import Pool, ReplacedError, Replica, Serving
from csg_serve.client.proxies import place, proxy_hint
from csg_serve.client.shared_memory_pool import SharedMemoryPool
from csg_serve.client.transport import DEADLINE_S, Inference, Transport, TransportError

SEGMENTATION_DEADLINE_S = 300
"""Deadline of a request to a segmenter: a large image takes seconds on a CPU, and waits for the ones before it."""
IN_FLIGHT = 4
"""Requests in flight for each server."""


@dataclass(frozen=True)
class ServedModel:
    """A ready model of one or several servers, with open connections."""

    server: str
    """Address of the server, or of several."""
    pool: Pool
    """Connections to the servers."""
    name: str
    """Name of the model."""
    version: int
    """Its version on the first server that answered."""
    card: ModelCard
    """Its model card."""

    @property
    def max_batch(self) -> int:
        """Images that a request may have on all servers; one with more is sent in parts."""
        return self.pool.max_batch

    @property
    def in_flight(self) -> int:
        """Requests that are worth sending at the same time: a few for each server."""
        return IN_FLIGHT * len(self.pool.replicas)

    async def infer(
        self, images: NDArray[np.uint8], row: tuple[int, ...], output: Output | None = None
    ) -> NDArray[Any]:
        """Send one request, as `csg_serve.client.model.OpenModel` says.

        While no server answers, it waits for one up to a minute, and sends the request again.

        Raises:
            ServerError: as `csg_serve.client.pool.Pool.infer`.
        """
        return await self.pool.infer(inference_of(self, images, row, output))


@asynccontextmanager
async def open_model(server: str | Sequence[str] | Servers, model: str | None = None) -> AsyncIterator[ServedModel]:
    """Connect to one or several servers, and find a model.

    If one of several servers does not answer, it gets requests as soon as it does.

    Args:
        server: address of the server, or of several servers of the same model: HOST:PORT (gRPC), grpcs://HOST:PORT,
            http://HOST:PORT or https://HOST/PATH; with TLS files or a secret as `Servers`.
        model: name of the model; None for the only csg model on the server.

    Raises:
        UsageError: an address or the name is malformed, or there are several csg models and none was named.
        ServerError: no server answers, one does not have the model ready, or two have different models.
        InputError: the model card is malformed, or a certificate can't be used.

    Example:
        >>> async with open_model("localhost:8001") as served:
        ...     print(served.card.classes)
    """
    if model is not None:
        validate_name(model, "model name")
    servers = as_servers(server)
    async with AsyncExitStack() as stack:
        transports = {address: connect(address, servers) for address in servers.addresses}
        for transport in transports.values():
            stack.push_async_callback(transport.close)
        searches = (find_model(transport, address, model) for address, transport in transports.items())
        found = await asyncio.gather(*searches, return_exceptions=True)
        first = _common_model(servers, found)
        pool = _open_pool(transports, found, first)
        stack.push_async_callback(pool.close)
        yield ServedModel(server=str(servers), pool=pool, name=first.name, version=first.version, card=first.card)


@asynccontextmanager
async def connected(address: Address, servers: Servers) -> AsyncIterator[Transport]:
    """A connection to one server, for calls that concern the server and not a model.

    Raises:
        UsageError, InputError: the certificates can't be used.
        ServerError: no server answers, or it refuses the call.
    """
    transport = connect(address, servers)
    try:
        yield transport
    except TransportError as error:
        raise _no_answer([address], error) from None
    finally:
        await transport.close()


def connect(address: Address, servers: Servers) -> Transport:
    """A connection, which is opened by the first call.

    Raises:
        UsageError, InputError: as `csg_serve.client.endpoints.Servers.ssl_context`.
    """
    if address.http:
        from csg_serve.client.http_transport import HttpTransport  # imports aiohttp, which is slow

        return HttpTransport(address, servers)
    return GrpcTransport(address, servers)


def inference_of(
    served: ServedModel, images: NDArray[np.uint8], row: tuple[int, ...], output: Output | None = None
) -> Inference:
    """The request for prepared images, as `ServedModel.infer` sends it."""
    spec, output = served.card.input, output or served.card.outputs[0]
    return Inference(
        model=served.name,
        input=spec.name,
        tensor=images,
        output=output.name,
        dtype=output.dtype,
        row=row,
        classes=len(served.card.classes),
        deadline_s=SEGMENTATION_DEADLINE_S if isinstance(spec, SegmentationInput) else DEADLINE_S,
    )


def _open_pool(
    transports: Mapping[Address, Transport], found: Sequence[FoundModel | BaseException], first: FoundModel
) -> Pool:
    """The pool of all servers; those that did not answer are marked down."""
    pool = Pool(
        _replica(transport, address, answer, first)
        for (address, transport), answer in zip(transports.items(), found, strict=True)
    )
    for replica, answer in zip(pool.replicas, found, strict=True):
        if isinstance(answer, TransportError):
            pool.mark_down(replica, answer.detail)
    return pool


def _replica(transport: Transport, address: Address, found: FoundModel | BaseException, first: FoundModel) -> Replica:
    async def check() -> Serving:
        again = await find_model(transport, address, first.name)
        if again.card != first.card:
            raise ReplacedError(f"{address} has another model {first.name} now", "start again with the new model")
        return Serving(again.version, again.max_batch)

    known = found if isinstance(found, FoundModel) else first
    memory = SharedMemoryPool(transport, address.local)
    return Replica(address, transport, memory, check=check, serving=Serving(known.version, known.max_batch))


def _common_model(servers: Servers, found: Sequence[FoundModel | BaseException]) -> FoundModel:
    """The model of the first server that answered, after checking that the other ones have the same."""
    failures = [answer for answer in found if isinstance(answer, BaseException)]
    for failure in failures:
        if not isinstance(failure, TransportError):
            raise failure
    models = [answer for answer in found if isinstance(answer, FoundModel)]
    if not models:
        assert isinstance(failures[0], TransportError)
        raise _no_answer(servers.addresses, failures[0])
    for model in models:
        if (model.name, model.card) != (models[0].name, models[0].card):
            raise _different(model, models[0])
    return models[0]


def _different(one: FoundModel, other: FoundModel) -> ServerError:
    names = f"{other.name} at {other.address} and {one.name} at {one.address}"
    return ServerError(f"{names} are not the same model", "deploy one bundle to both, or use one of them")


def _no_answer(addresses: Sequence[Address], error: TransportError) -> ServerError:
    """The error if no server answers, or all refuse."""
    where = place(addresses)
    if error.kind == "restricted":
        return ServerError(f"the server at {where} refuses: {error.detail}", SECRET_HINT)
    hint = "start one with `csg serve`, or give its gRPC address with --server HOST:PORT"
    if error.kind == "redirect":
        hint = "no redirect is followed; give the address that it points to, if the server is there"
    elif any(address.tls for address in addresses):
        hint = "check --tls-ca, and --tls-cert with --tls-key if it requires a client certificate"
    elif "Socket closed" in error.detail or error.kind == "refused":
        hint = "check that the port belongs to this protocol, and give --tls-ca if the server uses TLS"
    return ServerError(f"no Triton answers at {where}: {error.detail}", proxy_hint(addresses, hint))
