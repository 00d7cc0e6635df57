"""How a training shows its progress: a bar on a terminal, otherwise a line every ten seconds."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.progress import Progress, TaskID

from csg.console import log, progress

LINE_EVERY_S = 10.0
WORTH_A_LINE = 0.1
"""A smaller share of the time spent waiting for data is not shown."""


@dataclass
class ProgressReport:
    """The progress of a training from now on."""

    bar: Progress
    """The bar; not shown unless standard error is a terminal."""
    task: TaskID
    """The training in it."""
    first: int
    """Steps made before."""
    steps: int
    """Steps to make in all."""
    started: float = field(default_factory=time.monotonic)
    """When it began."""
    last_line: float | None = None
    """When the last line was printed."""

    @property
    def line_due(self) -> bool:
        """Whether the next step is to be shown in a line."""
        if self.bar.live.is_started:
            return False
        return self.last_line is None or time.monotonic() - self.last_line >= LINE_EVERY_S

    def advance(self) -> None:
        """A step was made."""
        self.bar.advance(self.task)

    def show(self, step: int, loss: float | None, images_per_s: float, waiting: float) -> None:
        """Show the figures of a step, in the bar or in a line; also the share of the time spent waiting, if large."""
        shown = "loss not finite" if loss is None else f"loss {loss:.3f}"
        self.bar.update(self.task, note=shown)
        if self.line_due or (step == self.steps and not self.bar.live.is_started):
            now = time.monotonic()
            left = (now - self.started) / max(1, step - self.first) * (self.steps - step)
            self.last_line = now
            waited = f"  {waiting:.0%} waiting for data" if waiting >= WORTH_A_LINE else ""
            log(f"step {step}/{self.steps}  {shown}  {images_per_s:.0f} images/s{waited}  {duration(left)} left")


def duration(seconds: float) -> str:
    """A duration in words.

    Example:
        >>> duration(75), duration(7500)
        ('1 min 15 s', '2 h 5 min')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


@contextmanager
def progress_report(step: int, steps: int) -> Iterator[ProgressReport]:
    """The progress of a training that continues after `step` of `steps`."""
    with progress() as bar:
        yield ProgressReport(bar, bar.add_task("training", total=steps, completed=step, note=""), step, steps)
