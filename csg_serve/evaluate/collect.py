"""What a served model says of images, one after the other, behind a progress bar."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import numpy as np

from csg.console import log, progress_bar
from csg.errors import InputError
from csg_serve.client.client import answered
from csg_serve.client.connection import ServedModel
from csg_serve.evaluate.journal import Journal


async def answers(
    served: ServedModel, paths: Sequence[Path], tile: int | None = None
) -> AsyncGenerator[tuple[int, np.ndarray], None]:
    """The place of each image, in order, and the model's answer, as csg_serve.client.client.answered gives it.

    Raises:
        InputError: an image can't be read.
    """
    with progress_bar(f"{served.name} version {served.version}", len(paths)) as advance:
        async with aclosing(answered(served, paths, tile)) as found:
            async for one in found:
                advance(1)
                if isinstance(one.answer, InputError):
                    raise one.answer
                yield one.place, one.answer


async def ask_and_keep(
    served: ServedModel,
    paths: Sequence[Path],
    journal: Journal,
    line: Callable[[int, np.ndarray], Awaitable[dict[str, Any]]],
    skip: bool,
    tile: int | None = None,
    ordered: bool = False,
) -> None:
    """Ask for every image that has no line in the journal, and write it.

    Args:
        line: what is kept of an image, from its place and the model's answer.
        skip: leave out images that can't be read.
        ordered: write the lines in the order of `paths`, not as the answers come.

    Raises:
        InputError: an image can't be read and `skip` is off.
    """
    pending = journal.pending()
    if not pending:
        return
    journal.begin(served.server)
    with progress_bar(f"{served.name} version {served.version}", len(paths)) as advance:
        advance(len(paths) - len(pending))
        async with aclosing(answered(served, [paths[place] for place in pending], tile, ordered)) as found:
            async for one in found:
                place, answer = pending[one.place], one.answer
                if not isinstance(answer, InputError):
                    journal.add(place, ms=round(1000 * one.request_s, 3), **await line(place, answer))
                elif skip:
                    log(f"skipped: {answer.message}")
                    journal.add(place, skipped=answer.message)
                else:
                    raise InputError(
                        answer.message, f"{answer.hint}, or leave such images out with --on-unreadable skip"
                    )
                advance(1)
