"""Verify the models of the server that runs on a repository, before a command says that they are live."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from csg.console import log
from csg_serve.client.connection import connected
from csg_serve.client.endpoints import Servers
from csg_serve.client.loop_thread import run_apart
from csg_serve.server.options import read_secret
from csg_serve.server.state import SECRET, ServerState
from csg_serve.verify.verify import ALL, Effort, Verification, verify_server


def verify_running(
    repository: Path, state: ServerState, model: str | None = None, effort: Effort = ALL
) -> list[Verification]:
    """Compare the answers of a running server with the golden answers that its models carry.

    Over gRPC; over HTTP, which stays on loopback, if gRPC uses TLS.

    Args:
        repository: the model repository.
        state: the server.
        model: name of a model, for itself and its `<name>_encoded`; None for all models.
        effort: how much to ask.

    Raises:
        ServerError: the server does not answer.
        InputError: a model carries no valid card or golden answers.
    """
    return run_apart(_verify(repository, state, model, effort))


async def _verify(repository: Path, state: ServerState, model: str | None, effort: Effort) -> list[Verification]:
    secret = read_secret(repository / SECRET) if (repository / SECRET).exists() else None
    servers = Servers((f"http://{state.http}" if state.tls else state.grpc,), secret=secret)
    async with connected(servers.addresses[0], servers) as transport:
        return await verify_server(transport, servers.addresses[0], model, effort)


def log_verified(found: list[Verification]) -> None:
    """Say which models answer as PyTorch did, and which could not be verified."""
    groups: dict[str, list[str]] = defaultdict(list)
    for one in found:
        what = "not verified, " + (f"{one.state}: {one.reason}" if one.state == "busy" else one.state)
        groups["verified with golden answers" if one.state == "verified" else what].append(one.model)
    for what, models in groups.items():
        log(f"{what}: {', '.join(models)}")
