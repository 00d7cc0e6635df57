"""What is said of the steps of a training: a line in the terminal, and the figures of every tenth step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from csg.console import log
from csg_train.distributed import mean_over_processes
from csg_train.training.finite import finite_or_none
from csg_train.training.health import Health
from csg_train.training.metrics_log import MetricsLine, MetricsLog
from csg_train.training.optimizer import learning_rates
from csg_train.training.progress_report import ProgressReport
from csg_train.training.throughput import Throughput

EVERY = 10  # steps


@dataclass
class StepLog:
    """Shows and records steps."""

    metrics: MetricsLog
    """Takes the figures."""
    optimiser: torch.optim.Optimizer
    """Knows the learning rates."""
    throughput: Throughput
    """Knows the images in a second."""
    health: Health
    """Is asked where a figure is not finite."""

    def add(self, values: Mapping[str, Tensor], step: int, report: ProgressReport, *, last: bool, line: bool) -> None:
        """Record a step and show it, if it is due.

        Args:
            values: what the step gives to log, still on the device.
            step: its number, counted from 1.
            report: shows it.
            last: the training ends with it.
            line: it is shown in a line of its own.

        Raises:
            InputError: the training diverged.
        """
        recorded = step % EVERY == 0 or last
        if not (recorded or line):
            return
        means = mean_over_processes(torch.stack([value.float() for value in values.values()])).tolist()
        figures = {name: finite_or_none(round(value, 6)) for name, value in zip(values, means, strict=True)}
        if None in figures.values():
            self.health.require_finite(step)
            log(f"warning: step {step}: a loss is not finite")
        images_per_s, waiting = self.throughput.recent(note=recorded)
        report.show(step, figures["loss"], images_per_s, waiting)
        if recorded:
            figures |= {f"lr/{name}": rate for name, rate in learning_rates(self.optimiser).items()}
            self.metrics.write(MetricsLine(step, figures | {"images_per_s": images_per_s}))
