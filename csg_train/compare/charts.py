"""Charts of a comparison: the scores of each system with their deviations, and the scores over the steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from csg_train.compare.intervals import Estimate
from csg_train.compare.results import MethodResult
from csg_train.pictures.palette import colour, marker
from csg_train.pictures.plots import WIDTH, label_lines

NAME = 40
"""Characters in a line of a system's name."""
DASHES = ("-", "--", ":", "-.")


@dataclass(frozen=True)
class Row:
    """A system in the chart of scores."""

    method: MethodResult
    """Its runs."""
    estimate: Estimate | None
    """The mean of its main score with its interval; None without one."""


def scores_figure(rows: Sequence[Row], score: str, label: str) -> Figure:
    """A row for each system: its seeds as dots, mean and standard deviation, 95 % interval, and the oracle.

    Args:
        rows: from top to bottom.
        score: name of the main score.
        label: what the figure calls it.
    """
    names = [label_lines(row.method.label, NAME) for row in rows]
    lines = 1 + max(name.count("\n") for name in names)
    figure = Figure(figsize=(WIDTH, max(0.36, 0.14 * lines) * len(rows) + 1.5), layout="constrained")
    axis = figure.subplots()
    axis.use_sticky_edges = False  # a margin beside the bars
    for place, row in enumerate(rows):
        values, oracle = (100 * np.array(row.method.values(name)) for name in (score, "best_on_real"))
        mean = values.mean()
        if row.estimate:
            ends = [max(0, 100 * row.estimate.low), min(100, 100 * row.estimate.high)]
            axis.plot(ends, [place, place], color="0.6", lw=1, zorder=1, label="95 % interval")
        if len(values) > 1:
            spread = values.std(ddof=1)
            axis.barh(place, 2 * spread, 0.5, mean - spread, color=colour(4), alpha=0.35, label="standard deviation")
        axis.scatter(values, [place] * len(values), s=14, color=colour(0), zorder=3, label="seed")
        axis.plot([mean, mean], [place - 0.32, place + 0.32], color="black", lw=2, zorder=4, label="mean")
        if len(oracle):
            style: dict[str, Any] = {"s": 26, "facecolors": "none", "edgecolors": colour(1), "marker": "D"}
            axis.scatter(oracle, [place] * len(oracle), label="best step, chosen on the real set", **style)
    axis.set_yticks(range(len(rows)), names, fontsize=9 if lines == 1 else 7)
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.set_xlabel(label, fontsize=9)
    axis.grid(axis="x", color="0.9")
    axis.set_axisbelow(True)
    _legend(figure, 5)
    return figure


def curves_figure(methods: Sequence[MethodResult], label: str) -> Figure:
    """The main score on the real images over the steps: the mean of the seeds, and their range.

    Args:
        methods: those with a curve.
        label: what the figure calls the score.
    """
    figure = Figure(figsize=(WIDTH, 4.2), layout="constrained")
    axis = figure.subplots()
    for index, method in enumerate(methods):
        steps, table = common_curve(method)
        look: dict[str, Any] = {"color": colour(index), "marker": marker(index), "ls": DASHES[index % len(DASHES)]}
        axis.plot(steps, table.mean(0), lw=1.5, ms=4, label=label_lines(method.label, NAME), **look)
        axis.fill_between(steps, table.min(0), table.max(0), color=colour(index), alpha=0.12, lw=0)
    axis.set_xlabel("step", fontsize=9)
    axis.set_ylabel(label, fontsize=9)
    axis.grid(color="0.9")
    _legend(figure, 4)
    return figure


def common_curve(method: MethodResult) -> tuple[list[int], np.ndarray]:
    """The steps at which all of a method's runs were measured, and their scores there in %, (runs, steps)."""
    curves: list[Mapping[int, float]] = [dict(run.curve) for run in method.runs if run.curve]
    steps = sorted(set.intersection(*(set(curve) for curve in curves)))
    return steps, 100 * np.array([[curve[step] for step in steps] for curve in curves])


def _legend(figure: Figure, columns: int) -> None:
    """Each kind of mark once, below the chart."""
    handles, labels = figure.axes[0].get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))
    figure.legend(once.values(), once, loc="outside lower center", ncols=columns, fontsize=8, frameon=False)
