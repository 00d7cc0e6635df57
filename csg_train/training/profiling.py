"""`csg train --profile N`: what the time of some steps of a training is spent on, by torch.profiler."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch.profiler import ProfilerAction, ProfilerActivity, profile

from csg.console import log
from csg.files import atomic_write
from csg_train.distributed import rank
from csg_train.training.run_files import PROFILE
from csg_train.training.run_folder import Run

WARM_UP = 5
"""Steps before the profile: the first ones also start loader processes, and choose and compile kernels."""
ROWS = 60
"""Operations in the table."""
TABLE, TRACE = "table.txt", "trace.json.gz"
WAIT = "csg: wait for a batch"
"""What a trace calls the waiting for a batch."""


class NoProfile:
    """Takes the place of a profiler where nothing is profiled."""

    def step(self) -> None:
        """A step was made."""


@contextmanager
def profiled(run: Run, count: int, left: int) -> Iterator[profile | NoProfile]:
    """A block of steps, some of which the first process profiles; the results are written into the run folder.

    Args:
        run: its folder.
        count: steps to profile; 0: none.
        left: steps that the training still makes: with fewer than wanted, warm-up and profile are shorter.
    """
    if not (count and left) or rank():
        yield NoProfile()
        return
    warm_up, count = fitting(count, left)
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * torch.cuda.is_available()

    def action(step: int) -> ProfilerAction:
        if step >= warm_up + count:
            return ProfilerAction.NONE
        if step < warm_up:
            return ProfilerAction.WARMUP
        return ProfilerAction.RECORD if step < warm_up + count - 1 else ProfilerAction.RECORD_AND_SAVE

    def write(found: profile) -> None:
        _write(run, found, found.step_num - warm_up)

    with profile(activities=activities, schedule=action, on_trace_ready=write) as profiler:
        yield profiler


def fitting(count: int, left: int) -> tuple[int, int]:
    """Steps of warm-up and of the profile, if `count` are wanted and the training has `left` of them.

    Example:
        >>> fitting(20, 100), fitting(20, 22), fitting(20, 8), fitting(1, 1)
        ((5, 20), (2, 20), (1, 7), (0, 1))
    """
    count = min(count, max(1, left - 1))  # one step at least warms up, if there are two
    return min(WARM_UP, left - count), count


def _write(run: Run, found: profile, steps: int) -> None:
    folder = run.path / PROFILE
    order = "self_device_time_total" if ProfilerActivity.CUDA in found.activities else "self_cpu_time_total"
    table = found.key_averages().table(sort_by=order, row_limit=ROWS, max_name_column_width=80)
    atomic_write(folder / TABLE, f"{steps} steps\n{table}\n".encode())
    with TemporaryDirectory() as temporary:
        trace = Path(temporary) / TRACE
        found.export_chrome_trace(str(trace))
        atomic_write(folder / TRACE, trace.read_bytes())
    log(f"profile of {steps} steps in {folder}: {TABLE}, and {TRACE} for https://ui.perfetto.dev or chrome://tracing")
