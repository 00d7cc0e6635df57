"""The metrics of a run: `metrics.jsonl` and its trackers, told by the first process."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from PIL import Image

from csg.strict_json import json_text
from csg_train.distributed import rank
from csg_train.training.run_files import METRICS
from csg_train.training.run_folder import Run
from csg_train.training.trackers.tracking import Trackers


@dataclass(frozen=True)
class MetricsLine:
    """A line of `metrics.jsonl`: a JSON object with `step` and figures by name."""

    step: int
    """Steps made so far."""
    figures: dict[str, float | None]
    """Losses (`loss`, `loss/task`, ...), learning rates (`lr/heads`, ...), scores (`real/accuracy`, ...); None for NaN
    and infinity."""

    def to_json(self) -> str:
        """The line, without a line break."""
        return json_text({"step": self.step, **self.figures}, indent=None)

    @classmethod
    def from_json(cls, line: str) -> MetricsLine | None:
        """The record of a line; None if the line is incomplete, after a kill."""
        try:
            figures = json.loads(line, parse_constant=lambda _: None, parse_float=_finite)
            return cls(int(figures.pop("step")), figures)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            return None


def _finite(text: str) -> float | None:
    value = float(text)
    return value if math.isfinite(value) else None


class MetricsLog:
    """Writes the metrics of a run."""

    def __init__(self, run: Run):
        self.run = run

    @contextmanager
    def open(self, step: int, trackers: Trackers) -> Iterator[None]:
        """Continue after `step`; what a killed run wrote after its last checkpoint is dropped.

        So are measurements of `step` itself: they are made again.
        """
        self.trackers = trackers
        if rank():
            yield
            return
        self._truncate(step)
        with self.run.metrics.open("a") as self.lines:
            yield

    def write(self, line: MetricsLine) -> None:
        """Write a line, and tell the trackers."""
        if rank():
            return
        self.lines.write(line.to_json() + "\n")
        self.lines.flush()
        self.trackers.figures(line.step, {n: value for n, value in line.figures.items() if value is not None})

    def images(self, step: int, images: Mapping[str, Image.Image]) -> None:
        """Show the trackers RGB images after `step` steps, by name: letters, digits, '.', '_' and '-'."""
        self.trackers.images(step, images)

    def _truncate(self, step: int) -> None:
        text = self.run.metrics.read_text(errors="replace") if self.run.metrics.is_file() else ""
        found = [line for line in map(MetricsLine.from_json, text.splitlines()) if line]
        lines = [line for line in found if line.step < step or (line.step == step and "loss" in line.figures)]
        self.run.write(METRICS, "".join(f"{line.to_json()}\n" for line in lines))
