"""Figures of a comparison, with a panel for each method: embeddings on the circle, and confusion matrices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.markers import MarkerStyle
from matplotlib.transforms import IdentityTransform, Transform

from csg_train.pictures.palette import MARKERS, colour, marker
from csg_train.pictures.plots import confusion_side, draw_confusion, label_lines, plain

CONCENTRATION = 40.0
"""kappa of the von Mises kernel, about 9 degrees."""
BAND = (0.6, 1.08)
"""The points are at random radii between these: on a line they would hide each other."""
RING = (1.15, 1.45)
"""Inner radius of the ring of density, and the radius of its peak."""

TITLE, SMALL = 30, 7
"""Characters in a line of a panel's title, and the size in points of a title with several lines."""


@dataclass(frozen=True)
class Panel:
    """A method, or an encoder to compare it with, measured on N real images of K classes."""

    name: str
    """What the figure calls it."""
    score: float | None
    """Its main score, 0 to 1; None for the untouched encoder, which predicts no class."""
    angles: np.ndarray
    """Angle of each embedding on the circle, float (N,) in radians."""
    true: np.ndarray | None
    """True class of each image, int (N,); None for segmentation, whose images have no single class."""
    confusion: np.ndarray | None
    """Int (K, K), rows true; None for the untouched encoder."""
    energies: tuple[float, ...]
    """E_0, E_1, E_2; empty if there are fewer than two embeddings."""


def angles(embeddings: np.ndarray) -> np.ndarray:
    """The angle of each embedding on the circle, float (N,) in radians.

    The unit vectors are projected on their two leading singular directions, without centring, so that embeddings that
    are close on the sphere are close on the circle. The mean points up, the longer tail to the right.

    Args:
        embeddings: float (N, C).
    """
    unit = embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-12)
    _, _, directions = np.linalg.svd(unit, full_matrices=False)
    plane = unit @ directions[:2].T
    if plane.shape[1] < 2:
        plane = np.hstack([plane, np.zeros((len(plane), 1))])
    mean = np.arctan2(*plane.mean(0)[::-1])
    from_mean = np.angle(np.exp(1j * (np.arctan2(plane[:, 1], plane[:, 0]) - mean)))  # within -pi ... pi
    if (from_mean**3).sum() > 0:
        from_mean = -from_mean
    turned: np.ndarray = from_mean + np.pi / 2
    return turned


def circular_density(points: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Density on the circle by von Mises kernels.

    Args:
        points: angles of the embeddings, (N,).
        at: angles to evaluate the density at, (M,).

    Returns:
        (M,); the integral over the circle is 1.
    """
    kernel = np.exp(CONCENTRATION * (np.cos(at[:, None] - points[None]) - 1))
    density: np.ndarray = kernel.mean(1) / (2 * np.pi * np.i0(CONCENTRATION) * np.exp(-CONCENTRATION))
    return density


def circle_figure(panels: Sequence[Panel], classes: Sequence[str]) -> Figure:
    """Embeddings on the circle, coloured by class, with a ring of density and E_s (docs/method.md section 9)."""
    columns, legend = _columns(len(panels)), [plain(name) for name in classes] if panels[0].true is not None else []
    longest = max(map(len, legend), default=0)
    per_row = max(1, min(len(legend), int(2.6 * columns / (0.4 + 0.085 * longest))))
    around = np.linspace(0, 2 * np.pi, 361)
    densities = [circular_density(panel.angles, around) for panel in panels]
    peak = max(float(density.max()) for density in densities)
    lowest = min(float(np.sin(panel.angles).min()) for panel in panels)
    bottom = lowest * BAND[lowest < 0] - 0.15  # leave out the empty part
    height = 2.6 * (1.6 - bottom) / 3.2 + 0.5
    height += _extra_height(panels)
    figure, axes = _grid(len(panels), 2.6, height, below=0.2 * math.ceil(len(legend) / per_row))
    for axis, panel, density in zip(axes, panels, densities, strict=True):
        axis.add_collection(_points(panel, axis.transData))
        outer = RING[0] + (RING[1] - RING[0]) * density / peak
        x, y = np.cos(around), np.sin(around)
        axis.fill(np.r_[outer * x, RING[0] * x[::-1]], np.r_[outer * y, RING[0] * y[::-1]], color="0.7", lw=0)
        axis.set(xlim=(-1.6, 1.6), ylim=(bottom, 1.6), aspect="equal")
        _title(axis, panel.name, 10)
        axis.axis("off")
        energies = "  ".join(f"$E_{s}$ {value:.3f}" for s, value in enumerate(panel.energies))
        axis.text(0, bottom, energies, ha="center", va="top", fontsize=8)
    if legend:
        axis, numbers = figure.axes[0], range(len(legend))
        handles = [axis.scatter([], [], s=16, lw=0, color=colour(n), marker=marker(n)) for n in numbers]
        figure.legend(handles, legend, loc="outside lower center", ncols=per_row, fontsize=8, frameon=False)
    return figure


def _points(panel: Panel, coordinates: Transform) -> PathCollection:
    """The embeddings as small points at their angles, in random order, so that no class is drawn over the others."""
    rng, count = np.random.default_rng(0), len(panel.angles)
    order, radius = rng.permutation(count), rng.uniform(*BAND, count)
    at = np.stack([radius * np.cos(panel.angles), radius * np.sin(panel.angles)], axis=1)
    true = np.zeros(count, np.int64) if panel.true is None else panel.true
    styles = [MarkerStyle(name) for name in MARKERS]
    shapes = [style.get_path().transformed(style.get_transform()) for style in styles]
    points = PathCollection(
        [shapes[MARKERS.index(marker(true[index]))] for index in order],  # type: ignore[arg-type]
        sizes=[float(np.clip(2000 / count, 1.5, 6))],
        facecolors=["0.4" if panel.true is None else colour(true[index]) for index in order],
        offsets=at[order],
        offset_transform=coordinates,
        linewidths=0,
        alpha=0.6,
    )
    points.set_transform(IdentityTransform())  # of the shapes, whose size is in points
    return points


def confusion_figure(panels: Sequence[Panel], classes: Sequence[str]) -> Figure:
    """Confusion matrices in shares of each true class: rows true, columns predicted.

    Args:
        panels: those with a confusion matrix.
        classes: names of the classes.
    """
    side = confusion_side(len(classes))
    figure, axes = _grid(len(panels), side, side + _extra_height(panels))
    for index, (axis, panel) in enumerate(zip(axes, panels, strict=True)):
        assert panel.confusion is not None
        assert panel.score is not None
        draw_confusion(axis, panel.confusion, classes, names=index % _columns(len(panels)) == 0)
        _title(axis, panel.name, 9, f", {panel.score:.1%}")
    figure.supxlabel("predicted, in % of the true class", fontsize=9)
    figure.supylabel("true", fontsize=9)
    return figure


def _title(axis: Axes, name: str, size: int, more: str = "") -> None:
    """Above a panel: a long name in small lines, whole."""
    lines = label_lines(name, TITLE)
    axis.set_title(lines + more, fontsize=size if "\n" not in lines else SMALL)


def _extra_height(panels: Sequence[Panel]) -> float:
    """Inches for lines of titles after the first."""
    return 0.12 * max(label_lines(panel.name, TITLE).count("\n") for panel in panels)


def _columns(panels: int) -> int:
    return min(panels, math.ceil(math.sqrt(panels * 1.5)))


def _grid(panels: int, width: float, height: float, below: float = 0.0) -> tuple[Figure, list[Any]]:
    columns = _columns(panels)
    rows = math.ceil(panels / columns)
    figure = Figure(figsize=(columns * width, rows * height + 0.5 + below), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis in axes[panels:]:
        axis.axis("off")
    return figure, axes[:panels]
