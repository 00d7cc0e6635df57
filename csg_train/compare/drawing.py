"""All figures of a comparison, drawn from what its folder keeps."""

from __future__ import annotations

from pathlib import Path

from csg.console import log
from csg_train.compare.charts import Row, common_curve, curves_figure, scores_figure
from csg_train.compare.intervals import estimate
from csg_train.compare.panels import draw_panels
from csg_train.compare.predictions import method_counts
from csg_train.compare.results import ComparisonResult, MethodResult
from csg_train.pictures.plots import save_figure


def draw_figures(folder: Path, result: ComparisonResult, scores: dict[str, str]) -> None:
    """Draw `scores.png`, `circle.png`, `confusion.png`, and `curves.png` if runs were measured in between.

    Args:
        folder: of the comparison.
        result: what it has found.
        scores: names of the scores, and what a table calls them; the main score first.
    """
    log("drawing the figures")
    name, label = next(iter(scores.items()))
    rows = [_row(folder, method) for method in result.methods]
    save_figure(scores_figure(rows, name, label), folder / "scores.png")
    curved = [method for method in result.methods if any(run.curve for run in method.runs)]
    if curved := [method for method in curved if common_curve(method)[0]]:
        save_figure(curves_figure(curved, label), folder / "curves.png")
    draw_panels(folder, [method.label for method in result.methods])


def _row(folder: Path, method: MethodResult) -> Row:
    """A row of the chart; its interval needs three seeds, with two it would fill the chart."""
    counts = list(method_counts(folder, method).values())
    complete = len(counts) == len(method.runs) > 2 and len(counts[0].labels) > 1
    return Row(method, estimate(counts) if complete else None)
