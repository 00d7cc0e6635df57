"""Geometry of the report's charts, in the units of their SVG, and pictures as data URIs; the templates draw them."""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from csg.errors import InputError
from csg.images import decode
from csg.metrics import BINS, Reliability
from csg_serve.evaluate.latency_histogram import BIN_RATIO, LatencyHistogram

SIDE = 300
"""Side of the reliability diagram."""
LOW = 70
"""Height of the confidence histogram below it."""
WIDTH, HEIGHT, COLUMNS = 640, 180, 40
"""Size of the latency histogram, and its columns at most."""
BLUE, ORANGE = (29, 78, 216), (217, 88, 12)
"""Colours of correct and wrong answers, as in report.css."""


@dataclass(frozen=True)
class Bar:
    """A rectangle of a chart."""

    x: float
    """Left edge."""
    y: float
    """Top edge."""
    width: float
    """Width."""
    height: float
    """Height."""
    label: str
    """Text shown when the pointer is over it."""
    gap: tuple[float, float] = (0, 0)
    """Top edge and height of the part between accuracy and mean confidence."""


@dataclass(frozen=True)
class Mark:
    """A labelled position on an axis."""

    x: float
    """Position."""
    label: str
    """Text."""


@dataclass(frozen=True)
class LatencyChart:
    """Histogram of latencies over a logarithmic axis of milliseconds."""

    bars: list[Bar]
    """Columns."""
    ticks: list[Mark]
    """Labels of the axis."""
    percentiles: list[Mark]
    """p50, p90 and p99."""


def reliability_bars(found: Reliability) -> tuple[list[Bar], list[Bar]]:
    """Bars of the reliability diagram and of the confidence histogram, for each bin that has images."""
    width, upper, lower = SIDE / BINS, [], []
    for index in np.flatnonzero(found.images).tolist():
        accuracy, confidence = float(found.accuracy[index]), float(found.mean_confidence[index])
        share = found.images[index] / found.images.max()
        label = (
            f"{index / BINS:.0%} to {(index + 1) / BINS:.0%}: {found.images[index]:,} images, "
            f"mean confidence {confidence:.1%}, accuracy {accuracy:.1%}"
        )
        top, bottom = SIDE * (1 - max(accuracy, confidence)), SIDE * (1 - min(accuracy, confidence))
        left = index * width
        upper.append(Bar(left, SIDE * (1 - accuracy), width, SIDE * accuracy, label=label, gap=(top, bottom - top)))
        lower.append(Bar(left, LOW * (1 - share), width, LOW * share, label=label))
    return upper, lower


def latency_chart(found: LatencyHistogram) -> LatencyChart:
    """The chart of a histogram, with at most about COLUMNS columns."""
    bins = sorted(found.bins)
    if not bins:
        return LatencyChart([], [], [])
    step = max(1, math.ceil((bins[-1] - bins[0] + 1) / COLUMNS))
    first, count = bins[0] // step, bins[-1] // step - bins[0] // step + 1
    columns = np.zeros(count, np.int64)
    for index, images in found.bins.items():
        columns[index // step - first] += images
    width = WIDTH / count

    def edge(column: int) -> float:
        return float(BIN_RATIO ** ((column + first) * step))

    def position(ms: float) -> float:
        return (math.log(ms, BIN_RATIO) / step - first) * width

    bars = []
    for column, images in enumerate(columns.tolist()):
        height = HEIGHT * images / columns.max()
        label = f"{edge(column):.3g} to {edge(column + 1):.3g} ms: {images:,} images"
        bars.append(Bar(column * width, HEIGHT - height, width, height, label=label))
    round_values = (digit * 10.0**power for power in range(-3, 7) for digit in (1, 2, 5))
    ticks = [Mark(position(ms), f"{ms:g}") for ms in round_values if edge(0) <= ms <= edge(count)]
    ticks = ticks or [Mark(0, f"{edge(0):.3g}"), Mark(WIDTH, f"{edge(count):.3g}")]
    percentiles = [Mark(position(ms), f"{name} {ms:.3g} ms") for name, ms in found.percentiles().items()]
    return LatencyChart(bars, ticks, percentiles)


def data_uri(content: bytes, kind: str) -> str:
    """An image embedded in the page."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


@dataclass(frozen=True)
class Thumbnail:
    """A small version of an image file."""

    uri: str | None
    """Data URI; None if the file can't be read any more."""
    width: int = 0
    """Width in pixels."""
    height: int = 0
    """Height in pixels."""
    sharp: bool = False
    """The image is tiny, and is shown enlarged without smoothing."""


def thumbnail(path: Path, side: int) -> Thumbnail:
    """An image file with no side longer than `side`."""
    try:
        image = decode(path)
    except InputError:
        return Thumbnail(None)
    longest = max(image.size)
    if longest < side // 2:
        scale = side // longest
        image = image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
    image.thumbnail((side, side))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=82)
    return Thumbnail(data_uri(buffer.getvalue(), "jpeg"), *image.size, sharp=longest < side // 2)


def matrix_picture(shares: np.ndarray) -> str:
    """A large confusion matrix, one pixel per cell: blue diagonal, orange errors, darker for a larger share."""
    depth = np.sqrt(shares)[..., None]
    diagonal = np.eye(len(shares), dtype=bool)[..., None]
    colours = np.where(diagonal, BLUE, ORANGE)
    pixels = (255 * (1 - depth) + colours * depth).round().astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return data_uri(buffer.getvalue(), "png")
