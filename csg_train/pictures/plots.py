"""What figures share: names as text, legends, PNG files, and a confusion matrix."""

from __future__ import annotations

import re
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from csg.errors import one_line, printable
from csg.files import atomic_write
from csg.overlays import png_bytes

WIDTH = 7.0
"""Width of a figure in inches, about that of a page."""
DPI = 150
"""Pixels in an inch."""
NUMBERED = 12
"""Up to so many classes a confusion matrix has its shares as numbers."""
NAMED = 60
"""Up to so many classes its axes have their names; above they have their indices."""


def plain(text: str, limit: int = 40) -> str:
    """A name from outside as Matplotlib shows it unchanged: `$` would start a formula. Long names are cut.

    Args:
        text: the name.
        limit: maximum length in characters.

    Example:
        >>> plain("a $b$")
        'a \\\\$b\\\\$'
    """
    return one_line(printable(text), limit).replace("$", r"\$")


def wrapped(text: str, width: int) -> str:
    """A name in at most two lines of `width` characters, to be put above or below an image."""
    lines = textwrap.wrap(one_line(printable(text), 2 * width), width) or [""]
    cut = lines[:2] if len(lines) < 3 else [lines[0], one_line(f"{lines[1]} {lines[2]}", width)]
    return "\n".join(cut).replace("$", r"\$")


def label_lines(label: str, width: int) -> str:
    """A method as a user writes it, whole, in lines of at most `width` characters that end between its settings.

    Example:
        >>> label_lines("none:model.training=lora:optim.lr_heads=0.03", 30)
        'none:model.training=lora:\\noptim.lr_heads=0.03'
    """
    parts = [piece for part in re.split("(?<=:)", printable(label)) for piece in textwrap.wrap(part, width)]
    lines = [""]
    for part in parts:
        fits = len(lines[-1]) + len(part) <= width
        lines[-1:] = [lines[-1] + part] if fits else [lines[-1], part]
    return "\n".join(lines).replace("$", r"\$")


@contextmanager
def missing_characters() -> Iterator[None]:
    """Let a font draw a box for a character that it has not, without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def figure_png(figure: Figure) -> bytes:
    """A figure as a PNG file; the same figure gives the same bytes."""
    figure.set_dpi(DPI)
    canvas = FigureCanvasAgg(figure)
    with missing_characters():
        canvas.draw()
    return png_bytes(Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3]))


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG file, atomically."""
    atomic_write(path, figure_png(figure))


def confusion_side(classes: int) -> float:
    """Side of the axes of a confusion matrix in inches, with its names."""
    return max(2.6, 0.26 * min(classes, NAMED) + 1)


def draw_confusion(axis: Axes, confusion: np.ndarray, classes: Sequence[str], names: bool = True) -> None:
    """Draw a confusion matrix in shares of each true class: rows true, columns predicted.

    Args:
        axis: to draw on.
        confusion: int (K, K).
        classes: names of the classes.
        names: write the names of the rows too.
    """
    shares = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if len(classes) <= NAMED:
        labels = [plain(name) for name in classes]
        axis.set_xticks(range(len(classes)), labels, rotation=90, fontsize=7)
        axis.set_yticks(range(len(classes)), labels if names else [], fontsize=7)
    if len(classes) <= NUMBERED:
        for (row, column), share in np.ndenumerate(shares):
            if share >= 0.005:
                shade = "white" if share > 0.5 else "black"
                axis.text(column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=5, color=shade)
