"""What the report shows of a comparison with another evaluation; the template lays it out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from csg.metrics import score_name
from csg_serve.evaluate import charts
from csg_serve.evaluate.against import interval_text
from csg_serve.evaluate.records import AgainstResult, DifferingImage, DifferingScene

PICTURE_SIDE = 160


@dataclass(frozen=True)
class ScoreRow:
    """A score of both models."""

    name: str
    """Name of the score."""
    a: float | None
    """Of the other evaluation."""
    b: float | None
    """Of this one."""
    difference: str
    """The difference in percentage points."""
    interval: str
    """Its 95 % interval."""
    verdict: str
    """Whether this model is better."""


@dataclass(frozen=True)
class DifferingPicture:
    """An image on which the models differ."""

    picture: charts.Thumbnail
    """The image."""
    path: str
    """Its file."""
    found: DifferingImage | DifferingScene
    """What both answered."""


@dataclass(frozen=True)
class AgainstSection:
    """The comparison."""

    other: str
    """The other model."""
    result: AgainstResult
    """The figures."""
    rows: list[ScoreRow]
    """The scores."""
    only_a: list[DifferingPicture]
    """Images that only the other model gets right, or on which this one loses most."""
    only_b: list[DifferingPicture]
    """Images that only this model gets right, or on which it gains most."""


def against_section(result: AgainstResult, images: Sequence[Path]) -> AgainstSection:
    """The section; `images` are the files of the data set."""
    rows = []
    for name, found in result.paired.differences.items():
        rows.append(
            ScoreRow(
                name=score_name(name),
                a=found.a,
                b=found.b,
                difference="–" if found.difference is None else f"{100 * found.difference:+.2f}",
                interval=interval_text(found),
                verdict=result.verdicts[name],
            )
        )
    only_a, only_b = (
        [
            DifferingPicture(charts.thumbnail(images[one.index], PICTURE_SIDE), str(images[one.index]), one)
            for one in some
        ]
        for some in (result.only_a, result.only_b)
    )
    return AgainstSection(result.title, result, rows, only_a=only_a, only_b=only_b)
