"""The part of the watchdog that sends the models their golden images while they serve.

A model that answers wrongly is asked again with all of its golden images, loaded again, and asked once more. If it is
still wrong, it is to be taken out of service. A late answer, or none, is no wrong one: the server may be busy.
"""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from csg.console import log
from csg.errors import CsgError
from csg_serve.server.deployments import is_being_deployed
from csg_serve.server.state import ServerState
from csg_serve.server.verification import verify_running
from csg_serve.triton.config import encoded_name
from csg_serve.verify.verify import Effort, Verification

VERIFY_S = 10
"""Seconds between two looks at the answers of all models."""

RELOAD_S = 20
"""Seconds that a polling server gets to load a model again before its answers count."""

ONE_IMAGE = Effort(quick=True, deadline_s=5)


@dataclass(frozen=True)
class Suspect:
    """A model that answered wrongly."""

    version: int
    """Its version."""

    since: float
    """When it was found, on the monotonic clock."""

    out: bool = False
    """Whether it was taken out of service."""


@dataclass(frozen=True)
class Finding:
    """What to do with a model."""

    found: Verification
    """Its wrong answer."""

    act: Literal["load again", "take out"]
    """What to do."""


class AnswerWatch:
    """Asks the models of a server in a thread of its own, so that a late answer holds up nothing else.

    Args:
        repository: the model repository.
        state: the server that runs on it.
    """

    def __init__(self, repository: Path, state: ServerState):
        self._repository, self._state = repository, state
        self._grace_s = RELOAD_S if state.control == "poll" else 0
        self._suspects: dict[str, Suspect] = {}
        self._thread, self._due = ThreadPoolExecutor(1), time.monotonic() + VERIFY_S
        self._asked: Future[list[Verification]] | None = None

    def look(self) -> list[Finding]:
        """Return what to do about the answers of the last look, and start the next one if it is due."""
        if self._asked is None:
            if time.monotonic() >= self._due:
                self._asked = self._thread.submit(self._ask)
            return []
        if not self._asked.done():
            return []
        found, self._asked, self._due = self._asked.result(), None, time.monotonic() + VERIFY_S
        wrong = {one.model for one in found if one.state == "wrong"}
        twins = {encoded_name(model) for model in wrong}  # they pass on what the tensor model answers
        return [finding for one in found if one.model not in twins and (finding := self._judge(one))]

    def _judge(self, found: Verification) -> Finding | None:
        if is_being_deployed(self._repository, found.model):
            return None  # the deployment verifies it, and undoes it
        suspect = self._suspects.get(found.model)
        if suspect and suspect.version != found.version:
            suspect = None
        if found.state == "verified":
            if self._suspects.pop(found.model, None):
                log(f"csg: {found.model} version {found.version} answers as PyTorch again")
            return None
        if found.state != "wrong" or (suspect and suspect.out):
            return None
        if suspect is None:
            self._suspects[found.model] = Suspect(found.version, time.monotonic())
            return Finding(found, "load again")
        if time.monotonic() < suspect.since + self._grace_s:
            return None
        self._suspects[found.model] = replace(suspect, out=True)
        return Finding(found, "take out")

    def _ask(self) -> list[Verification]:
        """Send one golden image to each model, and all of them to one that is or was wrong."""
        try:
            return [self._ask_all(one) for one in self._verify(None, ONE_IMAGE)]
        except (CsgError, OSError):  # the server is not ready yet, or stops
            return []

    def _ask_all(self, one: Verification) -> Verification:
        if one.state != "wrong" and one.model not in self._suspects:
            return one
        return next((found for found in self._verify(one.model, Effort()) if found.model == one.model), one)

    def _verify(self, model: str | None, effort: Effort) -> list[Verification]:
        return verify_running(self._repository, self._state, model, effort)
