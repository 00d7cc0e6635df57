"""`csg models --verify`: whether the models of running servers answer as PyTorch did."""

from __future__ import annotations

import asyncio

from csg.console import print_json, show_table
from csg.files import validate_name
from csg_serve.client.address import Address
from csg_serve.client.connection import connected
from csg_serve.client.endpoints import Servers
from csg_serve.client.transport import DEADLINE_S
from csg_serve.verify.verify import Effort, Verification, check, verify_server

QUICK_DEADLINE_S = 5
"""Seconds that a model gets to answer one image: less than the timeout of a container's probe."""


def verify_command(servers: Servers, model: str | None, quick: bool, as_json: bool) -> None:
    """Send the golden images to the models of each server, and print what came of it.

    Args:
        servers: the servers.
        model: name of a model, for itself and its `<name>_encoded`; None for all models of csg.
        quick: whether to send one image to each model, instead of all of them, alone and in batches.
        as_json: whether to print JSON.

    Raises:
        UsageError: an address or the name is malformed.
        VerificationError: a model answers wrongly.
        ServerError: a server or a model does not answer, or the named model is not ready.
    """
    if model is not None:
        validate_name(model, "model name")
    effort = Effort(quick, QUICK_DEADLINE_S if quick else DEADLINE_S)
    found = asyncio.run(_verify_all(servers, model, effort))
    if as_json:
        models = [{"server": str(address), **vars(one)} for address, all_ in found.items() for one in all_]
        print_json({"server": str(servers), "models": models})
    else:
        for address, verifications in found.items():
            rows = [(one.model, str(one.version), one.state, one.reason) for one in verifications]
            show_table(f"models at {address}", ("model", "version", "answers", "reason"), rows)
    check([one for verifications in found.values() for one in verifications])


async def _verify_all(servers: Servers, model: str | None, effort: Effort) -> dict[Address, list[Verification]]:
    found = await asyncio.gather(*(_verify(address, servers, model, effort) for address in servers.addresses))
    return dict(zip(servers.addresses, found, strict=True))


async def _verify(address: Address, servers: Servers, model: str | None, effort: Effort) -> list[Verification]:
    async with connected(address, servers) as transport:
        return await verify_server(transport, address, model, effort)
