"""What reading a file has shown, kept in the user's cache folder, so that a file is read again only when it changed.

The cache is one SQLite file, which may be removed at any time. Where it can't be used (a folder without write access, a
damaged file, a full disk), one line says so, and files are read each time. It has SQLite's default journal: the faster
one, WAL, needs shared memory, which home folders on a network do not have.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path

from csg.console import log
from csg.errors import one_line
from csg.files import cache_dir

CACHE_FILE = "scan-v1.sqlite"
"""Name of the cache; its number is increased when the format changes."""
MAX_BYTES = 1 << 30
"""A larger cache, about five million files, is emptied."""
WRITE_AFTER = 4096
"""Results that are kept in memory before they are written."""
BUSY_SECONDS = 10
"""How long to wait while another process writes."""
CHECK_BYTES = 4
"""Length of the CRC-32 before each result."""
_TABLE = """
CREATE TABLE IF NOT EXISTS results (kind TEXT, key BLOB, result BLOB, PRIMARY KEY (kind, key)) WITHOUT ROWID
"""
_USED_BYTES = """
SELECT (page_count - freelist_count) * page_size
FROM pragma_page_count, pragma_freelist_count, pragma_page_size
"""


class ScanCache:
    """The cache as one thread uses it (`open_cache`); other processes may use the same file."""

    def __init__(self, connection: sqlite3.Connection | None):
        self._connection = connection
        self._added: list[tuple[str, bytes, bytes]] = []

    def get(self, kind: str, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """The results that are known.

        Args:
            kind: what was computed.
            keys: of what; at most a few thousand at a time.
        """
        if self._connection is None:
            return {}
        query = f"SELECT key, result FROM results WHERE kind = ? AND key IN ({','.join('?' * len(keys))})"
        try:
            rows = self._connection.execute(query, [kind, *keys]).fetchall()
        except (sqlite3.Error, ValueError) as error:
            self._give_up(error)
            return {}
        return {key: row[CHECK_BYTES:] for key, row in rows if row[:CHECK_BYTES] == _check(key, row[CHECK_BYTES:])}

    def put(self, kind: str, key: bytes, result: bytes) -> None:
        """Keep a result; it is written later."""
        self._added.append((kind, key, _check(key, result) + result))
        if len(self._added) >= WRITE_AFTER:
            self.write()

    def write(self) -> None:
        """Write what was added; several processes write one after the other."""
        added, self._added = self._added, []
        if self._connection is None or not added:
            return
        try:
            with self._connection:
                self._connection.executemany("INSERT OR REPLACE INTO results VALUES (?, ?, ?)", added)
        except (sqlite3.Error, ValueError) as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._connection = None
        _say_unused(error)


@contextmanager
def open_cache() -> Iterator[ScanCache]:
    """The user's cache; what was added is written at the end, also when the block fails."""
    try:
        connection = _connect(cache_dir() / CACHE_FILE)
    except (OSError, sqlite3.Error, ValueError) as error:
        _say_unused(error)
        yield ScanCache(None)
        return
    with closing(connection):
        results = ScanCache(connection)
        try:
            yield results
        finally:
            results.write()


def _check(key: bytes, result: bytes) -> bytes:
    """CRC-32 of a result: SQLite does not notice a damaged value."""
    return zlib.crc32(result, zlib.crc32(key)).to_bytes(CHECK_BYTES)


def _connect(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS)
    try:
        connection.execute(_TABLE)
        if connection.execute(_USED_BYTES).fetchone()[0] > MAX_BYTES:
            with connection:
                connection.execute("DELETE FROM results")
    except BaseException:
        connection.close()
        raise
    return connection


def _say_unused(error: Exception) -> None:
    _say_once(f"{cache_dir() / CACHE_FILE} is not used, so every file is read again: {one_line(error)}")


@cache
def _say_once(line: str) -> None:
    log(line)
