"""Losses, scores on the way and learning rates of a run over its steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from csg_train.pictures.palette import colour, marker
from csg_train.pictures.plots import WIDTH, plain

Points = Sequence[tuple[int, Mapping[str, float | None]]]
"""Steps, and figures by name after them; None for NaN and infinity."""
LOG_SCALE = 50.0
"""Losses that differ by more than this factor have a logarithmic axis."""
DASHES = ("-", "--", ":", "-.")


def run_curves_figure(points: Points, scores: Sequence[str]) -> Figure | None:
    """The curves of a run, with one chart for losses, one for scores and one for learning rates.

    Args:
        points: the lines of `metrics.jsonl`.
        scores: names of the task's scores.

    Returns:
        None if there is no figure of any of these.
    """
    names = list(dict.fromkeys(name for _, figures in points for name in figures))
    kinds = {
        "loss": [name for name in names if name == "loss" or name.startswith("loss/")],
        "score in %": [name for name in names if name.rpartition("/")[2] in scores],
        "learning rate": [name for name in names if name.startswith("lr/")],
    }
    charts = {label: found for label, found in kinds.items() if found}
    if not charts:
        return None
    rows = [max(1.7, 0.17 * len(found) + 0.4) for found in charts.values()]
    figure = Figure(figsize=(WIDTH, sum(rows) + 0.5), layout="constrained")
    axes = figure.subplots(len(charts), 1, squeeze=False, sharex=True, height_ratios=rows)[:, 0]
    for axis, (label, found) in zip(axes, charts.items(), strict=True):
        _chart(axis, points, found, 100.0 if label.endswith("%") else 1.0)
        axis.set_ylabel(label, fontsize=8)
        if label == "loss":
            _scale(axis)
    axes[-1].set_xlabel("step", fontsize=8)
    return figure


def _chart(axis: Axes, points: Points, names: Sequence[str], factor: float) -> None:
    for index, name in enumerate(names):
        curve = {step: figures[name] for step, figures in points if name in figures}
        values = [np.nan if value is None else factor * value for value in curve.values()]
        style: dict[str, Any] = {
            "color": colour(index),
            "ls": DASHES[index // 10 % len(DASHES)],
            "marker": marker(index),
        }
        every = max(1, len(curve) // 8)
        axis.plot(list(curve), values, lw=1.1, ms=3, markevery=every, label=plain(name), **style)
    axis.grid(color="0.9")
    axis.tick_params(labelsize=7)
    axis.legend(loc="upper left", bbox_to_anchor=(1.01, 1), fontsize=7, frameon=False, borderaxespad=0)


def _scale(axis: Axes) -> None:
    values = np.concatenate([np.asarray(line.get_ydata(), float) for line in axis.lines])
    values = values[np.isfinite(values)]
    if len(values) and values.min() > 0 and values.max() / values.min() > LOG_SCALE:
        axis.set_yscale("log")
