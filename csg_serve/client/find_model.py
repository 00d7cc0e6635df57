"""Find a model on a server: its newest ready version and its card."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from tritonclient.grpc.model_config_pb2 import ModelConfig

from csg.card import ModelCard
from csg.errors import ServerError, UsageError
from csg.files import is_name
from csg_serve.client.address import Address
from csg_serve.client.statistics import read_statistics
from csg_serve.client.transport import Transport, TransportError, version_number
from csg_serve.triton.config import CARD_PARAMETER, card_of, encoded_name

FIND_S = 60
"""Seconds that finding a model may take in all."""
FIND_ATTEMPTS = 3
"""Attempts to find a model: it may be replaced between two calls."""
SECRET_HINT = "give the server's secret with --secret-file or CSG_SECRET"


@dataclass(frozen=True)
class FoundModel:
    """A ready model of one server."""

    address: Address
    """Address of the server."""
    name: str
    """Name of the model."""
    version: int
    """Its newest ready version."""
    card: ModelCard
    """Its model card."""
    max_batch: int
    """Images that a request may have."""


async def find_model(transport: Transport, address: Address, model: str | None) -> FoundModel:
    """Find the named model on a server, or the only csg model there.

    Raises:
        TransportError: the server does not answer.
        UsageError: there are several csg models, or the list of models requires a secret.
        ServerError: the server does not have the model ready, or it has no model card.
        InputError: the model card is malformed.
    """
    try:
        async with asyncio.timeout(FIND_S):
            return await _find(transport, address, model)
    except TimeoutError:
        raise TransportError("late", f"its models were not found within {FIND_S} s") from None


async def _find(transport: Transport, address: Address, model: str | None) -> FoundModel:
    for _ in range(FIND_ATTEMPTS - 1):
        try:
            return await _find_once(transport, address, model)
        except TransportError as error:
            if error.kind != "missing":  # the version was replaced between two calls
                raise
    return await _find_once(transport, address, model)


async def _find_once(transport: Transport, address: Address, model: str | None) -> FoundModel:
    ready = dict(await ready_versions(transport, address, model))
    names = [model] if model in ready else sorted(ready)
    configs = {name: await configuration(transport, name, ready[name]) for name in names}
    ours = [name for name, config in configs.items() if CARD_PARAMETER in config.parameters]
    name = _choose(address, model, sorted(ready), ours)
    card = card_of(configs[name], f"model {name} at {address}")
    max_batch = max(1, configs[name].max_batch_size)
    return FoundModel(address, name=name, version=ready[name], card=card, max_batch=max_batch)


async def ready_versions(transport: Transport, address: Address, model: str | None) -> list[tuple[str, int]]:
    """Name and version of all that is ready, sorted; from the statistics, since the index may require a secret.

    Models under names that `csg deploy` does not give, such as paths, are not for csg.

    If the statistics require one too, the versions of the named model and its `<name>_encoded`, from their metadata.

    Raises:
        TransportError: the server does not answer.
        UsageError: no model is named, and the list of models requires a secret.
    """
    try:
        ready = list(await read_statistics(transport))
    except TransportError as error:
        if error.kind != "restricted":
            raise
        if model is None:
            what = f"the server at {address} lists its models only with its secret"
            raise UsageError(what, f"name a model with --model, or {SECRET_HINT}") from None
        ready = await _versions(transport, model) + await _versions(transport, encoded_name(model))
    return sorted((name, version) for name, version in ready if is_name(name))


async def _versions(transport: Transport, model: str) -> list[tuple[str, int]]:
    try:
        metadata = await transport.call("get_model_metadata", model)
    except TransportError as error:
        if error.kind == "missing":
            return []
        raise
    return [(model, version_number(version)) for version in metadata.versions]


async def configuration(transport: Transport, name: str, version: int) -> ModelConfig:
    """The configuration of a model's version, which carries its card.

    Raises:
        TransportError: the server does not answer, or does not have the version.
    """
    answer = await transport.call("get_model_config", name, str(version))
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
