"""The confusion matrix of the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from csg_serve.evaluate import charts

MAX_TABLE_CLASSES = 40
"""With more classes the matrix is drawn as a picture."""
PAIRS, PICTURE_PAIRS = 10, 30
"""Confused pairs listed beside the table and beside the picture."""


@dataclass(frozen=True)
class ConfusedPair:
    """Two classes that the model confuses."""

    true: str
    """True class."""
    predicted: str
    """Predicted class."""
    count: int
    """Images or pixels."""
    share: float
    """Share of the true class."""


@dataclass(frozen=True)
class MatrixRow:
    """One true class of the matrix."""

    name: str
    """Name of the true class."""
    counts: list[int]
    """Images or pixels, by predicted class."""
    shares: list[float]
    """Shares of the true class."""


@dataclass(frozen=True)
class ConfusionMatrix:
    """The matrix as a table, or as a picture if there are many classes."""

    columns: Sequence[str]
    """Names of the predicted classes."""
    rows: list[MatrixRow]
    """True classes; empty if the matrix is a picture."""
    picture: str | None
    """Picture as a data URI; None if the matrix is a table."""
    pairs: list[ConfusedPair]
    """The pairs that are confused most, most first."""


def confusion_matrix(names: Sequence[str], columns: Sequence[str], counts: np.ndarray) -> ConfusionMatrix:
    """Lay out a matrix of counts.

    Args:
        names: names of the true classes, K of them.
        columns: names of the predicted classes; the first K are the true ones.
        counts: int (K, number of columns).
    """
    totals = counts.sum(1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    wrong = np.where(np.eye(len(counts), counts.shape[1], dtype=bool), 0, counts)
    as_table = len(names) <= MAX_TABLE_CLASSES
    order = np.argsort(-wrong, axis=None, kind="stable")[: PAIRS if as_table else PICTURE_PAIRS]
    cells = [divmod(int(cell), counts.shape[1]) for cell in order if wrong.flat[cell]]
    pairs = [
        ConfusedPair(names[row], columns[column], int(counts[row, column]), float(shares[row, column]))
        for row, column in cells
    ]
    lines = zip(names, counts.tolist(), shares.tolist(), strict=True)
    rows = [MatrixRow(name, row_counts, row_shares) for name, row_counts, row_shares in lines] if as_table else []
    picture = None if as_table else charts.matrix_picture(shares[:, : len(names)])
    return ConfusionMatrix(columns, rows, picture, pairs)
