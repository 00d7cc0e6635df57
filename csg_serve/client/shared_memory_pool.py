"""The shared memory of one connection: a region for each request under way, used again by the next one."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from numpy.typing import NDArray
from tritonclient.grpc import service_pb2

from csg_serve.client.shared_memory import FOLDER, PREFIX, SMALLEST, Region
from csg_serve.client.transport import Inference, Transport, TransportError

CLOSE_S = 2  # a request that was given up may be at work in a region for a while


class Regions:
    """Asks a server with tensors in shared memory, and inline once that turns out not to be had there."""

    def __init__(self, transport: Transport, wanted: bool):
        self._transport = transport
        self._free: list[Region] = []
        self._names: set[str] = set()  # of all that the server may have registered
        self._looked = False
        self.usable = wanted

    async def infer(self, inference: Inference, version: int) -> NDArray[Any]:
        """As `Transport.infer`.

        A region whose request failed or was given up is not used again: the server may still write into it.
        """
        while self.usable:
            size = inference.tensor.nbytes + inference.answer_bytes
            known = self._reuse(size)
            region = known or await self._register(size)
            if region is None:
                break
            try:
                answer = await self._transport.infer(inference, version, region)
            except BaseException as error:
                region.unlink()
                if not isinstance(error, TransportError) or error.kind != "no region":
                    raise
                if known is None:  # a restarted server forgets old ones; others behind its address never knew this
                    self.usable = False
                continue
            self._free.append(region)
            return answer
        return await self._transport.infer(inference, version)

    def _reuse(self, size: int) -> Region | None:
        for region in self._free:
            if region.size >= size:
                self._free.remove(region)
                return region
        return None

    async def _register(self, size: int) -> Region | None:
        """A new region, in place of one that is too small; None where there can't be any."""
        if self._free:
            small = self._free.pop()
            small.unlink()
            await self._unregister(small.name)
        try:
            region = Region(max(SMALLEST, 1 << (size - 1).bit_length()))
        except OSError:
            self.usable = False
            return None
        self._names.add(region.name)
        try:
            await self._transport.call(
                "register_system_shared_memory", None, region.name, f"/{region.name}", region.size
            )
        except BaseException as error:
            region.unlink()
            if not isinstance(error, TransportError) or error.kind in ("away", "late"):
                raise
            self.usable = False
            return None
        if not self._looked:
            self._looked = True
            await self._clear()
        return region

    async def _clear(self) -> None:
        """Have the server let go of what killed clients left: regions without a file, which it keeps to its end."""
        with suppress(TransportError):
            known = await self._transport.call(
                "get_system_shared_memory_status", service_pb2.SystemSharedMemoryStatusResponse
            )
            for name in known.regions:
                if name.startswith(PREFIX) and not (FOLDER / name).exists():
                    await self._unregister(name)

    async def _unregister(self, name: str) -> None:
        """Have the server let go of a region; it refuses as long as a request works in it."""
        try:
            await self._transport.call("unregister_system_shared_memory", None, name)
        except TransportError as error:
            if "in use" in error.detail:
                return
        self._names.discard(name)

    async def close(self) -> None:
        """Unlink all regions, and have the server let go of them, if it does so soon."""
        while self._free:
            self._free.pop().unlink()
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                while self._names:
                    await asyncio.gather(*(self._unregister(name) for name in list(self._names)))
                    await asyncio.sleep(0.1 if self._names else 0)
