"""What tests of the client need: its shared memory, a relay in front of a server, the classes of its answers."""

import os
from contextlib import asynccontextmanager

import csg_serve.client.connection
from csg_serve.client.shared_memory import FOLDER
from tests.helpers.proxy import Relay

SECRET = "not-for-everyone"


def regions(pid=None):
    """The regions of shared memory of a client process, by default this one."""
    return list(FOLDER.glob(f"csg-client-{pid or os.getpid()}-*"))


@asynccontextmanager
async def relayed(target, **options):
    relay = await Relay(target, **options).open()
    try:
        yield relay
    finally:
        await relay.cut()


def shorten_deadlines(monkeypatch):
    monkeypatch.setattr(csg_serve.client.connection, "DEADLINE_S", 3)


async def classes_of(answers):
    return [int(answer.argmax()) async for answer in answers]
