"""Colours and markers that can be told apart without colour vision: 7 colours, and a marker beside each colour."""

from __future__ import annotations

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#CC79A7", "#000000")
"""Of Okabe and Ito (2008), without the yellow, which is too pale for small points on white."""
MARKERS = ("o", "^", "s", "D", "v")
"""Names of Matplotlib's markers."""


def colour(index: int) -> str:
    """The colour of a class or a system, by its number from 0."""
    return COLOURS[index % len(COLOURS)]


def marker(index: int) -> str:
    """Its marker: the first 35 numbers differ in colour, marker or both, neighbours in both."""
    return MARKERS[(index + index // len(COLOURS)) % len(MARKERS)]
