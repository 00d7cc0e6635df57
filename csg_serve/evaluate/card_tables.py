"""The model card as titled lists and tables, for the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from csg.card import ModelCard

SHARES = {"agreement", "accuracy", "mean_class_accuracy", "miou", "pixel_accuracy", "frequency_weighted_iou"}
"""Fields of the card that are shown as percentages."""


@dataclass(frozen=True)
class FieldList:
    """Fields of one part of the card."""

    title: str
    """Name of the part."""
    fields: list[tuple[str, str]]
    """Names and values."""


@dataclass(frozen=True)
class Table:
    """A part of the card with several entries of the same fields."""

    title: str
    """Name of the part."""
    columns: list[str]
    """Names of the fields."""
    rows: list[list[str]]
    """Values of each entry."""


@dataclass(frozen=True)
class CardTables:
    """The whole card."""

    lists: list[FieldList]
    """Parts with one value per field."""
    tables: list[Table]
    """Parts with several entries."""


def card_tables(card: ModelCard) -> CardTables:
    """Lay out a model card; fields without a value are left out."""
    model: dict[str, Any] = {}
    parts: dict[str, dict[str, Any]] = {"model": model}
    tables: dict[str, Sequence[dict[str, Any]]] = {}
    for name, value in card.model_dump(exclude={"colours"}).items():
        if isinstance(value, dict):
            tables |= {f"{name}: {inner}": value.pop(inner) for inner in list(value) if _is_table(value[inner])}
            parts[name] = value
        elif _is_table(value):
            tables[name] = value
        else:
            model[name] = value
    lists = [
        FieldList(title, [(_label(name), text) for name, value in fields.items() if (text := _text(value, name))])
        for title, fields in parts.items()
    ]
    return CardTables(lists, [_table(title, entries) for title, entries in tables.items()])


def _is_table(value: Any) -> bool:
    return isinstance(value, tuple | list) and bool(value) and isinstance(value[0], dict)


def _table(title: str, entries: Sequence[dict[str, Any]]) -> Table:
    names = [name for name in entries[0] if not isinstance(entries[0][name], dict)]
    rows = [[_text(entry.get(name), name) for name in names] for entry in entries]
    return Table(title, [_label(name) for name in names], rows)


def _label(name: str) -> str:
    return "KL" if name == "kl" else name.replace("_", " ")


def _text(value: Any, name: str = "") -> str:
    """A value for a reader; an empty string for None."""
    if value is None:
        return ""
    if name in SHARES:
        return f"{100 * value:.2f} %"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(inner)}" for key, inner in value.items())
    if isinstance(value, tuple | list):
        return ", ".join(f"({_text(inner)})" if isinstance(inner, tuple | list) else _text(inner) for inner in value)
    return str(value)
