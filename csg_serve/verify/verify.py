"""Compare the answers of a server with the golden answers that its models carry (`csg.golden`)."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from numpy.typing import NDArray

from csg.errors import ServerError, VerificationError
from csg_serve.client.address import Address
from csg_serve.client.find_model import configuration, ready_versions
from csg_serve.client.shared_memory_pool import SharedMemoryPool
from csg_serve.client.statistics import read_statistics
from csg_serve.client.transport import DEADLINE_S, Inference, Transport, TransportError
from csg_serve.triton.config import CARD_PARAMETER, ENCODED_PARAMETER
from csg_serve.verify.questions import (
    GoldenModel,
    Question,
    batches,
    golden_model,
    inference,
    mistake,
    questions,
)

State = Literal["verified", "wrong", "no golden answers", "busy", "no answer"]

SWITCH_ATTEMPTS, SWITCH_S = 5, 1
"""Attempts, and seconds between them, while a server switches a model to another version."""

REFUSED_BY_QUEUE = ("Exceeds maximum queue size", "Request timeout expired")
"""Messages of a server that has too much to do."""


@dataclass(frozen=True)
class Verification:
    """What a model answered to its golden images."""

    model: str
    """Name of the model."""
    version: int
    """Its version."""
    state: State
    """"verified"; "wrong"; "no golden answers": its bundle has none; "busy": no answer in time, but it answers others;
    "no answer": a request failed."""
    reason: str = ""
    """What is wrong, on one line; empty if verified."""

    @property
    def failed(self) -> bool:
        """Whether it is wrong or gives no answer."""
        return self.state in ("wrong", "no answer")


@dataclass(frozen=True)
class Effort:
    """How much a verification asks."""

    quick: bool = False
    """Whether to send one golden image, chosen at random; else all of them, alone and in batches."""
    deadline_s: float = DEADLINE_S
    """Seconds that one model gets."""
    files: bool = True
    """Whether to ask a model's `<name>_encoded` too."""


ALL = Effort()


async def verify_server(
    transport: Transport, address: Address, model: str | None = None, effort: Effort = ALL
) -> list[Verification]:
    """Send the golden images to the ready models of a server.

    A model that is being switched to another version may mix them up for a moment: it is asked again.

    Args:
        transport: connection to the server.
        address: its address.
        model: name of a model, for itself and its `<name>_encoded`; None for all models of csg.
        effort: how much to ask.

    Raises:
        TransportError: the server does not answer.
        InputError: a model carries no valid card or golden answers.
        ServerError: the named model is not ready, or the list of models requires a secret.
    """
    for attempt in range(1, SWITCH_ATTEMPTS + 1):
        ready = await ready_versions(transport, address, model)
        models = await _models(transport, address, ready, model)
        found = [await _verify(transport, address, one, effort) for one in models if effort.files or not one.encoded]
        if attempt == SWITCH_ATTEMPTS or not any(one.failed for one in found):
            break
        switching = len(dict(ready)) < len(ready) or ready != await ready_versions(transport, address, model)
        if not switching:
            break
        await asyncio.sleep(SWITCH_S)
    return found


SEE_LOG = "see the server's log"
MISFIT = f"{SEE_LOG}; a server whose libraries do not fit each other can be ready, fast and wrong"


def check(found: Sequence[Verification], hint: str | None = None) -> None:
    """Raise an error for the first model that is wrong or gives no answer.

    Args:
        found: what the models answered.
        hint: what the user can do, or what happens next.

    Raises:
        VerificationError: a model answers wrongly.
        ServerError: a model gives no answer.
    """
    for one in sorted(found, key=lambda one: one.state != "wrong"):
        if one.state == "wrong":
            raise VerificationError(f"{one.model} version {one.version} answers wrongly: {one.reason}", hint or MISFIT)
        if one.state == "no answer":
            raise ServerError(f"{one.model} version {one.version} does not answer: {one.reason}", hint or SEE_LOG)


async def _models(
    transport: Transport, address: Address, ready: Sequence[tuple[str, int]], wanted: str | None
) -> list[GoldenModel]:
    """The ready models of csg: all of them, or the named one with its `<name>_encoded`."""
    newest = dict(ready)
    configs = {}
    for name, version in newest.items():
        try:
            configs[name] = await configuration(transport, name, version)
        except TransportError as error:
            if error.kind != "missing":  # replaced between two calls
                raise
    found = []
    for name, config in configs.items():
        of = config.parameters[ENCODED_PARAMETER].string_value if ENCODED_PARAMETER in config.parameters else None
        tensor_model = configs.get(of or name)
        if tensor_model is None or CARD_PARAMETER not in tensor_model.parameters or wanted not in (None, name, of):
            continue
        where = f"model {of or name} at {address}"
        found.append(golden_model(name, newest[name], config, tensor_model if of else None, where=where))
    if wanted is not None and not found:
        raise ServerError(
            f"the server at {address} has no model {wanted} of csg ready",
            f"ready models: {', '.join(newest) or 'none'}",
        )
    return found


async def _verify(transport: Transport, address: Address, model: GoldenModel, effort: Effort) -> Verification:
    asked = questions(model)
    if not asked:
        return Verification(model.name, model.version, "no golden answers", "its bundle was exported by an older csg")
    before = await _executions(transport, model)
    memory = SharedMemoryPool(transport, address.local and not model.encoded)
    chosen = [[random.choice(asked)]] if effort.quick else batches(model, asked)
    try:
        reason = await _mistake(transport, memory, model, chosen, deadline_s=effort.deadline_s)
    except TransportError as error:
        state: State = "wrong" if error.kind == "wrong" else "no answer"
        late = error.kind == "late" and await _executions(transport, model) != before
        if late or any(message in error.detail for message in REFUSED_BY_QUEUE):
            state = "busy"
        return Verification(model.name, model.version, state, error.detail)
    finally:
        await memory.close()
    return Verification(model.name, model.version, "wrong" if reason else "verified", reason or "")


async def _mistake(
    transport: Transport,
    memory: SharedMemoryPool,
    model: GoldenModel,
    chosen: Iterable[list[Question]],
    *,
    deadline_s: float,
) -> str | None:
    """The first thing that is wrong with the answers; None if all are right. Batches go through shared memory too."""
    end = time.monotonic() + deadline_s
    for batch in chosen:
        ways: list[Callable[[Inference, int], Awaitable[NDArray[Any]]]] = [transport.infer]
        if len(batch) > 1 and memory.enabled:
            ways.append(memory.infer)
        for way in ways:
            left = end - time.monotonic()
            if left <= 0:
                raise TransportError("late", f"not all answers within {deadline_s:g} s")
            sent = inference(model, batch, left)
            reason = mistake(batch, await way(sent, model.version))
            if reason:
                return reason
    return None


async def _executions(transport: Transport, model: GoldenModel) -> int | None:
    """How many batches a model has computed; None if the statistics require a secret."""
    try:
        found = await read_statistics(transport)
    except TransportError:
        return None
    statistics = found.get((model.name, model.version))
    return statistics.executions if statistics else None
