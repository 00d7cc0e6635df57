"""A part of the report of `csg doctor`, and a problem."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Problem:
    """Something that csg needs and that is wrong."""

    what: str
    """What is wrong."""
    advice: str
    """What to do."""


@dataclass(frozen=True)
class ReportPart:
    """What was found of one kind."""

    title: str
    """What kind."""
    facts: dict[str, str] = field(default_factory=dict)
    """Findings as text, by name."""
    problems: list[Problem] = field(default_factory=list)
    """What is wrong."""
