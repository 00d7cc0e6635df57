"""`csg models`: what a running server has, what it answered, and how long that took."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from csg.console import log, print_json, show_table
from csg.errors import ServerError
from csg.files import validate_name
from csg_serve.bench.load import Counters
from csg_serve.client.connection import connected, repository_index, statistics
from csg_serve.client.endpoints import Address, Servers
from csg_serve.client.transport import Transport, TransportError
from csg_serve.triton.protocol import LOAD_TIMEOUT_S, triton_message


@dataclass(frozen=True)
class ModelState:
    """A version of a model.

    images: answered since it was loaded; runs: executions of the graph, each a batch; failed: requests; queue_ms,
    compute_ms: mean of a request, waiting and at work, None before the first.
    """

    model: str
    version: str
    state: str
    reason: str
    images: int = 0
    runs: int = 0
    requests: int = 0
    failed: int = 0
    queue_ms: float | None = None
    compute_ms: float | None = None


def models_command(servers: Servers, load: str | None, unload: str | None, as_json: bool) -> None:
    """Load and unload what is to be, then ask and show.

    Raises:
        UsageError: an address, or a model's name, is none.
        ServerError: no server answers at one, it does not load the model, or does not take the secret.
    """
    found = asyncio.run(_ask(servers, load, unload))
    if as_json:
        models = [{"server": str(address), **asdict(one)} for address, states in found.items() for one in states]
        print_json({"server": str(servers), "models": models})
        return
    for address, states in found.items():
        _show(address, states)


def _show(address: Address, states: list[ModelState]) -> None:
    columns = ("model", "version", "state", "images", "runs", "requests", "failed", "queue ms", "compute ms")
    rows = [
        (
            one.model,
            one.version,
            one.state + (f": {one.reason}" if one.reason else ""),
            *(str(count) for count in (one.images, one.runs, one.requests, one.failed)),
            *("-" if value is None else f"{value:.2f}" for value in (one.queue_ms, one.compute_ms)),
        )
        for one in states
    ]
    show_table(f"models at {address}", columns, rows)


async def _ask(servers: Servers, load: str | None, unload: str | None) -> dict[Address, list[ModelState]]:
    found = await asyncio.gather(*(_states(address, servers, load, unload) for address in servers.addresses))
    return dict(zip(servers.addresses, found, strict=True))


async def _states(address: Address, servers: Servers, load: str | None, unload: str | None) -> list[ModelState]:
    async with connected(address, servers) as transport:
        if load is not None:
            with _refusals(f"{address} does not load {load}"):
                await transport.ask("load_model", None, validate_name(load, "model name"), deadline_s=LOAD_TIMEOUT_S)
        if unload is not None:
            with _refusals(f"{address} does not unload {unload}"):
                await transport.ask("unload_model", None, validate_name(unload, "model name"))
        index = await _index(transport, address, servers.secret)
        counted = {(one.name, one.version): _counts(one) for one in await statistics(transport)}
    entries = {(e.name, e.version): (e.state, triton_message(e.reason)) for e in index if not e.name.startswith(".")}
    return [
        ModelState(*key, *entries.get(key, ("READY", "")), **counted.get(key, {})) for key in sorted(entries | counted)
    ]


async def _index(transport: Transport, address: Address, secret: str | None) -> list[Any]:
    """Triton's index; nothing where it is for those with a secret that was not given: the statistics have the rest."""
    try:
        return await repository_index(transport)
    except TransportError as error:
        if error.kind != "restricted":
            raise
        if secret:
            raise ServerError(f"the server at {address} does not take this secret", "see --secret-file") from None
        log(f"the secret of {address} (--secret-file) would also show what is not ready")
        return []


@contextmanager
def _refusals(what: str) -> Iterator[None]:
    """What a server that answers has against loading or unloading a model."""
    try:
        yield
    except TransportError as error:
        if error.kind == "away":
            raise
        hint = "start it with `csg serve --control explicit`" if "polling" in error.detail else "see its log"
        if error.kind == "restricted":
            hint = "give its secret with --secret-file"
        raise ServerError(f"the server at {what}: {error.detail}", hint) from None


def _counts(one: Any) -> dict[str, Any]:
    """What a version answered since it was loaded."""
    counted = Counters.of(one)
    done = counted.requests
    return {
        "images": counted.images,
        "runs": counted.runs,
        "requests": done,
        "failed": one.inference_stats.fail.count,
        "queue_ms": counted.queue_ns / done / 1e6 if done else None,
        "compute_ms": counted.compute_ns / done / 1e6 if done else None,
    }
