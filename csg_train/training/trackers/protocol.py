"""What a tracker is told of a run, and what it must be able to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from PIL import Image

Setting = str | int | float | bool


@dataclass(frozen=True)
class TrackedRun:
    """A run that a tracker begins or continues to track."""

    folder: Path
    """The run folder, whose name is the run's."""
    id: str | None
    """The tracker's own name of the run if it tracked it before; None for a new one."""
    settings: Mapping[str, Setting]
    """The settings of the run by dotted name."""
    results: tuple[str, ...]
    """Names of the scores among the results."""


class Tracker(Protocol):
    """A program that keeps what a run measures. All its calls come from one thread; whatever they raise is caught."""

    id: str
    """The tracker's own name of the run."""

    def figures(self, step: int, values: Mapping[str, float]) -> None:
        """Figures after `step` steps. A resumed run may repeat those after its last checkpoint."""

    def images(self, step: int, images: Mapping[str, Image.Image]) -> None:
        """RGB images after `step` steps, by name: letters, digits, '.', '_' and '-'."""

    def results(self, step: int, values: Mapping[str, float]) -> None:
        """What the finished run has reached."""

    def close(self, finished: bool) -> None:
        """The training is over, or it was stopped and may be continued."""
