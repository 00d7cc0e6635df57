"""What tests of the client look at: shared memory, and the classes in its answers."""

import os
from contextlib import asynccontextmanager

import csg_serve.client.connection
import csg_serve.client.pool
import csg_serve.client.transport
from csg_serve.client.shared_memory import FOLDER
from tests.helpers.proxy import Relay

SECRET = "not-for-everyone"


def regions(pid=None):
    """The shared memory of a client's process: this one's by default."""
    return list(FOLDER.glob(f"csg-client-{pid or os.getpid()}-*"))


@asynccontextmanager
async def relayed(target, **options):
    relay = await Relay(target, **options).open()
    try:
        yield relay
    finally:
        await relay.cut()


def shorten_deadlines(monkeypatch):
    for module in (csg_serve.client.connection, csg_serve.client.transport):
        monkeypatch.setattr(module, "DEADLINE_S", 3)


async def classes_of(answers):
    return [int(answer.argmax()) async for answer in answers]
