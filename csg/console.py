"""Terminal output: log and progress on standard error, results on standard output.

With `--json`, standard output holds one JSON object and nothing else.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Literal

from rich import box
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

from csg.errors import UsageError, printable
from csg.strict_json import json_text

_IN_A_NOTEBOOK = "ipykernel" in sys.modules  # it takes plain text, whatever its streams say
_PLAIN: dict[str, Any] = {"force_jupyter": False, "force_terminal": False if _IN_A_NOTEBOOK else None}
stderr = Console(stderr=True, highlight=False, soft_wrap=True, **_PLAIN)
stdout = Console(highlight=False, soft_wrap=True, **_PLAIN)
WIDEST = 10_000
"""Width in characters of a table that no terminal limits."""
Side = Literal["left", "right"]
"""Where the cells of a column are aligned."""
LINE_S = 10.0
"""Seconds between two lines of progress where standard error is not a terminal."""


def log(line: str) -> None:
    """Print a line on standard error."""
    stderr.print(Text(printable(line)))


def show_line(line: str) -> None:
    """Print a line on standard output."""
    stdout.print(Text(printable(line)))


def show_table(title: str, columns: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    """Print a table on standard output; all columns but the first are right-aligned."""
    table = Table()
    for number, column in enumerate(columns):
        longest = max(map(len, column.split()), default=0)
        table.add_column(column, justify="right" if number else "left", overflow="fold", min_width=longest)
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    _print_table(title, table)


def show_names_table(title: str, columns: Mapping[str, Side], rows: Iterable[Iterable[str]]) -> None:
    """Print a table whose long names take several lines where the terminal is narrow; numbers stay on one line.

    Args:
        title: of the table.
        columns: their names; those to the right hold numbers.
        rows: the cells of each row.
    """
    table = Table(title=Text(printable(title)), title_justify="left", box=box.SIMPLE_HEAD, padding=0)
    for column, side in columns.items():
        table.add_column(column, justify=side, overflow="fold", no_wrap=side == "right")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    Console(highlight=False).print(table)


def ask(question: str, yes: bool) -> bool:
    """Ask before something is done that can't be undone.

    Args:
        question: without its question mark.
        yes: the answer of `--yes`; then nobody is asked.

    Raises:
        UsageError: standard input is not a terminal, so that nobody can answer.
    """
    if yes:
        return True
    if not sys.stdin.isatty():
        raise UsageError(f"nobody is there to ask: {question}?", "add --yes")
    stderr.print(Text(f"{question}? [y/N] "), end="")
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def show_key_values(title: str, values: Mapping[str, str]) -> None:
    """Print a table of two columns, names and values, on standard output."""
    table = Table(show_header=False)
    for _ in range(2):
        table.add_column(overflow="fold")
    for name, value in values.items():
        table.add_row(Text(printable(name)), Text(printable(value)))
    _print_table(title, table)


def _print_table(title: str, table: Table) -> None:
    """Print a table in full: a terminal folds what does not fit, without lines between; a file or a pipe has space."""
    stdout.print(Text(printable(title), style="italic"), soft_wrap=True)
    wide = Console(file=stdout.file, width=WIDEST, color_system=None, **_PLAIN)
    if not stdout.is_terminal:
        wide.print(table)
        return
    if wide.measure(table).maximum > stdout.width:
        table.box, table.padding = None, (0, 1)
    stdout.print(table)


def print_json(result: dict[str, Any]) -> None:
    """Print the JSON object of `--json`.

    Raises:
        ValueError: the result holds NaN or infinity, which JSON does not have.
    """
    sys.stdout.write(json_text(result) + "\n")


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.1f}/s" if task.speed else "", style="cyan")


def progress() -> Progress:
    """A progress bar with rate and remaining time; invisible if standard error is not a terminal."""
    return Progress(
        TextColumn("{task.description}", markup=False),
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
def progress_bar(description: str, total: int, done: int = 0) -> Iterator[Callable[[int], None]]:
    """A progress bar around one loop; without a terminal, a line every ten seconds.

    Args:
        description: what is done.
        total: number of items.
        done: items that were finished before.

    Yields:
        A function that takes the number of items finished since its last call.

    Example:
        >>> with progress_bar("reading", len(paths)) as advance:
        ...     for path in paths:
        ...         read(path)
        ...         advance(1)
    """
    if not stderr.is_terminal:
        yield _progress_lines(description, total, done)
        return
    with progress() as bar:
        task = bar.add_task(printable(description), total=total, completed=done, note="")
        yield lambda finished: bar.advance(task, finished)


def _progress_lines(description: str, total: int, before: int) -> Callable[[int], None]:
    started = shown = time.monotonic()
    done = before

    def advance(finished: int) -> None:
        nonlocal done, shown
        done, now = done + finished, time.monotonic()
        if now - shown >= LINE_S and before < done < total:
            left = timedelta(seconds=round((now - started) / (done - before) * (total - done)))
            log(f"{description}: {done:,} of {total:,}, {left} left")
            shown = now

    return advance
