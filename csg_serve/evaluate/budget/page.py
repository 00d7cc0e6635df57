"""The report of an evaluation with few labels: one HTML page without scripts, other files or network requests."""

from __future__ import annotations

from pathlib import Path

from csg.errors import InputError
from csg.files import atomic_write
from csg.metrics import score_name
from csg_serve.evaluate.budget.notes import notes
from csg_serve.evaluate.budget.result import BudgetResult
from csg_serve.evaluate.report import page_environment


def write_budget_page(path: Path, result: BudgetResult) -> None:
    """Write the page.

    Raises:
        InputError: the page can't be written there.
    """
    template = page_environment().get_template("few-labels.html.j2")
    page = template.render(result=result, notes=notes(result), score_name=score_name)
    try:
        atomic_write(path, page.encode())
    except OSError as error:
        raise InputError(f"{path} can't be written: {error.strerror}", "give another file to --report") from None
