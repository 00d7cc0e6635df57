"""Stopping a run: after the first Ctrl-C or SIGTERM the current step ends and a checkpoint is written."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType

from csg.errors import CsgError


class Stopped(CsgError):
    """The user stopped the run."""

    exit_code = 130


@dataclass
class Stop:
    """A request to stop."""

    wanted: bool = False
    """A signal has arrived."""

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Catch the first signal inside the block; a second one has its usual effect."""
        old = {int(number): signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

        def note(number: int, _: FrameType | None) -> None:
            self.wanted = True
            signal.signal(number, old[number])

        for number in old:
            signal.signal(number, note)
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)
