"""Connect to one or several Triton servers: find the model, check that all serve the same one, send a request.

Shape letters: N images, H W height and width of the model's input.
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
from csg_serve.client.pool import Pool, ReplacedError, Replica
from csg_serve.client.shared_memory_pool import SharedMemoryPool
from csg_serve.client.statistics import read_statistics
from csg_serve.client.transport import DEADLINE_S, Inference, Transport, TransportError, connect
from csg_serve.triton.config import CARD_PARAMETER, card_of

FIND_ATTEMPTS = 3
"""Attempts to find a model: it may be replaced between two questions to the server."""
SEGMENTATION_DEADLINE_S = 300
"""Deadline of a request to a segmenter: a large image takes seconds on a CPU, and waits for the ones before it."""
SECRET_HINT = "give the server's secret with --secret-file or CSG_SECRET"


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
    max_batch: int
    """Images that a request may have on all servers."""


@dataclass(frozen=True)
class _Found:
    """What one server has."""

    address: Address
    name: str
    version: int
    card: ModelCard
    max_batch: int


@asynccontextmanager
async def open_model(server: str | Sequence[str] | Servers, model: str | None = None) -> AsyncIterator[ServedModel]:
    """Connect to one or several servers, and find a model.

    If one of several servers does not answer, it gets requests as soon as it does.

    Args:
        server: address of the server, or of several servers of the same model: HOST:PORT (gRPC), grpcs://HOST:PORT,
            http://HOST:PORT or https://HOST:PORT; with TLS files or a secret as `Servers`.
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
        transports = [connect(address, servers) for address in servers.addresses]
        for transport in transports:
            stack.push_async_callback(transport.close)
        searches = (
            _find(transport, address, model) for transport, address in zip(transports, servers.addresses, strict=True)
        )
        found = await asyncio.gather(*searches, return_exceptions=True)
        first = _common_model(servers, found)
        pool = Pool(
            _replica(transport, address, answer, first)
            for transport, address, answer in zip(transports, servers.addresses, found, strict=True)
        )
        stack.push_async_callback(pool.close)
        for replica, answer in zip(pool.replicas, found, strict=True):
            if isinstance(answer, TransportError):
                pool.mark_down(replica, answer.detail)
        max_batch = min(answer.max_batch for answer in found if isinstance(answer, _Found))
        yield ServedModel(
            server=str(servers),
            pool=pool,
            name=first.name,
            version=first.version,
            card=first.card,
            max_batch=max_batch,
        )


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


async def infer(served: ServedModel, images: NDArray[np.uint8], row: tuple[int, ...]) -> NDArray[Any]:
    """Send one request.

    While no server answers, it waits for one up to a minute, and sends the request again.

    Args:
        served: the model.
        images: pixels, uint8 (N, H, W, 3), prepared as the card says.
        row: expected shape of the first output for one image.

    Returns:
        the first output, (N, *row).

    Raises:
        ServerError: as `csg_serve.client.pool.Pool.infer`, or the answer has another shape.
    """
    spec, output = served.card.input, served.card.outputs[0]
    deadline = SEGMENTATION_DEADLINE_S if isinstance(spec, SegmentationInput) else DEADLINE_S
    inference = Inference(
        model=served.name,
        input=spec.name,
        tensor=images,
        output=output.name,
        dtype=output.dtype,
        row=row,
        deadline_s=deadline,
    )
    answer = await served.pool.infer(inference)
    if answer.shape != inference.shape:
        what = f"model {served.name} answered {len(images)} images with {output.name} of shape {answer.shape}"
        raise ServerError(f"{what}, not {inference.shape}", "deploy its bundle again")
    return answer


async def repository_index(transport: Transport) -> list[Any]:
    """Triton's repository index: name, version, state and reason of every version that it knows.

    Raises:
        TransportError: of kind "restricted" if the index requires a secret.
    """
    index = await transport.call("get_model_repository_index", service_pb2.RepositoryIndexResponse)
    return list(index.models)


def _replica(transport: Transport, address: Address, found: _Found | BaseException, first: _Found) -> Replica:
    async def check() -> int:
        again = await _find(transport, address, first.name)
        if again.card != first.card:
            raise ReplacedError(f"{address} has another model {first.name} now", "start again with the new model")
        return again.version

    version = found.version if isinstance(found, _Found) else first.version
    memory = SharedMemoryPool(transport, address.local)
    return Replica(address, transport, memory, check=check, version=version)


def _common_model(servers: Servers, found: Sequence[_Found | BaseException]) -> _Found:
    """The model of the first server that answered, after checking that the other ones have the same."""
    failures = [answer for answer in found if isinstance(answer, BaseException)]
    for failure in failures:
        if not isinstance(failure, TransportError):
            raise failure
    models = [answer for answer in found if isinstance(answer, _Found)]
    if not models:
        assert isinstance(failures[0], TransportError)
        raise _no_answer(servers.addresses, failures[0])
    for model in models:
        if (model.name, model.card) != (models[0].name, models[0].card):
            raise _different(model, models[0])
    return models[0]


async def _find(transport: Transport, address: Address, model: str | None) -> _Found:
    """The named model of a server, or the only csg model there, its newest ready version and its card."""
    for _ in range(FIND_ATTEMPTS - 1):
        try:
            return await _find_once(transport, address, model)
        except TransportError as error:
            if error.kind != "missing":  # the version was replaced between two calls
                raise
    return await _find_once(transport, address, model)


async def _find_once(transport: Transport, address: Address, model: str | None) -> _Found:
    ready = await _ready_versions(transport, address, model)
    names = [model] if model in ready else sorted(ready)
    configs = {name: await _configuration(transport, name, ready[name]) for name in names}
    ours = [name for name, config in configs.items() if CARD_PARAMETER in config.parameters]
    name = _choose(address, model, sorted(ready), ours)
    card = card_of(configs[name], f"model {name} at {address}")
    max_batch = max(1, configs[name].max_batch_size)
    return _Found(address, name=name, version=ready[name], card=card, max_batch=max_batch)


async def _ready_versions(transport: Transport, address: Address, model: str | None) -> dict[str, int]:
    """The newest ready version of each model, from the statistics, since the index may require a secret.

    If the statistics require one too, the version of the named model from its metadata.
    """
    try:
        ready = list(await read_statistics(transport))
    except TransportError as error:
        if error.kind != "restricted":
            raise
        if model is None:
            what = f"the server at {address} lists its models only with its secret"
            raise UsageError(what, f"name a model with --model, or {SECRET_HINT}") from None
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
    """The model to use. `ready`: names of all ready models; `ours`: names of those with a model card."""
    if wanted is not None and wanted not in ready:
        raise ServerError(
            f"the server at {address} has no model {wanted} ready", f"ready models: {', '.join(ready) or 'none'}"
        )
    if not ours:
        what = "no csg model" if wanted is None else f"{wanted} without a model card"
        raise ServerError(f"the server at {address} has {what}", "deploy a bundle with `csg deploy`")
    if len(ours) > 1:
        raise UsageError(f"the server at {address} has several csg models: {', '.join(ours)}", "name one with --model")
    return ours[0]


def _different(one: _Found, other: _Found) -> ServerError:
    names = f"{other.name} at {other.address} and {one.name} at {one.address}"
    return ServerError(f"{names} are not the same model", "deploy one bundle to both, or use one of them")


def _no_answer(addresses: Sequence[Address], error: TransportError) -> ServerError:
    """The error if no server answers, or all refuse."""
    names = ", ".join(map(str, addresses))
    if error.kind == "restricted":
        return ServerError(f"the server at {names} refuses: {error.detail}", SECRET_HINT)
    hint = "start one with `csg serve`, or give its gRPC address with --server HOST:PORT"
    if any(address.tls for address in addresses):
        hint = "check --tls-ca, and --tls-cert with --tls-key if it requires a client certificate"
    elif "Socket closed" in error.detail or error.kind == "refused":
        hint = "check that the port belongs to this protocol, and give --tls-ca if the server uses TLS"
    return ServerError(f"no Triton answers at {names}: {error.detail}", hint)
