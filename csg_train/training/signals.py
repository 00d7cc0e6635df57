"""Stopping a training: the first Ctrl-C or SIGTERM lets the step in progress end, and a checkpoint be written."""

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
    """wanted: a signal has come."""

    wanted: bool = False

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Catch the signals while the block runs; a second one falls through."""
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
