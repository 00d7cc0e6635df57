"""Stopping a run: after the first Ctrl-C, SIGTERM or SIGHUP the current step ends and a checkpoint is written."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType

from csg.errors import CsgError


class Stopped(CsgError):
    """The user stopped the run."""

    exit_code = 130


class Interrupted(BaseException):
    """A signal arrived in a block that does not change the training."""


@dataclass
class Stop:
    """A request to stop."""

    wanted: bool = False
    """A signal has arrived."""
    interrupts: bool = False
    """Whether a signal ends what is going on."""

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Catch the first signal inside the block; a second one has its usual effect.

        SIGHUP, the end of a terminal, is left alone where it is ignored, as under nohup. Signals belong to the main
        thread: in another one the block is run as it is.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        old = {int(number): signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        if old[signal.SIGHUP] == signal.SIG_IGN:
            del old[signal.SIGHUP]

        def note(number: int, _: FrameType | None) -> None:
            self.wanted = True
            signal.signal(number, old[number])
            if self.interrupts:
                raise Interrupted

        for number in old:
            signal.signal(number, note)
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """A block that a signal ends at once, such as waiting for images.

        Raises:
            Interrupted: a signal arrives in the block, or has arrived before.
        """
        self.interrupts = True
        try:
            if self.wanted:
                raise Interrupted
            yield
        finally:
            self.interrupts = False
