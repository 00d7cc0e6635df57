"""The servers of one model: which of them gets a request, and what happens when one goes away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from csg.console import log
from csg.errors import CsgError, ServerError
from csg_serve.client.endpoints import Address
from csg_serve.client.shared_memory_pool import Regions
from csg_serve.client.transport import Inference, Transport, TransportError

AWAY_S = 60  # a request waits for so long while no server answers
FINISH_S = 2
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 2.0


@dataclass(eq=False)
class Member:
    """One server of a pool.

    check: says which version serves the pool's model there; raises TransportError or CsgError while none does.
    under_way: requests. back: while the server is away, the task that waits for it. outages: those that ended.
    """

    address: Address
    transport: Transport
    regions: Regions
    check: Callable[[], Awaitable[int]]
    version: int
    under_way: int = 0
    outages: int = 0
    pause_s: float = FIRST_PAUSE_S
    reason: str = ""
    back: asyncio.Task[None] | None = None

    async def infer(self, inference: Inference) -> NDArray[Any]:
        """One request; where it is given up it gets a moment to finish: dropped ones have crashed Triton."""
        self.under_way += 1
        asked = asyncio.ensure_future(self.regions.infer(inference, self.version))
        try:
            answer = await asyncio.shield(asked)
        except asyncio.CancelledError:
            await asyncio.wait([asked], timeout=FINISH_S)
            raise
        finally:
            self.under_way -= 1
            asked.cancel()
            await asyncio.gather(asked, return_exceptions=True)
        self.pause_s = FIRST_PAUSE_S
        return answer


class ReplacedError(ServerError):
    """Another model than the one that was opened is served under its name now."""


class Pool:
    """Servers of the same model. Inference changes nothing there, so that a request may be asked anywhere again."""

    def __init__(self, members: Iterable[Member]):
        self.members = tuple(members)

    async def infer(self, inference: Inference) -> NDArray[Any]:
        """Ask the server with the fewest requests under way; if it goes away, another one, or the first that is back.

        Raises:
            ReplacedError: a server has another model under this name by now.
            ServerError: no server answered for a minute, or each that is there took too long, lost the model, or
                refused.
        """
        unfit: set[Member] = set()
        patience_s = float(AWAY_S)
        while True:
            fit = [member for member in self.members if member not in unfit]
            member, patience_s = await self._free(fit, patience_s)
            outages = member.outages
            try:
                return await member.infer(inference)
            except TransportError as error:
                if error.kind == "late":
                    unfit.add(member)
                elif error.kind == "missing" and await self._renewed(member):
                    continue
                elif error.kind not in ("away", "missing"):  # a server that ends has lost its models first
                    raise _error([member], error.detail) from None
                if len(unfit) == len(self.members):
                    raise _error(self.members, error.detail) from None
                if member.back is None and member.outages == outages:
                    self.lose(member, error.detail)

    async def _renewed(self, member: Member) -> bool:
        """Whether a server that no longer has the version has the same model as another one; asked for by that then."""
        old = member.version
        try:
            member.version = await member.check()
        except ReplacedError:
            raise
        except (TransportError, CsgError):
            return False
        return member.version != old

    def lose(self, member: Member, reason: str) -> None:
        """Send a server no more requests until it is back."""
        member.reason = reason
        member.back = asyncio.create_task(self._wait_for(member))

    async def _free(self, fit: Collection[Member], patience_s: float) -> tuple[Member, float]:
        """The least busy of these that is there, waited for if need be, and what is left of the patience."""
        began = time.monotonic()
        while True:
            left = patience_s - (time.monotonic() - began)
            here = [member for member in fit if member.back is None]
            if here:
                return min(here, key=lambda member: member.under_way), left
            if left <= 0:
                raise _error(fit, next(member.reason for member in fit))
            done, _ = await asyncio.wait(
                [member.back for member in fit if member.back], timeout=left, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                task.result()  # a defect would not show otherwise

    async def _wait_for(self, member: Member) -> None:
        """Return when a server is back; say so if that took more than a moment."""
        said = False
        while True:
            await asyncio.sleep(member.pause_s)
            member.pause_s = min(2 * member.pause_s, LONGEST_PAUSE_S)
            try:
                member.version = await member.check()
                break
            except (TransportError, CsgError) as error:
                member.reason = error.message if isinstance(error, CsgError) else error.detail
            if not said:
                others = any(one.back is None for one in self.members)
                what = "the others go on" if others else f"asking again for {AWAY_S} s"
                log(f"no answer from {member.address}; {what}")
                said = True
        if said:
            log(f"{member.address} answers again")
        member.outages, member.back = member.outages + 1, None

    async def close(self) -> None:
        """Stop waiting for servers, and let go of the shared memory."""
        waiting = [member.back for member in self.members if member.back]
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await asyncio.gather(*(member.regions.close() for member in self.members))


def _error(members: Collection[Member], detail: str) -> ServerError:
    names = ", ".join(str(member.address) for member in members)
    where = "the server at" if len(members) == 1 else "the servers at"
    return ServerError(f"{where} {names} did not answer: {detail}", "see its log, and start again")
