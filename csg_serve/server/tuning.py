"""CPU tuning of a server's processes, and the switch of all tuning: `csg serve --tuning`.

batch-policy  Triton and its Python stubs run under Linux's SCHED_BATCH: a waking thread does not preempt one that is
              computing.

Tuning of the Python backend's sessions has its names in `csg_serve.python_backend.scheduling`. What each setting gains
is in docs/performance-notes.md.
"""

from __future__ import annotations

import os
from contextlib import suppress

from csg.errors import UsageError
from csg_serve.python_backend.scheduling import SESSION_TUNING, TUNING_VARIABLE, is_tuned

__all__ = ["TUNING_VARIABLE", "check_tuning", "scheduling_command", "set_scheduling_policy"]

BATCH_POLICY = "batch-policy"
ALL_TUNING = (BATCH_POLICY, *SESSION_TUNING)

CHRT = ["chrt", "--batch", "0"]


def check_tuning(text: str) -> str:
    """Return `text` if it is "on", "off" or a comma-separated list of tuning settings.

    Raises:
        UsageError: it names an unknown setting.
    """
    if text not in ("on", "off"):
        for name in text.split(","):
            if name not in ALL_TUNING:
                raise UsageError(
                    f"--tuning {text}: unknown setting {name!r}",
                    f"use on, off, or a comma-separated list of {', '.join(ALL_TUNING)}",
                )
    return text


def scheduling_command(tuning: str) -> list[str]:
    """Return the words that start a printed command under the batch policy."""
    return CHRT if is_tuned(BATCH_POLICY, tuning) else []


def set_scheduling_policy(pid: int, tuning: str) -> None:
    """Put a process that was just started, and all it will start, under the batch policy."""
    if is_tuned(BATCH_POLICY, tuning):
        with suppress(OSError):  # a sandbox may forbid it
            os.sched_setscheduler(pid, os.SCHED_BATCH, os.sched_param(0))
