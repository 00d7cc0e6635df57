"""What `csg predict` writes for each image: lines for people, CSV, JSON Lines."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from csg.card import ModelCard
from csg.console import show_line
from csg.strict_json import json_text

RowFormat = Literal["text", "csv", "jsonl"]
"""Forms of the rows."""
SHOWN_CLASSES = 3
"""Classes of a mask that a line for people names."""
Shares: TypeAlias = dict[str, float]
"""Names of classes with their probabilities, or with their shares of the pixels, largest first."""


@dataclass(frozen=True)
class ClassPrediction:
    """The most probable classes of an image."""

    image: str
    """Name of the image."""
    top: Shares
    """Its most probable classes."""

    def to_dict(self) -> dict[str, object]:
        """The keys of `csg predict --json`."""
        found = [{"class": name, "confidence": share} for name, share in self.top.items()]
        return {"image": self.image, **found[0], **({"top": found} if found[1:] else {})}

    def to_text(self) -> str:
        """The line for people."""
        return f"{self.image}: {', '.join(f'{name} {share:.1%}' for name, share in self.top.items())}"

    def to_cells(self, classes: tuple[str, ...]) -> list[object]:
        """The cells of the CSV row."""
        return [cell for name, share in self.top.items() for cell in (name, round(share, 6))]


@dataclass(frozen=True)
class MaskPrediction:
    """The mask of an image."""

    image: str
    """Name of the image."""
    mask: Path
    """PNG of class indices, with the classes' colours as its palette."""
    overlay: Path
    """PNG of the image under the coloured mask."""
    classes: Shares
    """Share of the pixels of each class that occurs."""

    def to_dict(self) -> dict[str, object]:
        """The keys of `csg predict --json`."""
        return {
            "image": self.image, "mask": str(self.mask), "overlay": str(self.overlay), "classes": self.classes
        }  # fmt: skip

    def to_text(self) -> str:
        """The line for people."""
        largest = list(self.classes.items())[:SHOWN_CLASSES]
        return f"{self.image}: {', '.join(f'{name} {share:.0%}' for name, share in largest)} ({self.mask})"

    def to_cells(self, classes: tuple[str, ...]) -> list[object]:
        """The cells of the CSV row."""
        shares = [round(self.classes.get(name, 0.0), 6) for name in classes]
        return [_utf8(str(self.mask)), _utf8(str(self.overlay)), *shares]


@dataclass(frozen=True)
class UnreadImage:
    """An image that can't be read."""

    image: str
    """Name of the image."""
    error: str
    """Why."""
    hint: str
    """What to do."""

    def to_dict(self) -> dict[str, object]:
        """The keys of `csg predict --json`."""
        return {"image": self.image, "error": self.error}


Row: TypeAlias = ClassPrediction | MaskPrediction | UnreadImage
"""What is written for an image."""


def row_writer(form: RowFormat, card: ModelCard, top: int) -> Callable[[Row], None]:
    """The function that writes a row to standard output, where it arrives at once.

    Args:
        form: the form of the rows.
        card: card of the model.
        top: number of classes that a classifier's rows have.
    """
    if form == "text":
        return lambda row: None if isinstance(row, UnreadImage) else show_line(row.to_text())
    if form == "jsonl":
        return lambda row: _write(json_text(row.to_dict(), indent=None) + "\n")
    columns = _columns(card, min(top, len(card.classes)))
    table = csv.writer(sys.stdout, lineterminator="\n")

    def write(row: Row) -> None:
        cells = [""] * len(columns) if isinstance(row, UnreadImage) else row.to_cells(card.classes)
        error = row.error if isinstance(row, UnreadImage) else ""
        table.writerow([_utf8(row.image), *cells, _utf8(error)])
        sys.stdout.flush()

    table.writerow(["image", *columns, "error"])
    return write


def _columns(card: ModelCard, top: int) -> list[str]:
    """The columns of the CSV table between the image and the error."""
    if card.task == "segmentation":
        return ["mask", "overlay", *(f"share_{name}" for name in card.classes)]
    numbers = ["", *(f"_{number}" for number in range(2, top + 1))]
    return [column for number in numbers for column in (f"class{number}", f"confidence{number}")]


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _utf8(name: str) -> str:
    """A name with bytes that are not UTF-8 written as `\\xe9`."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")
