"""Opens the labelling page in the browser, and waits until its work is done."""

from __future__ import annotations

import threading
import webbrowser
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from csg.console import log
from csg_serve.client.loop_thread import run_apart
from csg_serve.evaluate.labelling.answers import MergedLabels, open_labels, read_merged
from csg_serve.evaluate.labelling.session import Enough, LabellingSession
from csg_serve.evaluate.labelling.task import LabellingTask


def _in_the_browser(address: str) -> None:
    threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()  # it may wait for the browser


@dataclass(frozen=True)
class LabellingOptions:
    """Who labels, and until when."""

    person: str
    """Name of the person, which is part of the file's name: `labels-NAME.jsonl`."""
    enough: Enough | None = None
    """Looks at the merged answers after each one, and says in a sentence why no more are needed; None: label all."""
    show: Callable[[str], object] | None = _in_the_browser
    """Gets the address of the page; None: it is printed alone."""


def open_labelling(folder: Path, task: LabellingTask, options: LabellingOptions) -> MergedLabels:
    """Let a person label in a page on 127.0.0.1, until nothing is left, "Stop", or Ctrl-C.

    A session that was interrupted goes on where it was left: answers are on disk as soon as they are given.

    Args:
        folder: where the answers of all people are.
        task: the questions; always the same ones in one folder, further ones at the end.
        options: who labels, and until when.

    Returns:
        The answers of all people, merged.

    Raises:
        UsageError: this person is labelling in another process, or the name can't be part of a file's name.
        InputError: a file of answers is damaged.
        OSError: the file can't be written.

    Example:
        >>> task = LabellingTask("digits", ("0", "1"), (AskedItem(Path("photo.jpg")),))
        >>> open_labelling(Path("evaluations/few"), task, LabellingOptions("ana")).labels
        {0: '1'}
    """
    with open_labels(folder, options.person, task.labelled) as file:
        session = LabellingSession(file, task, options.enough)
        if session.is_complete:
            log(f"nothing is left to label in {folder}")
        else:
            with suppress(KeyboardInterrupt):
                run_apart(_label(session, options))
            for problem in session.unreadable.values():
                log(f"not labelled: {problem}")
    return read_merged(folder, task.labelled)


async def _label(session: LabellingSession, options: LabellingOptions) -> None:
    from csg_serve.evaluate.labelling.server import LabellingServer, running  # imports aiohttp, which is slow

    server = LabellingServer(session)
    async with running(server) as address:
        log(f"{len(session.open_items())} to label at {address} until all are labelled, Stop, or Ctrl-C")
        if options.show:
            options.show(address)
        await server.stopped.wait()
