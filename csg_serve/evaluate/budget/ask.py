"""Asks the model about all images: what could be labelled, and how sure the model is of each.

Shape letters: H W pixels of an image, K classes, P points of an image, M candidates.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from csg.console import log, progress_bar
from csg.errors import InputError
from csg.estimates.candidates import Candidates, Floats, Ints
from csg_serve.client.model import OpenModel, title
from csg_serve.client.requests import Sending
from csg_serve.client.stream import iter_answers, probabilities

POINTS = 100_000
"""Points of all images together, about."""
POINTS_OF_IMAGE = (16, 400)
"""Least and most points of an image."""
WINDOWS = (0.02, 0.06)
"""Sides of the windows around a point whose shares of classes stand for its probabilities, in longer sides of the
image."""


@dataclass(frozen=True)
class AskedCandidates:
    """The candidates, and where they are."""

    candidates: Candidates
    """What can be asked about, (M, ...)."""
    image: Ints
    """Index of the image of each, (M,)."""
    point: Ints | None
    """x and y of each in its image, (M, 2); None if candidates are whole images."""
    unreadable: tuple[int, ...]
    """Indices of images that can't be read."""


@dataclass(frozen=True)
class _Rows:
    """The candidates of one image."""

    size: Floats
    probabilities: Floats
    predicted: Ints
    point: Ints | None = None
    place: Floats | None = None


async def ask_model(
    served: OpenModel, paths: Sequence[Path], tile: int | None, skip_unreadable: bool
) -> AskedCandidates:
    """Ask the model about every image.

    Args:
        served: the model.
        paths: the image files.
        tile: side of tiles to send, segmenters only.
        skip_unreadable: leave out images that can't be read.

    Raises:
        InputError: an image can't be read; or none can.
        UsageError, ServerError: as `csg_serve.client.stream.iter_answers`.
    """
    rows: dict[int, _Rows] = {}
    unreadable, count = [], min(max(POINTS // len(paths), POINTS_OF_IMAGE[0]), POINTS_OF_IMAGE[1])
    with progress_bar(title(served), len(paths)) as advance:
        async with aclosing(iter_answers(served, paths, Sending(tile))) as answers:
            async for answer in answers:
                advance(1)
                if isinstance(answer.prediction, InputError):
                    _check_skipped(answer.prediction, skip_unreadable)
                    unreadable.append(answer.index)
                elif served.card.task == "segmentation":
                    made = asyncio.to_thread(_points, answer.prediction, len(served.card.classes), answer.index, count)
                    rows[answer.index] = await made
                else:
                    rows[answer.index] = _image(answer.prediction)
    if not rows:
        raise InputError(f"none of the {len(paths)} images can be read", "repair them")
    return _joined(rows, tuple(unreadable))


def _check_skipped(error: InputError, skip: bool) -> None:
    if not skip:
        raise InputError(error.message, f"{error.hint}, or skip such images with --on-unreadable skip") from None
    log(f"skipped: {error.message}")


def _joined(rows: dict[int, _Rows], unreadable: tuple[int, ...]) -> AskedCandidates:
    parts = list(rows.values())
    points = [one.point for one in parts if one.point is not None]
    places = [one.place for one in parts if one.place is not None]
    return AskedCandidates(
        Candidates(
            size=np.concatenate([one.size for one in parts]),
            probabilities=np.concatenate([one.probabilities for one in parts]),
            predicted=np.concatenate([one.predicted for one in parts]),
            sampled=bool(points),
            place=np.concatenate(places) if places else None,
        ),
        np.repeat(np.array(list(rows)), [len(one.size) for one in parts]),
        np.concatenate(points) if points else None,
        unreadable,
    )


def _image(logits: NDArray[np.generic]) -> _Rows:
    shares = probabilities(logits)
    return _Rows(np.ones(1), shares[None], np.array([shares.argmax()]))


def _points(label_map: NDArray[np.uint8], classes: int, index: int, count: int) -> _Rows:
    """One random point in each cell of a grid of about `count` cells."""
    height, width = label_map.shape
    columns = min(width, max(1, round(np.sqrt(count * width / height))))
    lines = min(height, max(1, round(count / columns)))
    random = np.random.default_rng(index)
    line, column = np.divmod(np.arange(lines * columns), columns)
    x = ((column + random.random(len(column))) * width / columns).astype(np.int64)
    y = ((line + random.random(len(line))) * height / lines).astype(np.int64)
    shares = sum(window_shares(label_map, classes, (x, y), side) for side in WINDOWS) / len(WINDOWS)
    size = np.full(len(x), height * width / len(x))
    point = np.stack([x, y], 1)
    return _Rows(size, np.asarray(shares), label_map[y, x].astype(np.int64), point, (point + 0.5) / (width, height))


def window_shares(label_map: NDArray[np.uint8], classes: int, points: tuple[Ints, Ints], side: float) -> Floats:
    """Share of each class among the predictions in a window around points, (P, K): how sure a label map is there.

    Args:
        label_map: uint8 (H, W).
        classes: number of classes.
        points: x and y of the points, (P,) each.
        side: side of the window, in longer sides of the image.
    """
    (x, y), (height, width) = points, label_map.shape
    reach = max(1, round(side * max(height, width) / 2))
    left, right = np.maximum(x - reach, 0), np.minimum(x + reach + 1, width)
    top, bottom = np.maximum(y - reach, 0), np.minimum(y + reach + 1, height)
    shares = np.zeros((len(x), classes))
    total = np.zeros((height + 1, width + 1), np.int32)
    for name in np.unique(label_map):
        total[1:, 1:] = np.cumsum(np.cumsum(label_map == name, 0, dtype=np.int32), 1)
        inside = total[bottom, right] - total[top, right] - total[bottom, left] + total[top, left]
        shares[:, name] = inside / ((bottom - top) * (right - left))
    return shares
