"""Terminal output: log and progress on standard error, results on standard output.

With `--json`, standard output holds one JSON object and nothing else.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from csg.errors import printable

stderr = Console(stderr=True, highlight=False, soft_wrap=True)
stdout = Console(highlight=False, soft_wrap=True)


def log(line: str) -> None:
    """Print a line on standard error."""
    stderr.print(printable(line), markup=False)


def show_table(title: str, columns: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    """Print a table on standard output; all columns but the first are right-aligned."""
    table = Table(title=Text(printable(title)), title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    stdout.print(table)


def show_key_values(title: str, values: Mapping[str, str]) -> None:
    """Print a table of two columns, names and values, on standard output."""
    table = Table(title=Text(printable(title)), title_justify="left", show_header=False)
    for name, value in values.items():
        table.add_row(Text(printable(name)), Text(printable(value)))
    stdout.print(table)


def print_json(result: dict[str, Any]) -> None:
    """Print the JSON object of `--json`.

    Raises:
        ValueError: the result holds NaN or infinity, which JSON does not have.
    """
    json.dump(result, sys.stdout, indent=2, allow_nan=False)
    sys.stdout.write("\n")


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.1f}/s" if task.speed else "", style="cyan")


def progress() -> Progress:
    """A progress bar with rate and remaining time; invisible if standard error is not a terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=stderr,
        disable=not stderr.is_terminal,
        transient=True,
    )


@contextmanager
def progress_bar(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar around one loop.

    Yields:
        A function that takes the number of items finished since its last call.

    Example:
        >>> with progress_bar("reading", len(paths)) as advance:
        ...     for path in paths:
        ...         read(path)
        ...         advance(1)
    """
    with progress() as bar:
        task = bar.add_task(description, total=total, note="")
        yield lambda done: bar.advance(task, done)
