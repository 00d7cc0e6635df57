"""A tracker in a thread of its own: whatever it does, the training goes on."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from queue import Full, Queue

from csg.console import log
from csg.errors import InputError, one_line
from csg_train.training.trackers.protocol import Tracker

OPENING_S = 60.0
"""How long a tracker may take to open."""
CLOSING_S = 20.0
"""How long a run waits at its end for what its tracker still has to write."""
WAITING = 10_000
"""Calls that may wait; the calls after them are lost."""
Call = Callable[[Tracker], None]


class BackgroundTracker:
    """Passes calls on to a tracker. What it raises is said once, and counted.

    Args:
        name: of the tracker.
        opener: opens it.
    """

    def __init__(self, name: str, opener: Callable[[], Tracker]):
        self.name, self.sent, self.done, self.warned = name, 0, 0, False
        self.calls: Queue[Call | None] = Queue(WAITING)
        self.opened: Future[Tracker] = Future()
        self.thread = threading.Thread(target=self._work, args=(opener,), name=f"tracker {name}", daemon=True)

    def open(self) -> str:
        """Open the tracker; returns its own name of the run.

        Raises:
            InputError: it can't be opened, or takes too long.
        """
        for other in ("urllib3", "mlflow"):  # each would print a line for every failed request
            logging.getLogger(other).setLevel(logging.CRITICAL)
        self.thread.start()
        try:
            return self.opened.result(OPENING_S).id
        except TimeoutError:
            reason = f"no answer within {OPENING_S:.0f} s"
        except Exception as error:
            reason = without_secrets(one_line(error))
        hint = "check its address and the network, or leave it out (docs/how-to/trackers.md)"
        raise InputError(f"tracker {self.name} can't be opened: {reason}", hint)

    def send(self, call: Call) -> None:
        """Let the tracker do something soon."""
        self.sent += 1
        try:
            self.calls.put_nowait(call)
        except Full:
            self._failed("it is too slow")

    def close(self, finished: bool) -> None:
        """Let the tracker write the rest, as long as that takes little time."""
        self.send(partial(_close, finished=finished))
        try:
            self.calls.put_nowait(None)
            self.thread.join(CLOSING_S)
        except Full:
            pass
        if lost := self.sent - self.done:
            log(f"warning: tracker {self.name}: {lost} of {self.sent} updates were not written")

    def _work(self, opener: Callable[[], Tracker]) -> None:
        try:
            tracker = opener()
        except BaseException as error:  # a library may end the process when it is not logged in
            self.opened.set_exception(error if isinstance(error, Exception) else RuntimeError(one_line(error)))
            return
        self.opened.set_result(tracker)
        while call := self.calls.get():
            try:
                call(tracker)
                self.done += 1
            except Exception as error:
                self._failed(without_secrets(one_line(error)))

    def _failed(self, reason: str) -> None:
        if not self.warned:
            log(f"warning: tracker {self.name} failed, the training goes on: {reason}")
        self.warned = True


def _close(tracker: Tracker, finished: bool) -> None:
    tracker.close(finished)


def without_secrets(text: str) -> str:
    """A message without passwords and tokens of addresses.

    Example:
        >>> without_secrets("no answer from http://me:secret@host/?write_token=abc&page=1")
        'no answer from http://...@host/?write_token=...&page=1'
    """
    text = re.sub(r"//[^/@\s]+@", "//...@", text)
    return re.sub(r"([\w-]*(?:token|key|secret|password)[\w-]*=)[^&\s]+", r"\1...", text, flags=re.IGNORECASE)
