"""The shared memory of one connection: one region per request in flight, reused by later requests."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from numpy.typing import NDArray

from csg_serve.client.shared_memory import FOLDER, MIN_BYTES, PREFIX, Region, remove_dead_regions
from csg_serve.client.transport import Inference, Transport, TransportError

CLOSE_S = 2
"""Seconds to unregister what killed clients left, and at the end what cancelled requests may still use."""


class SharedMemoryPool:
    """Sends requests with tensors in shared memory, or inline if the server can't use shared memory.

    Args:
        transport: connection to the server.
        enabled: whether to try shared memory, which needs a server on this machine.
    """

    def __init__(self, transport: Transport, enabled: bool):
        self._transport = transport
        self._free: list[Region] = []
        self._registered: set[str] = set()  # names that the server may know
        self._cleaned = self._closed = False
        self.enabled = enabled

    async def infer(self, inference: Inference, version: int) -> NDArray[Any]:
        """Send one request, as `Transport.infer`.

        A region is not reused after its request failed or was cancelled: the server may still write to it.
        """
        while self.enabled:
            size = inference.tensor.nbytes + inference.answer_bytes
            reused = self._take(size)
            region = reused or await self._register(size)
            if region is None:
                break
            try:
                answer = await self._transport.infer(inference, version, region)
            except BaseException as error:
                region.unlink()
                if not isinstance(error, TransportError) or error.kind != "no region":
                    raise
                if reused is None:  # not a restarted server that forgot its regions: another one behind this address
                    self.enabled = False
                continue
            if self._closed:
                region.unlink()
            else:
                self._free.append(region)
            return answer
        return await self._transport.infer(inference, version)

    def _take(self, size: int) -> Region | None:
        for region in self._free:
            if region.size >= size:
                self._free.remove(region)
                return region
        return None

    async def _register(self, size: int) -> Region | None:
        """A new region, replacing one that is too small; None if the server can't use shared memory."""
        if self._free:
            small = self._free.pop()
            small.unlink()
            await self._unregister(small.name)
        if not self._cleaned:
            remove_dead_regions()
        try:
            region = Region(max(MIN_BYTES, 1 << (size - 1).bit_length()))
        except OSError:
            self.enabled = False
            return None
        self._registered.add(region.name)
        try:
            await self._transport.call("register_system_shared_memory", region.name, f"/{region.name}", region.size)
            if not self._cleaned:
                self._cleaned = True
                await self._unregister_stale()
        except BaseException as error:
            region.unlink()
            if not isinstance(error, TransportError) or error.kind in ("away", "late"):
                raise
            if error.kind == "restricted" and self._transport.secret.renew():  # the server was started again
                return await self._register(size)
            self.enabled = False
            return None
        return region

    async def _unregister_stale(self) -> None:
        """Unregister regions of killed clients: their files are gone, but the server keeps them mapped."""
        with suppress(TransportError, TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                known = await self._transport.call("get_system_shared_memory_status")
                for name in known.regions:
                    if name.startswith(PREFIX) and not (FOLDER / name).exists():
                        await self._unregister(name)

    async def _unregister(self, name: str) -> None:
        """Unregister a region; the server refuses while a request uses it."""
        try:
            await self._transport.call("unregister_system_shared_memory", name)
        except TransportError as error:
            if "in use" in error.detail:
                return
        self._registered.discard(name)

    async def close(self) -> None:
        """Remove all regions, and unregister them within CLOSE_S; that of a running request is removed by its end."""
        self._closed = True
        while self._free:
            self._free.pop().unlink()
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                while self._registered:
                    await asyncio.gather(*(self._unregister(name) for name in list(self._registered)))
                    await asyncio.sleep(0.1 if self._registered else 0)
