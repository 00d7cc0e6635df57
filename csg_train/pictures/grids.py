"""A grid of images with captions, and a legend of classes below it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

from csg.card import Colour
from csg_train.pictures.plots import WIDTH, missing_characters, plain, wrapped

SIZE = 7
"""Size of the text in points."""
CHARACTER = 0.075
"""Width of most characters in inches at that size."""
FEWEST = 4
"""Columns of a grid that has fewer images in a row: they would be larger than they need be."""
LARGEST = 512
"""Longest side of an image in a grid, in pixels."""
UNCOUNTED = "Pixels without a colour are not counted."


@dataclass(frozen=True)
class Cell:
    """An image of a grid."""

    image: Image.Image
    """The RGB image."""
    caption: str = ""
    """What is written above it, in lines of any length."""


@dataclass(frozen=True)
class Grid:
    """Images in rows."""

    title: str
    """Title of the whole."""
    rows: Sequence[Sequence[Cell]]
    """The images; a row may have fewer than the first."""
    names: Sequence[str] = ()
    """Names of the rows; none: they have no names."""
    legend: Sequence[tuple[str, Colour]] = ()
    """Classes and their colours."""


def grid_figure(grid: Grid) -> Figure:
    """Draw a grid."""
    columns = max(FEWEST, *map(len, grid.rows))
    width = (WIDTH - 0.3) / columns
    captions = [[_caption(cell, int(width / CHARACTER)) for cell in row] for row in grid.rows]
    heights = [_height(row, texts, width) for row, texts in zip(grid.rows, captions, strict=True)]
    legend = _Legend.of(grid.legend)
    title = wrapped(grid.title, 90)
    size = (WIDTH, sum(heights) + 0.3 * (1 + title.count("\n")) + legend.height)
    figure = Figure(figsize=size, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.03, h_pad=0.04)  # type: ignore[union-attr, call-arg]
    axes = figure.subplots(len(grid.rows), columns, squeeze=False, height_ratios=heights)
    for axis in axes.flat:
        axis.set_axis_off()
    for row, (cells, texts) in enumerate(zip(grid.rows, captions, strict=True)):
        for axis, cell, text in zip(axes[row], cells, texts, strict=False):
            _draw(axis, cell.image)
            _write(axis, text, width)
        if grid.names:
            axes[row, 0].set_ylabel(plain(grid.names[row]), fontsize=SIZE)
    figure.suptitle(title, fontsize=9)
    legend.draw(figure)
    return figure


def shown_classes(
    names: Sequence[str], colours: Sequence[Colour], maps: Sequence[np.ndarray]
) -> list[tuple[str, Colour]]:
    """The classes that occur in label maps, uint8 (H, W) each, with their colours, for a legend."""
    found = sorted({int(index) for label_map in maps for index in np.unique(label_map)})
    return [(names[index], colours[index]) for index in found if index < len(names)]


def _caption(cell: Cell, width: int) -> str:
    return "\n".join(wrapped(line, width) for line in cell.caption.split("\n")) if cell.caption else ""


def _height(row: Sequence[Cell], captions: Sequence[str], width: float) -> float:
    lines = max(caption.count("\n") + 1 if caption else 0 for caption in captions)
    return max(width * cell.image.height / cell.image.width for cell in row) + 0.13 * lines + 0.06


def _draw(axis: Axes, image: Image.Image) -> None:
    axis.set_axis_on()
    shown = image.copy()
    shown.thumbnail((LARGEST, LARGEST))
    axis.imshow(np.asarray(shown))
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_color("0.7")


def _write(axis: Axes, caption: str, width: float) -> None:
    """Put a caption above an image, smaller if its characters are so wide that it would reach the next one."""
    if not caption:
        return
    title = axis.set_title(caption, fontsize=SIZE, pad=2)
    with missing_characters():
        wanted = title.get_window_extent(FigureCanvasAgg(axis.figure).get_renderer()).width / axis.figure.dpi
    title.set_fontsize(SIZE * min(1.0, width / wanted))


@dataclass(frozen=True)
class _Legend:
    """The classes below a grid, in as many columns as there is room for."""

    classes: Sequence[tuple[str, Colour]]
    columns: int

    @classmethod
    def of(cls, classes: Sequence[tuple[str, Colour]]) -> _Legend:
        longest = max((len(plain(name)) for name, _ in classes), default=0)
        return cls(classes, max(1, min(len(classes), int(WIDTH / (0.5 + CHARACTER * longest)))))

    @property
    def height(self) -> float:
        """Its height in inches."""
        return 0.35 + 0.18 * math.ceil(len(self.classes) / self.columns) if self.classes else 0.0

    def draw(self, figure: Figure) -> None:
        if not self.classes:
            return
        patches = [Patch(facecolor=np.array(colour) / 255, edgecolor="0.5") for _, colour in self.classes]
        names = [plain(name) for name, _ in self.classes]
        legend = figure.legend(
            patches,
            names,
            loc="outside lower center",
            ncols=self.columns,
            fontsize=SIZE,
            frameon=False,
            title=UNCOUNTED,
        )
        legend.get_title().set_fontsize(SIZE)
