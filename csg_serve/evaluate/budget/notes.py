"""What a reader has to know about estimates from few labels."""

from __future__ import annotations

from csg.metrics import score_name
from csg_serve.evaluate.budget.result import BudgetResult


def notes(result: BudgetResult) -> list[str]:
    """What a reader has to know about the figures, a sentence each."""
    found = []
    if result.unseen:
        names = ", ".join(result.unseen)
        found.append(f"no label has {names}: the interval of the {score_name(result.main)} holds whatever they may be")
    if result.waiting:
        found.append(f"{result.waiting} labels wait for an open item before them, and do not count yet")
    for one in result.disagreements:
        answers = ", ".join(f"{person}: {name}" for person, name in one.answers.items())
        found.append(f"people differ on item {one.item} ({answers}): {one.settled or 'it is open'}")
    if result.reached is not None and result.half_width is not None:
        found.append(f"the half-width {result.half_width:.1%} is {'reached' if result.reached else 'not reached yet'}")
    if result.unreadable or result.duplicates:
        found.append(f"left out: {result.unreadable} unreadable images, {result.duplicates} duplicates")
    return found
