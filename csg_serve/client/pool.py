"""The servers of one model: which one gets a request, and what happens when one goes away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csg.console import log
from csg.errors import CsgError, ServerError
from csg_serve.client.address import Address
from csg_serve.client.proxies import place, proxy_hint
from csg_serve.client.shared_memory_pool import SharedMemoryPool
from csg_serve.client.transport import Inference, Transport, TransportError

RETRY_BUDGET_S = 60
"""Seconds that a request waits while no server answers."""
FINISH_S = 2
"""Seconds that a cancelled request gets to finish."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 2.0
"""Pause between two attempts to reach a server; it doubles from the first to the longest."""


class ReplacedError(ServerError):
    """The server has another model under the name of the one that was opened."""


@dataclass(frozen=True)
class Serving:
    """How a server has the pool's model."""

    version: int
    """Version that gets the requests."""
    max_batch: int
    """Images that it takes at once."""


@dataclass(eq=False)
class Replica:
    """One server of a pool."""

    address: Address
    """Address of the server."""
    transport: Transport
    """Connection to it."""
    memory: SharedMemoryPool
    """Sends requests, through shared memory where that works."""
    check: Callable[[], Awaitable[Serving]]
    """Returns how it has the pool's model now; raises TransportError or CsgError while it has not."""
    serving: Serving
    """How it had the model when it was asked last: another object after each outage."""
    in_flight: int = 0
    """Requests without an answer yet."""
    pause_s: float = FIRST_PAUSE_S
    """Seconds until the next attempt to reach the server."""
    reason: str = ""
    """Error that marked the server as down."""
    recovery_task: asyncio.Task[None] | None = None
    """Waits for the server while it is down; None while it is up."""

    async def infer(self, inference: Inference) -> NDArray[Any]:
        """Send one request. If cancelled, it gets a moment to finish, since dropped requests have crashed Triton."""
        self.in_flight += 1
        request = asyncio.ensure_future(self._send(inference, self.serving))
        try:
            answer = await asyncio.shield(request)
        except asyncio.CancelledError:
            await asyncio.wait([request], timeout=FINISH_S)
            raise
        finally:
            self.in_flight -= 1
            request.cancel()
            await asyncio.gather(request, return_exceptions=True)
        self.pause_s = FIRST_PAUSE_S
        return answer

    async def _send(self, inference: Inference, serving: Serving) -> NDArray[Any]:
        """The answer; a request of more images than the server takes at once is sent in parts, one after the other."""
        images, step = inference.tensor, serving.max_batch
        parts = [replace(inference, tensor=images[first : first + step]) for first in range(0, len(images), step)]
        answers = [await self.memory.infer(part, serving.version) for part in parts]
        return answers[0] if len(answers) == 1 else np.concatenate(answers)


class Pool:
    """Servers of the same model. Inference changes nothing on a server, so a request may be sent again to any."""

    def __init__(self, replicas: Iterable[Replica]):
        self.replicas = tuple(replicas)

    @property
    def max_batch(self) -> int:
        """Images that all servers take at once."""
        return min(replica.serving.max_batch for replica in self.replicas)

    async def infer(self, inference: Inference) -> NDArray[Any]:
        """Send a request to the least busy server. If that one goes away, send it to another, or wait for one.

        Raises:
            ReplacedError: a server has another model under this name by now.
            ServerError: no server answered within RETRY_BUDGET_S, or every server that is up took too long, lost
                the model, or refused the request.
        """
        excluded: set[Replica] = set()
        retry_budget_s = float(RETRY_BUDGET_S)
        while True:
            candidates = [replica for replica in self.replicas if replica not in excluded]
            replica, retry_budget_s = await self._pick(candidates, retry_budget_s)
            sent = replica.serving
            try:
                return await replica.infer(inference)
            except TransportError as error:
                await self._handle(error, replica, excluded, sent)

    async def _handle(self, error: TransportError, replica: Replica, excluded: set[Replica], sent: Serving) -> None:
        """After a failed request: exclude the server, mark it down, or raise if sending it again can't help.

        Args:
            excluded: servers that do not get this request again; a server that took too long is added.
            sent: how the server had the model when the request was sent.
        """
        if error.kind in ("missing", "refused") and await self._serves_otherwise(replica, sent):
            return
        if error.kind == "wrong":
            raise wrong_answer(replica.address, error.detail) from None
        if error.kind not in (
            "late",
            "away",
            "missing",
        ):  # "missing": a server that shuts down unloads its models first
            raise _no_answer([replica], error.detail) from None
        if error.kind == "late":
            excluded.add(replica)
        if len(excluded) == len(self.replicas):
            raise _no_answer(self.replicas, error.detail) from None
        if replica.recovery_task is None and replica.serving is sent:
            self.mark_down(replica, error.detail)

    async def _serves_otherwise(self, replica: Replica, sent: Serving) -> bool:
        """Whether a server has the same model as another version, or takes other batches, than when it was asked."""
        if replica.serving == sent:
            try:
                found = await replica.check()
            except ReplacedError:
                raise
            except (TransportError, CsgError):
                return False
            if found != sent:
                replica.serving = found
        return replica.serving != sent

    def mark_down(self, replica: Replica, reason: str) -> None:
        """Send a server no requests until it answers again."""
        replica.reason = reason
        replica.recovery_task = asyncio.create_task(self._recover(replica))

    async def _pick(self, candidates: Collection[Replica], retry_budget_s: float) -> tuple[Replica, float]:
        """The least busy server that is up, waiting for one if necessary, and what is left of the retry budget."""
        started = time.monotonic()
        while True:
            left = retry_budget_s - (time.monotonic() - started)
            up = [replica for replica in candidates if replica.recovery_task is None]
            if up:
                return min(up, key=lambda replica: replica.in_flight), left
            if left <= 0:
                raise _no_answer(candidates, next(replica.reason for replica in candidates))
            tasks = [replica.recovery_task for replica in candidates if replica.recovery_task]
            done, _ = await asyncio.wait(tasks, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()  # raises if the recovery itself failed

    async def _recover(self, replica: Replica) -> None:
        """Wait until a server answers again; log the outage unless it is over at the first attempt.

        Raises:
            ReplacedError: it has another model by now, and no other server is up.
        """
        logged = False
        while True:
            await asyncio.sleep(replica.pause_s)
            replica.pause_s = min(2 * replica.pause_s, LONGEST_PAUSE_S)
            try:
                replica.serving = await replica.check()
                break
            except (TransportError, CsgError) as error:
                replica.reason = error.message if isinstance(error, CsgError) else error.detail
                others = any(other.recovery_task is None for other in self.replicas)
                if isinstance(error, ReplacedError) and not others:
                    raise
            if not logged:
                what = "the other servers continue" if others else f"retrying for {RETRY_BUDGET_S} s"
                log(f"no answer from {replica.address}; {what}")
                logged = True
        if logged:
            log(f"{replica.address} answers again")
        replica.recovery_task = None

    async def close(self) -> None:
        """Stop waiting for servers, and release the shared memory."""
        tasks = [replica.recovery_task for replica in self.replicas if replica.recovery_task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(replica.memory.close() for replica in self.replicas))


def wrong_answer(server: object, detail: str) -> ServerError:
    """The error if a server, or one of several, gives an answer that the card does not promise."""
    hint = "check its bundle with `csg export inspect`, and deploy it again"
    return ServerError(f"the server at {server} answers wrongly: {detail}", hint)


def _no_answer(replicas: Collection[Replica], detail: str) -> ServerError:
    addresses = [replica.address for replica in replicas]
    where = "the server at" if len(replicas) == 1 else "the servers at"
    hint = proxy_hint(addresses, "see its log, and start again")
    return ServerError(f"{where} {place(addresses)} did not answer: {detail}", hint)
