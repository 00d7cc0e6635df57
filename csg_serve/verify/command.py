"""`csg models --verify`: whether the models of running servers answer as PyTorch did."""

from __future__ import annotations

import asyncio

from csg.console import print_json, show_table
from csg.files import validate_name
from csg_serve.client.address import Address
from csg_serve.client.connection import connected
from csg_serve.client.endpoints import Servers
from csg_serve.verify.verify import Verification, check, verify_server


def verify_command(servers: Servers, model: str | None, as_json: bool) -> None:
    """Send the golden images to the models of each server, and print what came of it.

    Args:
        servers: the servers.
        model: name of a model, for itself and its `<name>_encoded`; None for all models of csg.
        as_json: whether to print JSON.

    Raises:
        UsageError: an address or the name is malformed.
        VerificationError: a model answers wrongly.
        ServerError: a server or a model does not answer, or the named model is not ready.
    """
    if model is not None:
        validate_name(model, "model name")
    found = asyncio.run(_verify_all(servers, model))
    if as_json:
        models = [{"server": str(address), **vars(one)} for address, all_ in found.items() for one in all_]
        print_json({"server": str(servers), "models": models})
    else:
        for address, verifications in found.items():
            rows = [(one.model, str(one.version), one.state, one.reason) for one in verifications]
            show_table(f"models at {address}", ("model", "version", "answers", "reason"), rows)
    check([one for verifications in found.values() for one in verifications])


async def _verify_all(servers: Servers, model: str | None) -> dict[Address, list[Verification]]:
    found = await asyncio.gather(*(_verify(address, servers, model) for address in servers.addresses))
    return dict(zip(servers.addresses, found, strict=True))


async def _verify(address: Address, servers: Servers, model: str | None) -> list[Verification]:
    async with connected(address, servers) as transport:
        return await verify_server(transport, address, model)
