"""The shared memory of one connection: a region for each request under way, used again by the next one."""

from __future__ import annotations

import asyncio
from typing import Any

from numpy.typing import NDArray

from csg_serve.shared_memory import SMALLEST, Region
from csg_serve.transport import Inference, Transport, TransportError

UNREGISTER_PAUSES_S = (0.0, 0.1, 0.4, 1.5)  # a request that was given up may be at work in a region for a while


class Regions:
    """Asks a server with tensors in shared memory, and inline once that turns out not to be had there."""

    def __init__(self, transport: Transport, wanted: bool):
        self._transport = transport
        self._free: list[Region] = []
        self._known: set[str] = set()
        self.usable = wanted

    async def infer(self, inference: Inference, version: int) -> NDArray[Any]:
        """As `Transport.infer`.

        A region whose request failed or was given up is not used again: the server may still write into it.
        """
        while self.usable:
            fresh = not self._free
            region = await self._take(inference.tensor.nbytes + inference.answer_bytes)
            if region is None:
                break
            try:
                answer = await self._transport.infer(inference, version, region)
            except BaseException as error:
                region.unlink()
                if not (isinstance(error, TransportError) and error.kind == "no region"):
                    raise
                self.usable = not fresh  # a restarted server has forgotten it; others behind one address never knew it
                continue
            self._free.append(region)
            return answer
        return await self._transport.infer(inference, version)

    async def _take(self, size: int) -> Region | None:
        """A region of this size or larger, in place of a smaller one if need be; None where there can't be any."""
        for region in self._free:
            if region.size >= size:
                self._free.remove(region)
                return region
        if self._free:
            await self._drop(self._free.pop())
        try:
            region = Region(max(SMALLEST, 1 << (size - 1).bit_length()))
        except OSError:
            self.usable = False
            return None
        try:
            await self._transport.ask(
                "register_system_shared_memory", None, region.name, f"/{region.name}", region.size
            )
        except BaseException as error:
            region.unlink()
            if not isinstance(error, TransportError) or error.kind in ("away", "late"):
                raise
            self.usable = False
            return None
        self._known.add(region.name)
        return region

    async def _drop(self, region: Region) -> None:
        region.unlink()
        await self._unregister(region.name)

    async def _unregister(self, name: str) -> None:
        """Triton refuses while a request works in it."""
        try:
            await self._transport.ask("unregister_system_shared_memory", None, name)
        except TransportError as error:
            if "in use" in error.detail:
                return
        self._known.discard(name)

    async def close(self) -> None:
        """Unlink all regions, and have the server let go of them."""
        while self._free:
            self._free.pop().unlink()
        for pause in UNREGISTER_PAUSES_S:
            if not self._known:
                return
            await asyncio.sleep(pause)
            await asyncio.gather(*(self._unregister(name) for name in list(self._known)))
