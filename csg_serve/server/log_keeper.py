"""Keeper of a server's log: writes standard input to a file whose size stays bounded. Standard library only.

    python log_keeper.py LOG        # ends with its input; any further words are ignored

A whole line that repeats the one before is counted, not written: out of file descriptors, Triton's HTTP server writes
the same line half a million times a second. A full file is copied to LOG.1 and emptied, not replaced: the server
holds a lock on it. What can't be written, on a full disk for example, is lost: the server must not wait for its log.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import groupby
from pathlib import Path

MAX_BYTES = 4 * 2**20
"""Size at which the log is emptied; the file with the part before it has the same size."""

CHUNK_BYTES = 2**16


def older_part(log: Path) -> Path:
    """Return the file that holds what was in a log before it was emptied."""
    return log.with_name(f"{log.name}.1")


def keep_log(source: int, log: Path) -> None:
    """Write what comes from a file descriptor to a log until it ends."""
    with log.open("ab", buffering=0) as file:
        for text in _without_repetitions(_lines(source)):
            with suppress(OSError):
                if file.seek(0, os.SEEK_END) + len(text) > MAX_BYTES:
                    _start_over(log)
                file.write(text)


def _start_over(log: Path) -> None:
    try:
        shutil.copyfile(log, older_part(log))
    finally:
        os.truncate(log, 0)


def _lines(source: int) -> Iterator[list[bytes]]:
    """Yield the lines that are there, as soon as they are; a line without an end is cut at the size of a chunk."""
    rest = b""
    while chunk := os.read(source, CHUNK_BYTES):
        *lines, rest = (rest + chunk).splitlines(keepends=True)
        if rest.endswith(b"\n") or len(rest) > CHUNK_BYTES:
            lines, rest = [*lines, rest], b""
        yield lines
    yield [rest]


def _without_repetitions(chunks: Iterable[list[bytes]]) -> Iterator[bytes]:
    """Yield the text of each chunk; how often a line came again follows with the next other line."""
    last, again = b"", 0
    for lines in chunks:
        text = b""
        for line, group in groupby(lines):
            count = sum(1 for _ in group)
            if line == last and line.endswith(b"\n"):
                again += count
                continue
            text += _repetition(last, again) + line
            last, again = line, count - 1
        if text:
            yield text
    yield _repetition(last, again)


def _repetition(line: bytes, again: int) -> bytes:
    return again * line if again < 2 else b"csg: the line above came %d more times\n" % again


if __name__ == "__main__":
    keep_log(sys.stdin.fileno(), Path(sys.argv[1]))
