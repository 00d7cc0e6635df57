"""What reading a file has shown, kept in the user's cache folder, so that a file is read again only when it changed.

The cache is one SQLite file, which may be removed at any time. Where it can't be used (a folder without write access, a
damaged file, a full disk), one line says so, and files are read each time. It has SQLite's default journal: the faster
one, WAL, needs shared memory, which home folders on a network do not have.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from csg.console import log
from csg.errors import one_line
from csg.files import cache_dir

CACHE_FILE = "scan-v1.sqlite"
"""Name of the cache; its number is increased when what it holds changes its meaning."""
MAX_BYTES = 1 << 30
"""A larger cache, about five million files, is emptied."""
WRITE_AFTER = 4096
"""Rows that are kept in memory before they are written."""
BUSY_SECONDS = 10
"""How long to wait while another process writes."""
_TABLES = """
CREATE TABLE IF NOT EXISTS files (path BLOB PRIMARY KEY, state TEXT, digest BLOB, format TEXT, mode TEXT,
    width INTEGER, height INTEGER, problem TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS contents (digest BLOB, kind TEXT, result BLOB, PRIMARY KEY (digest, kind)) WITHOUT ROWID;
"""


class FileScan(NamedTuple):
    """What reading a file once has shown."""

    path: bytes
    """Absolute path."""
    state: str
    """What changes with the file: size, times and inode."""
    digest: bytes
    """SHA-256 of the content; zeros if it can't be read."""
    format: str
    """Format of the image, such as PNG; empty if the file is no image."""
    mode: str
    """Pillow's mode, such as RGB; empty if the file is no image."""
    width: int
    """Width in pixels, with EXIF orientation applied as `csg.images.decode` does; 0 if the file is no image."""
    height: int
    """Height in pixels."""
    problem: str
    """Why it can't be read as an image, such as `does not exist`; empty if its header can be read."""


class ContentRow(NamedTuple):
    """A result that is kept of a content, wherever it is."""

    digest: bytes
    """SHA-256 of the content."""
    kind: str
    """What was computed."""
    result: bytes
    """The result."""


class ScanCache:
    """The cache of one scan, used by one thread; several processes may use the same file. See `open_cache`."""

    def __init__(self, connection: sqlite3.Connection | None):
        self._connection = connection
        self._files: list[FileScan] = []
        self._contents: list[ContentRow] = []

    def files(self, paths: Sequence[bytes]) -> dict[bytes, FileScan]:
        """What is known of files, by path; at most a few thousand paths at a time."""
        query = f"SELECT {','.join(FileScan._fields)} FROM files WHERE path IN ({','.join('?' * len(paths))})"
        return {row[0]: FileScan._make(row) for row in self._select(query, paths)}

    def contents(self, kind: str, digests: Sequence[bytes]) -> dict[bytes, bytes]:
        """The results of one kind that are known of contents, by digest; at most a few thousand at a time."""
        query = f"SELECT digest, result FROM contents WHERE kind = ? AND digest IN ({','.join('?' * len(digests))})"
        return dict(self._select(query, [kind, *digests]))

    def add_file(self, row: FileScan) -> None:
        """Keep what was read of a file."""
        self._files.append(row)
        if len(self._files) >= WRITE_AFTER:
            self.write()

    def add_content(self, row: ContentRow) -> None:
        """Keep a result."""
        self._contents.append(row)
        if len(self._contents) >= WRITE_AFTER:
            self.write()

    def write(self) -> None:
        """Write what was added; several processes write one after the other."""
        files, contents = self._files, self._contents
        self._files, self._contents = [], []
        if self._connection is None or not (files or contents):
            return
        try:
            with self._connection:
                self._connection.executemany("INSERT OR REPLACE INTO files VALUES (?,?,?,?,?,?,?,?)", files)
                self._connection.executemany("INSERT OR REPLACE INTO contents VALUES (?,?,?)", contents)
        except sqlite3.Error as error:
            self._give_up(error)

    def _select(self, query: str, values: Sequence[object]) -> list[Any]:
        if self._connection is None:
            return []
        try:
            return self._connection.execute(query, values).fetchall()
        except sqlite3.Error as error:
            self._give_up(error)
            return []

    def _give_up(self, error: Exception) -> None:
        self._connection = None
        _say_unused(error)


@contextmanager
def open_cache() -> Iterator[ScanCache]:
    """The user's cache; what was added is written at the end, also when the block fails."""
    try:
        connection = _connect(cache_dir() / CACHE_FILE)
    except (OSError, sqlite3.Error) as error:
        _say_unused(error)
        yield ScanCache(None)
        return
    with closing(connection):
        cache = ScanCache(connection)
        try:
            yield cache
        finally:
            cache.write()


def _connect(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS)
    try:
        connection.executescript(_TABLES)
        used = "SELECT (page_count - freelist_count) * page_size FROM pragma_page_count, pragma_freelist_count, "
        if connection.execute(f"{used} pragma_page_size").fetchone()[0] > MAX_BYTES:
            with connection:
                connection.execute("DELETE FROM files")
                connection.execute("DELETE FROM contents")
    except BaseException:
        connection.close()
        raise
    return connection


def _say_unused(error: Exception) -> None:
    _say_once(f"{cache_dir() / CACHE_FILE} is not used, so every file is read again: {one_line(error)}")


@cache
def _say_once(line: str) -> None:
    log(line)
