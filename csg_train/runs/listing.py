"""`csg runs`: the table of all runs."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from csg.console import Side, log, print_json, show_names_table
from csg.sizes import size_text
from csg_train.runs.finding import find_runs
from csg_train.runs.summary import RunSummary

HELD_OUT = "* on held-out synthetic images"
NORM = "norm: ranks models on the same real images without their labels (nuclear norm); no accuracy"
SPANS = ((1, "s"), (60, "min"), (3600, "h"), (86400, "d"), (7 * 86400, "w"), (365 * 86400, "y"))
COLUMNS: dict[str, Side] = {
    "run": "left",
    "state": "left",
    "score": "right",
    "E_1": "right",
    "norm": "right",
    "method": "left",
    "recipe: data": "left",
    "age": "right",
    "size": "right",
}


def list_command(folders: Sequence[Path], as_json: bool) -> None:
    """List the runs in some folders, the newest first."""
    runs = find_runs(folders)
    if as_json:
        print_json({"runs": [run.model_dump(mode="json") for run in runs]})
        return
    above = common_folder([run.path for run in runs])
    title = f"{len(runs)} run{'s' if len(runs) > 1 else ''} in {above or '.'}; score: mean class accuracy or mIoU, in %"
    show_names_table(title, COLUMNS, [_row(run, above) for run in runs])
    if any(run.measured == "held_out" for run in runs):
        log(HELD_OUT)
    if any(run.nuclear_norm is not None for run in runs):
        log(NORM)
    for run in runs:
        if run.problem and run.state == "damaged":
            log(f"{run.path}: {run.problem}")


def common_folder(paths: Sequence[str]) -> str:
    """The folder that all paths are in; empty for the current one."""
    return os.path.commonpath([Path(path).parent for path in paths]).rstrip(".") if paths else ""


def score_text(run: RunSummary) -> str:
    """The main score in percent, with a star if it was measured on held-out images; a dash without one."""
    return "-" if run.score is None else f"{100 * run.score:.1f}{'*' if run.measured == 'held_out' else ''}"


def norm_text(run: RunSummary) -> str:
    """The nuclear norm of a run; a dash without one, as in runs of older versions."""
    return "-" if run.nuclear_norm is None else f"{run.nuclear_norm:.3f}"


def _row(run: RunSummary, above: str) -> tuple[str, ...]:
    energy = run.energy.get("E_1", math.nan)
    return (
        os.path.relpath(run.path, above or "."),
        run.state,
        score_text(run),
        "-" if math.isnan(energy) else f"{energy:.3f}",
        norm_text(run),
        run.method or "-",
        _recipe_and_data(run),
        _age(run.changed),
        size_text(run.size_bytes),
    )


def _recipe_and_data(run: RunSummary) -> str:
    """The recipe and the training images, once where both have the same name."""
    data = ", ".join(run.data)
    return run.recipe or data or "-" if run.recipe == data or not data else f"{run.recipe or '-'}: {data}"


def _age(changed: str) -> str:
    """The time since a moment, in the largest unit that fits."""
    seconds = max(1.0, (datetime.now(UTC) - datetime.fromisoformat(changed)).total_seconds())
    span, unit = [one for one in SPANS if one[0] <= seconds][-1]
    return f"{seconds // span:.0f} {unit}"
