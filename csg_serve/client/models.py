"""`csg models`: list, load and unload the models of running servers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from csg.console import log, print_json, show_table
from csg.errors import ServerError, one_line
from csg.files import is_name, validate_name
from csg_serve.client.address import Address
from csg_serve.client.connection import connected
from csg_serve.client.endpoints import Servers
from csg_serve.client.find_model import configuration
from csg_serve.client.statistics import ModelStatistics, read_statistics, warm_up_statistics
from csg_serve.client.transport import Transport, TransportError, check_count, version_number
from csg_serve.triton.protocol import LOAD_TIMEOUT_S, triton_message


@dataclass(frozen=True)
class ModelState:
    """A version of a model on one server."""

    model: str
    """Name of the model."""
    version: int
    """Its version; 0 for a model of which no version was loaded."""
    state: str
    """Triton's state: READY, LOADING, UNLOADING or UNAVAILABLE."""
    reason: str
    """Why it is not ready, on one line; empty if it is."""
    statistics: ModelStatistics
    """What it has answered since it was loaded, its warm-up included."""
    warm_up: ModelStatistics
    """Its warm-up, without times."""

    @property
    def answered(self) -> ModelStatistics:
        """What it has answered since it was loaded, without its warm-up; the times still hold it."""
        return self.statistics - self.warm_up if self.statistics.requests >= self.warm_up.requests else self.statistics

    def to_dict(self) -> dict[str, Any]:
        """The keys of `csg models --json`."""
        answered, counted = self.answered, self.statistics
        return {
            "model": self.model,
            "version": self.version,
            "state": self.state,
            "reason": self.reason,
            "images": answered.images,
            "executions": answered.executions,
            "requests": answered.requests,
            "failed": answered.failed,
            "warm_up_images": self.warm_up.images,
            "queue_ms": counted.queue_ms,
            "compute_ms": counted.compute_ms,
        }


def models_command(servers: Servers, load: str | None, unload: str | None, as_json: bool) -> None:
    """Load and unload the named models, then list all models of each server.

    Raises:
        UsageError: an address or a model name is malformed.
        ServerError: a server does not answer, does not load the model, or refuses the secret.
    """
    found = asyncio.run(_change_and_list(servers, load, unload))
    if as_json:
        models = [{"server": str(address), **one.to_dict()} for address, states in found.items() for one in states]
        print_json({"server": str(servers), "models": models})
        return
    for address, states in found.items():
        _show(address, states)


def _show(address: Address, states: list[ModelState]) -> None:
    columns = ("model", "version", "state", "images", "batches", "requests", "failed", "queue ms", "compute ms")
    rows = []
    for one in states:
        answered, counted = one.answered, one.statistics
        counts = (answered.images, answered.executions, answered.requests, answered.failed)
        times = (counted.queue_ms, counted.compute_ms)
        rows.append(
            (
                one_line(one.model, 100),
                str(one.version),
                one_line(one.state, 100) + (f": {one.reason}" if one.reason else ""),
                *map(str, counts),
                *("-" if value is None else f"{value:.2f}" for value in times),
            )
        )
    show_table(f"models at {address}", columns, rows)
    log("counts hold csg's checks of the answers (golden images), and times the warm-up too")


async def _change_and_list(servers: Servers, load: str | None, unload: str | None) -> dict[Address, list[ModelState]]:
    found = await asyncio.gather(*(_states(address, servers, load, unload) for address in servers.addresses))
    return dict(zip(servers.addresses, found, strict=True))


async def _states(address: Address, servers: Servers, load: str | None, unload: str | None) -> list[ModelState]:
    async with connected(address, servers) as transport:
        if load is not None:
            with _refusals(f"{address} does not load {load}"):
                await transport.call("load_model", validate_name(load, "model name"), deadline_s=LOAD_TIMEOUT_S)
        if unload is not None:
            with _refusals(f"{address} does not unload {unload}"):
                await transport.call("unload_model", validate_name(unload, "model name"))
        index = await _index(transport, address, servers.secret)
        statistics = await read_statistics(transport)
        warm_up = {found: await _warm_up(transport, *found) for found in statistics if is_name(found[0])}
    strays = sorted(one.name for one in index if not one.state)
    if strays:
        log(f"passed over at {address}, no model: {', '.join(strays)}")
    entries = {(one.name, version_number(one.version or "0")): one for one in index if one.state}
    return [
        ModelState(
            model=model,
            version=version,
            state=entries[model, version].state if (model, version) in entries else "READY",
            reason=triton_message(entries[model, version].reason) if (model, version) in entries else "",
            statistics=statistics.get((model, version), ModelStatistics()),
            warm_up=warm_up.get((model, version), ModelStatistics()),
        )
        for model, version in sorted(entries.keys() | statistics.keys())
    ]


async def _warm_up(transport: Transport, model: str, version: int) -> ModelStatistics:
    try:
        return warm_up_statistics(await configuration(transport, model, version))
    except TransportError as error:
        if error.kind != "missing":  # unloaded, or replaced between two calls
            raise
        return ModelStatistics()


async def _index(transport: Transport, address: Address, secret: str | None) -> list[Any]:
    """Triton's index; empty if it requires a secret and none was given, since the statistics list ready models."""
    try:
        listed = list((await transport.call("get_model_repository_index")).models)
        check_count(listed)
        return listed
    except TransportError as error:
        if error.kind != "restricted":
            raise
        if secret:
            raise ServerError(f"the server at {address} does not accept this secret", "see --secret-file") from None
        log(f"to also list the models of {address} that are not ready, give its secret with --secret-file")
        return []


@contextmanager
def _refusals(what: str) -> Iterator[None]:
    """Turn a server's refusal to load or unload a model into a ServerError."""
    try:
        yield
    except TransportError as error:
        if error.kind == "away":
            raise
        hint = "start it with `csg serve --control explicit`" if "polling" in error.detail else "see its log"
        if error.kind == "restricted":
            hint = "give its secret with --secret-file"
        raise ServerError(f"the server at {what}: {error.detail}", hint) from None
