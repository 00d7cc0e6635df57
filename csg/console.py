"""What a person sees: words and progress on standard error, results on standard output.

With `--json` standard output holds one JSON object and nothing else.
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

stderr = Console(stderr=True, highlight=False, soft_wrap=True)
stdout = Console(highlight=False, soft_wrap=True)


def log(line: str) -> None:
    """One line for the person at the terminal, on standard error."""
    stderr.print(line, markup=False)


def show_table(title: str, columns: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    """A table on standard output; all columns but the first stand to the right."""
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    stdout.print(table)


def show_key_values(title: str, facts: Mapping[str, str]) -> None:
    """Names and what is to be said of them, on standard output."""
    table = Table(title=title, title_justify="left", show_header=False)
    for name, words_of_it in facts.items():
        table.add_row(Text(name), Text(words_of_it))
    stdout.print(table)


def print_json(result: dict[str, Any]) -> None:
    """The one JSON object of `--json`."""
    json.dump(result, sys.stdout, indent=2, allow_nan=False)
    sys.stdout.write("\n")


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.1f}/s" if task.speed else "", style="cyan")


def progress() -> Progress:
    """A progress bar with rate and time left; silent where standard error is no terminal."""
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
def progress_bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar of its own for one piece of work; what it yields is told how many more are done."""
    with progress() as bar:
        task = bar.add_task(what, total=total, note="")
        yield lambda done: bar.advance(task, done)
