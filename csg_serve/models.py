"""`csg models`: what a running server has, what it answered, and how long that took."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass

from csg.console import print_json, show_table
from csg_serve.connection import connected, repository_index, statistics


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


def models_command(server: str, as_json: bool) -> None:
    """Ask and show.

    Raises:
        UsageError: `server` is no address.
        ServerError: no server answers there.
    """
    found = asyncio.run(_ask(server))
    if as_json:
        print_json({"server": server, "models": [asdict(one) for one in found]})
        return
    columns = ("model", "version", "state", "images", "runs", "requests", "failed", "queue ms", "compute ms")
    rows = [
        (
            one.model,
            one.version,
            one.state + (f": {one.reason}" if one.reason else ""),
            *(str(count) for count in (one.images, one.runs, one.requests, one.failed)),
            *("-" if value is None else f"{value:.2f}" for value in (one.queue_ms, one.compute_ms)),
        )
        for one in found
    ]
    show_table(f"models at {server}", columns, rows)


async def _ask(server: str) -> list[ModelState]:
    async with connected(server) as client:
        index, counted = await repository_index(client), {}
        for one in await statistics(client):
            times = one.inference_stats
            done = times.success.count
            compute = times.compute_input.ns + times.compute_infer.ns + times.compute_output.ns
            counted[one.name, one.version] = {
                "images": one.inference_count,
                "runs": one.execution_count,
                "requests": done,
                "failed": times.fail.count,
                "queue_ms": times.queue.ns / done / 1e6 if done else None,
                "compute_ms": compute / done / 1e6 if done else None,
            }
    entries = sorted((e for e in index if not e.name.startswith(".")), key=lambda e: (e.name, e.version))
    return [
        ModelState(e.name, e.version, e.state, " ".join(e.reason.split()), **counted.get((e.name, e.version), {}))
        for e in entries
    ]
