"""`csg models`: what a running server has, what it answered, and how long that took."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from csg.console import print_json, say, show_table
from csg.errors import ServerError
from csg.files import plain_name
from csg_serve.connection import connected, repository_index, statistics
from csg_serve.control import LOAD_TIMEOUT_S, one_line
from csg_serve.launch import GRPC_SECRET_HEADER, read_secret


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


def models_command(server: str, load: str | None, unload: str | None, secret_file: Path | None, as_json: bool) -> None:
    """Load and unload what is to be, then ask and show.

    Raises:
        UsageError: `server` is no address.
        InputError: the file holds no secret.
        ServerError: no server answers there, it does not load the model, or does not take the secret.
    """
    headers = {GRPC_SECRET_HEADER: read_secret(secret_file)} if secret_file else {}
    found = asyncio.run(_ask(server, load, unload, headers))
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


async def _ask(server: str, load: str | None, unload: str | None, headers: dict[str, str]) -> list[ModelState]:
    async with connected(server) as client:
        if load is not None:
            with _refusals(f"{server} does not load {load}"):
                await client.load_model(plain_name(load, "model name"), headers=headers, client_timeout=LOAD_TIMEOUT_S)
        if unload is not None:
            with _refusals(f"{server} does not unload {unload}"):
                await client.unload_model(plain_name(unload, "model name"), headers=headers)
        index = await _index(client, server, headers)
        counted = {(one.name, one.version): _counts(one) for one in await statistics(client)}
    entries = {(e.name, e.version): (e.state, one_line(e.reason)) for e in index if not e.name.startswith(".")}
    return [
        ModelState(*key, *entries.get(key, ("READY", "")), **counted.get(key, {})) for key in sorted(entries | counted)
    ]


async def _index(client: InferenceServerClient, server: str, headers: dict[str, str]) -> list[Any]:
    """Triton's index; nothing where it is for those with the secret, and none was given."""
    try:
        return await repository_index(client, headers)
    except InferenceServerException as error:
        if "restricted" not in error.message():
            raise
        if headers:
            raise ServerError(f"the server at {server} does not take this secret", "see --secret-file") from None
        say("the secret of the server's control API (--secret-file) would also show what is not ready")
        return []


@contextmanager
def _refusals(what: str) -> Iterator[None]:
    """What a server that answers has against loading or unloading a model."""
    try:
        yield
    except InferenceServerException as error:
        text = one_line(error.message())
        todo = "start it with `csg serve --control explicit`" if "polling" in text else "see its log"
        if "restricted" in text:
            todo = "give its secret with --secret-file"
        raise ServerError(f"the server at {what}: {text}", todo) from None


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
