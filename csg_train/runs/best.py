"""`csg runs best`: the runs with the highest scores, among those that were measured on the same images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from csg.console import Side, log, print_json, show_line, show_names_table
from csg.did_you_mean import use_one_of
from csg.errors import InputError, UsageError
from csg.metrics import score_name
from csg_train.runs.finding import find_runs
from csg_train.runs.listing import NORM, norm_text
from csg_train.runs.summary import SCORES, RunSummary

SHOWN = 5
"""Runs in a table."""
OPTIMISTIC = (
    "The best of several runs was chosen on the images that it is scored on, so its score is a little too high. "
    "`csg runs compare A B` tests whether two runs differ by more than chance."
)
Group = tuple[str, list[RunSummary]]
"""A score, and the runs that were measured on the same images, the best first."""


def best_command(folders: Sequence[Path], metric: str | None, as_json: bool) -> None:
    """Show the best runs of each set of runs that were measured on the same real images.

    Args:
        folders: with the runs.
        metric: name of a score; None: the main score of each task.
        as_json: print one JSON object.

    Raises:
        UsageError: there is no such score.
        InputError: no run was measured on real images.
    """
    known = [name for names in SCORES.values() for name in names]
    if metric is not None and metric not in known:
        raise UsageError(f"there is no score {metric}", use_one_of(metric, known))
    groups = best_runs(find_runs(folders), metric)
    if not groups:
        what = f" with {metric}" if metric else ""
        raise InputError(f"no finished run was measured on real images{what}", "train with --real-data")
    if as_json:
        print_json({"groups": [_tree(metric, runs) for metric, runs in groups]})
        return
    for score, runs in groups:
        _show(score, runs)
    if any(len(runs) > 1 for _, runs in groups):
        log(OPTIMISTIC)


def best_runs(runs: Sequence[RunSummary], metric: str | None) -> list[Group]:
    """The finished runs in groups that were measured on the same images, the largest group first."""
    groups: dict[tuple[object, ...], list[RunSummary]] = {}
    for run in runs:
        if run.state == "finished" and run.measured == "real" and run.real_fingerprint and run.task:
            score = metric or SCORES[run.task][0]
            if score in run.scores:
                groups.setdefault((score, run.task, run.real_fingerprint, run.images), []).append(run)
    found = [(str(key[0]), _ranked(str(key[0]), members)) for key, members in groups.items()]
    return sorted(found, key=lambda group: -len(group[1]))


def chosen_without_labels(runs: Sequence[RunSummary]) -> RunSummary | None:
    """The run with the highest nuclear norm, of runs measured on the same images; None unless all have one."""
    if any(run.nuclear_norm is None for run in runs):
        return None
    return max(runs, key=lambda run: run.nuclear_norm or 0.0)


def _ranked(score: str, runs: list[RunSummary]) -> list[RunSummary]:
    return sorted(runs, key=lambda run: (-run.scores[score], run.path))


def _tree(score: str, runs: list[RunSummary]) -> dict[str, object]:
    best = runs[0]
    return {
        "metric": score,
        "data": best.measured_data,
        "real_fingerprint": best.real_fingerprint,
        "images": best.images,
        "best": best.path,
        "highest_nuclear_norm": chosen.path if (chosen := chosen_without_labels(runs)) else None,
        "runs": [run.model_dump(mode="json") for run in runs],
    }


def _show(score: str, runs: list[RunSummary]) -> None:
    best, name = runs[0], score_name(score)
    of = "the only run" if len(runs) == 1 else f"the best of {len(runs)} runs"
    title = f"{of}, by {name} on the same {best.images:,} images of {best.measured_data}"
    columns: dict[str, Side] = {
        "run": "left",
        f"{name} %": "right",
        "norm": "right",
        "method": "left",
        "backbone": "left",
        "seed": "right",
    }
    rows = [
        (
            run.path,
            f"{100 * run.scores[score]:.2f}",
            norm_text(run),
            run.method or "-",
            run.backbone or "-",
            f"{run.seed}",
        )
        for run in runs[:SHOWN]
    ]
    show_names_table(title, columns, rows)
    if (chosen := chosen_without_labels(runs)) and len(runs) > 1:
        gap = 100 * (best.scores[score] - chosen.scores[score])
        show_line(f"oracle gap: {chosen.path}, of the highest norm, is {gap:.2f} points behind the best")
        log(NORM)
