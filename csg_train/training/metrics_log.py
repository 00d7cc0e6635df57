"""A run's curves: JSON lines and TensorBoard, written by the first process alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

from torch.utils.tensorboard import SummaryWriter

from csg_train.distributed import rank
from csg_train.training.run_folder import Run


class Curves:
    """Where figures of a step are written."""

    def __init__(self, run: Run):
        self.run = run

    @contextmanager
    def open(self, step: int) -> Iterator[None]:
        """Continue the curves after `step`; what a killed run wrote beyond it is dropped."""
        if rank():
            yield
            return
        self._cut(step)
        with SummaryWriter(str(self.run.path), purge_step=step) as self.board, self.run.metrics.open("a") as self.lines:
            yield

    def write(self, step: int, figures: dict[str, float]) -> None:
        """One line, and a point on each curve."""
        if rank():
            return
        self.lines.write(json.dumps({"step": step} | figures) + "\n")
        self.lines.flush()
        for name, value in figures.items():
            self.board.add_scalar(name, value, step)

    def _cut(self, step: int) -> None:
        lines = self.run.metrics.read_text().splitlines() if self.run.metrics.is_file() else []
        kept = [line for line in lines if step and _step_of(line) <= step]
        self.run.write("metrics.jsonl", "".join(f"{line}\n" for line in kept))


def _step_of(line: str) -> int:
    """The step of a line of metrics; a line cut short by a kill counts as later than any."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError):
        return 2**62
