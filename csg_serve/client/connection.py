"""A connection to one or several Tritons: which models they have, what they say of them, and one request.

Shape letters: N images, H W of the model's input.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2
from tritonclient.grpc.model_config_pb2 import ModelConfig

from csg.card import ModelCard, SegmentationInput
from csg.errors import ServerError, UsageError
from csg.files import validate_name
from csg_serve.client.endpoints import Address, Servers, as_servers
from csg_serve.client.pool import Member, Pool, ReplacedError
from csg_serve.client.shared_memory_pool import Regions
from csg_serve.client.statistics import read_statistics
from csg_serve.client.transport import DEADLINE_S, Inference, Transport, TransportError, connect
from csg_serve.triton.config import CARD_PARAMETER, card_of

FIND_TRIES = 3
SCENE_DEADLINE_S = 300  # a large scene takes seconds on a CPU, and waits for those before it
SECRET_TODO = "give the server's secret, with --secret-file or CSG_SECRET"


@dataclass(frozen=True)
class ServedModel:
    """A ready model of one or several servers, its card, and the open connections.

    version: on the first server that answered. max_batch: images that a request may have.
    """

    server: str
    pool: Pool
    name: str
    version: int
    card: ModelCard
    max_batch: int


@dataclass(frozen=True)
class _Found:
    address: Address
    name: str
    version: int
    card: ModelCard
    max_batch: int


@asynccontextmanager
async def open_model(server: str | Sequence[str] | Servers, model: str | None) -> AsyncIterator[ServedModel]:
    """Connect to a server, or to several, and find the named model, or the only csg model there.

    A server among several that does not answer gets requests as soon as it does.

    Raises:
        UsageError: an address or the name is malformed, or there are several csg models and none was named.
        ServerError: no server answers, one has no such model ready, or two have different ones.
        InputError: the model's card is malformed, or a certificate can't be used.
    """
    if model is not None:
        validate_name(model, "model name")
    servers = as_servers(server)
    async with AsyncExitStack() as stack:
        transports = [connect(address, servers) for address in servers.addresses]
        for transport in transports:
            stack.push_async_callback(transport.close)
        asked = (_find(*one, model) for one in zip(transports, servers.addresses, strict=True))
        found = await asyncio.gather(*asked, return_exceptions=True)
        first = _agreed(servers, found)
        pool = Pool(_member(*one, first) for one in zip(transports, servers.addresses, found, strict=True))
        stack.push_async_callback(pool.close)
        for member, answer in zip(pool.members, found, strict=True):
            if isinstance(answer, TransportError):
                pool.lose(member, answer.detail)
        max_batch = min(answer.max_batch for answer in found if isinstance(answer, _Found))
        yield ServedModel(str(servers), pool, first.name, first.version, first.card, max_batch)


@asynccontextmanager
async def connected(address: Address, servers: Servers) -> AsyncIterator[Transport]:
    """A connection to one server, for questions about the server itself.

    Raises:
        UsageError, InputError: the certificates can't be used.
        ServerError: no server answers there, or it can't say what it is asked.
    """
    transport = connect(address, servers)
    try:
        yield transport
    except TransportError as error:
        raise _no_answer([address], error) from None
    finally:
        await transport.close()


async def infer(served: ServedModel, images: NDArray[np.uint8], row: tuple[int, ...]) -> NDArray[Any]:
    """One request: uint8 (N, H, W, 3) to the model's first output, (N, *row).

    While no server answers it waits for one, for a minute: inference changes nothing there, and only one answer comes
    back from here.

    Raises:
        ServerError: as `csg_serve.client.pool.Pool.infer`, or the server does not answer as the card says.
    """
    spec, output = served.card.input, served.card.outputs[0]
    deadline = SCENE_DEADLINE_S if isinstance(spec, SegmentationInput) else DEADLINE_S
    inference = Inference(served.name, spec.name, images, output.name, output.dtype, row, deadline)
    answer = await served.pool.infer(inference)
    if answer.shape != inference.shape:
        what = f"model {served.name} answered {len(images)} images with {output.name} of shape {answer.shape}"
        raise ServerError(what, "deploy its bundle again")
    return answer


async def repository_index(transport: Transport) -> list[Any]:
    """Triton's index: name, version, state and reason of every version that it knows.

    Raises:
        TransportError: of kind restricted where that wants a secret.
    """
    index = await transport.call("get_model_repository_index", service_pb2.RepositoryIndexResponse)
    return list(index.models)


def _member(transport: Transport, address: Address, found: _Found | BaseException, first: _Found) -> Member:
    async def check() -> int:
        again = await _find(transport, address, first.name)
        if again.card != first.card:
            raise ReplacedError(f"{address}: it has another model {first.name} now", "start again, with that one")
        return again.version

    version = found.version if isinstance(found, _Found) else first.version
    return Member(address, transport, Regions(transport, address.local), check, version)


def _agreed(servers: Servers, found: Sequence[_Found | BaseException]) -> _Found:
    """What the first server that answers has; the others that do have the same."""
    failures = [answer for answer in found if isinstance(answer, BaseException)]
    for failure in failures:
        if not isinstance(failure, TransportError):
            raise failure
    there = [answer for answer in found if isinstance(answer, _Found)]
    if not there:
        assert isinstance(failures[0], TransportError)
        raise _no_answer(servers.addresses, failures[0])
    for answer in there:
        if (answer.name, answer.card) != (there[0].name, there[0].card):
            raise _different(answer, there[0])
    return there[0]


async def _find(transport: Transport, address: Address, model: str | None) -> _Found:
    """The named model of a server, or the only csg model there, its newest ready version and its card."""
    for _ in range(FIND_TRIES - 1):
        try:
            return await _look(transport, address, model)
        except TransportError as error:
            if error.kind != "missing":  # a version that was replaced between two questions
                raise
    return await _look(transport, address, model)


async def _look(transport: Transport, address: Address, model: str | None) -> _Found:
    ready = await _ready_versions(transport, address, model)
    names = [model] if model in ready else sorted(ready)
    configs = {name: await _configuration(transport, name, ready[name]) for name in names}
    ours = [name for name, config in configs.items() if CARD_PARAMETER in config.parameters]
    name = _choose(address, model, sorted(ready), ours)
    card = card_of(configs[name], f"model {name} at {address}")
    return _Found(address, name, ready[name], card, max(1, configs[name].max_batch_size))


async def _ready_versions(transport: Transport, address: Address, model: str | None) -> dict[str, int]:
    """The newest ready version of each model: by the statistics, since the index may ask for a secret.

    Of the named one alone, by its metadata, where the statistics ask for one too.
    """
    try:
        ready = list(await read_statistics(transport))
    except TransportError as error:
        if error.kind != "restricted":
            raise
        if model is None:
            what = f"the server at {address} does not say which models it has"
            raise UsageError(what, f"name one with --model, or {SECRET_TODO}") from None
        ready = await _versions(transport, model)
    return dict(sorted(ready))


async def _versions(transport: Transport, model: str) -> list[tuple[str, int]]:
    try:
        metadata = await transport.call("get_model_metadata", service_pb2.ModelMetadataResponse, model)
    except TransportError as error:
        if error.kind == "missing":
            return []
        raise
    return [(model, int(version)) for version in metadata.versions]


async def _configuration(transport: Transport, name: str, version: int) -> ModelConfig:
    answer = await transport.call("get_model_config", service_pb2.ModelConfigResponse, name, str(version))
    return answer.config


def _choose(address: Address, wanted: str | None, ready: list[str], ours: list[str]) -> str:
    """The model to use, of the ready ones and those among them that carry a card."""
    if wanted is not None and wanted not in ready:
        raise ServerError(
            f"the server at {address} has no model {wanted} ready", f"it has: {', '.join(ready) or 'none'}"
        )
    if not ours:
        what = "no csg model" if wanted is None else f"{wanted} without a model card"
        raise ServerError(f"the server at {address} has {what}", "put a model there with `csg deploy`")
    if len(ours) > 1:
        raise UsageError(f"the server at {address} has several csg models: {', '.join(ours)}", "name one with --model")
    return ours[0]


def _different(one: _Found, other: _Found) -> ServerError:
    names = f"{other.name} at {other.address} and {one.name} at {one.address}"
    return ServerError(f"{names} are not the same model", "deploy one bundle to both, or ask one of them")


def _no_answer(addresses: Sequence[Address], error: TransportError) -> ServerError:
    """The error for servers none of which did as asked."""
    names = ", ".join(map(str, addresses))
    if error.kind == "restricted":
        return ServerError(f"the server at {names} refuses: {error.detail}", SECRET_TODO)
    hint = "start one with `csg serve`, or name its gRPC address with --server HOST:PORT"
    if any(address.tls for address in addresses):
        hint = "check --tls-ca, and --tls-cert with --tls-key where it asks for a certificate"
    elif "Socket closed" in error.detail or error.kind == "refused":
        hint = "check that this is the port of the protocol asked for, and give --tls-ca where it wants TLS"
    return ServerError(f"no Triton answers at {names}: {error.detail}", hint)
