"""`csg models`: what a running server has, what it answered, and how long that took."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass
from typing import Any

from csg.console import print_json, say, show_table
from csg_serve.connection import connected, repository_index, statistics
from csg_serve.servers import Address, Servers
from csg_serve.transport import Transport, TransportError


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


def models_command(servers: Servers, as_json: bool) -> None:
    """Ask and show.

    Raises:
        UsageError: an address is none.
        ServerError: no server answers at one.
    """
    found = asyncio.run(_ask(servers))
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


async def _ask(servers: Servers) -> dict[Address, list[ModelState]]:
    found = await asyncio.gather(*(_states(address, servers) for address in servers.addresses))
    return dict(zip(servers.addresses, found, strict=True))


async def _states(address: Address, servers: Servers) -> list[ModelState]:
    async with connected(address, servers) as transport:
        index, counted = await _index(transport, address), {}
        for one in await statistics(transport):
            counted[one.name, one.version] = _counts(one)
    entries = {(e.name, e.version): (e.state, " ".join(e.reason.split())) for e in index if not e.name.startswith(".")}
    return [
        ModelState(*key, *entries.get(key, ("READY", "")), **counted.get(key, {})) for key in sorted(entries | counted)
    ]


async def _index(transport: Transport, address: Address) -> list[Any]:
    """Triton's index; nothing where it wants the server's secret: the statistics have what is ready."""
    try:
        return await repository_index(transport)
    except TransportError as error:
        if error.kind != "restricted":
            raise
        say(f"the secret of {address} (--secret-file) would also show what is not ready")
        return []


def _counts(one: Any) -> dict[str, Any]:
    """What a version answered since it was loaded."""
    times = one.inference_stats
    done = times.success.count
    compute = times.compute_input.ns + times.compute_infer.ns + times.compute_output.ns
    return {
        "images": one.inference_count,
        "runs": one.execution_count,
        "requests": done,
        "failed": times.fail.count,
        "queue_ms": times.queue.ns / done / 1e6 if done else None,
        "compute_ms": compute / done / 1e6 if done else None,
    }
