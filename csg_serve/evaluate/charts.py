"""The shapes of the report's charts, in the units of their SVG; the template draws them."""

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
from csg_serve.evaluate.latency_histogram import STEP, Latencies

SIDE = 300  # of the reliability diagram; LOW is the height of the histogram below it
LOW = 70
WIDTH, HEIGHT, COLUMNS = 640, 180, 40  # of the latencies' histogram
BLUE, ORANGE = (29, 78, 216), (217, 88, 12)  # right and wrong, as in report.css


@dataclass(frozen=True)
class Bar:
    """A rectangle from the top left, and what it says when pointed at; `gap` is the piece up to the mean confidence."""

    x: float
    y: float
    width: float
    height: float
    words: str
    gap: tuple[float, float] = (0, 0)


@dataclass(frozen=True)
class Mark:
    """A place on an axis and its label."""

    at: float
    label: str


def reliability_bars(found: Reliability) -> tuple[list[Bar], list[Bar]]:
    """Accuracy in each bin that has images, with the gap to its confidence; and the share of images in each."""
    width, upper, lower = SIDE / BINS, [], []
    for place in np.flatnonzero(found.images).tolist():
        accuracy, confidence = float(found.accuracy[place]), float(found.mean_confidence[place])
        share = found.images[place] / found.images.max()
        words = (
            f"{place / BINS:.0%} to {(place + 1) / BINS:.0%}: {found.images[place]:,} images, "
            f"mean confidence {confidence:.1%}, accuracy {accuracy:.1%}"
        )
        top, bottom = SIDE * (1 - max(accuracy, confidence)), SIDE * (1 - min(accuracy, confidence))
        left = place * width
        upper.append(Bar(left, SIDE * (1 - accuracy), width, SIDE * accuracy, words, (top, bottom - top)))
        lower.append(Bar(left, LOW * (1 - share), width, LOW * share, words))
    return upper, lower


def latency_bars(found: Latencies) -> tuple[list[Bar], list[Mark], list[Mark]]:
    """Columns of a histogram over a logarithmic axis of milliseconds, the axis' labels, and the percentiles."""
    bins = sorted(found.bins)
    if not bins:
        return [], [], []
    step = max(1, math.ceil((bins[-1] - bins[0] + 1) / COLUMNS))
    first, count = bins[0] // step, bins[-1] // step - bins[0] // step + 1
    columns = np.zeros(count, np.int64)
    for place, images in found.bins.items():
        columns[place // step - first] += images
    width = WIDTH / count

    def edge(column: int) -> float:
        return float(STEP ** ((column + first) * step))

    def at(ms: float) -> float:
        return (math.log(ms, STEP) / step - first) * width

    bars = [
        Bar(
            column * width,
            HEIGHT * (1 - images / columns.max()),
            width,
            HEIGHT * images / columns.max(),
            f"{edge(column):.3g} to {edge(column + 1):.3g} ms: {images:,} images",
        )
        for column, images in enumerate(columns.tolist())
    ]
    round_ones = (digit * 10.0**power for power in range(-3, 7) for digit in (1, 2, 5))
    ticks = [Mark(at(ms), f"{ms:g}") for ms in round_ones if edge(0) <= ms <= edge(count)]
    ticks = ticks or [Mark(0, f"{edge(0):.3g}"), Mark(WIDTH, f"{edge(count):.3g}")]
    return bars, ticks, [Mark(at(ms), f"{name} {ms:.3g} ms") for name, ms in found.percentiles().items()]


def data_uri(content: bytes, kind: str) -> str:
    """A picture inside the page itself."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


@dataclass(frozen=True)
class Thumbnail:
    """A picture as a data URI, None for a file that is not there any more; tiny ones are shown with sharp pixels."""

    uri: str | None
    width: int = 0
    height: int = 0
    sharp: bool = False


def thumbnail(path: Path, side: int) -> Thumbnail:
    """An image file, no side longer than `side`."""
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
    return Thumbnail(data_uri(buffer.getvalue(), "jpeg"), *image.size, longest < side // 2)


def matrix_picture(shares: np.ndarray) -> str:
    """A large confusion matrix, a pixel a cell: the diagonal blue, the rest orange, darker for more of the row."""
    depth = np.sqrt(shares)[..., None]
    diagonal = np.eye(len(shares), dtype=bool)[..., None]
    colours = np.where(diagonal, BLUE, ORANGE)
    pixels = (255 * (1 - depth) + colours * depth).round().astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return data_uri(buffer.getvalue(), "png")
