"""Colours and markers that can be told apart without colour vision: 10 colours, and a marker beside each colour."""

from __future__ import annotations

COLOURS = (
    *("#332288", "#CC6677", "#117733", "#DDCC77", "#88CCEE", "#882255", "#44AA99", "#999933", "#AA4499"),
    "#000000",
)
"""Tol's scheme "muted" (Paul Tol, Colour Schemes, 2021), and black."""
MARKERS = ("o", "^", "s", "D", "v")
"""Names of Matplotlib's markers."""


def colour(index: int) -> str:
    """The colour of a class or a system, by its number from 0."""
    return COLOURS[index % len(COLOURS)]


def marker(index: int) -> str:
    """Its marker: the first 50 numbers differ in colour, marker or both, neighbours in both."""
    return MARKERS[(index + index // len(COLOURS)) % len(MARKERS)]
