"""What a served model says of images, one after the other, behind a progress bar."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path

import numpy as np

from csg.console import counting, say
from csg.errors import InputError
from csg_serve.client import stream
from csg_serve.connection import ServedModel


async def answers(
    served: ServedModel, paths: Sequence[Path], skip: bool, tile: int | None = None
) -> AsyncGenerator[tuple[int, np.ndarray], None]:
    """The place of each image that can be read, and the model's answer, as csg_serve.client.stream gives it.

    Raises:
        InputError: an image can't be read and `skip` is off.
    """
    with counting(f"{served.name} version {served.version}", len(paths)) as advance:
        place = -1
        async with aclosing(stream(served, paths, tile)) as found:
            async for answer in found:
                place += 1
                advance(1)
                if not isinstance(answer, InputError):
                    yield place, answer
                elif skip:
                    say(f"skipped: {answer.what}")
                else:
                    raise InputError(answer.what, f"{answer.todo}, or leave such images out with --unreadable skip")
