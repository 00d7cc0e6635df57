"""Files that are whole or not there: written under a temporary name, synced, then renamed."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs

from csg.errors import UsageError

_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def validate_name(name: str, what: str) -> str:
    """`name` itself when it can safely be a folder's name: letters, digits, dot, dash, underscore.

    Raises:
        UsageError: it can't.
    """
    if not _PLAIN_NAME.fullmatch(name):
        raise UsageError(f"{what} {name!r} is no plain name", "use letters, digits, '.', '_' and '-' only, at most 100")
    return name


def next_free_path(folder: Path, stem: str) -> Path:
    """The first of stem-1, stem-2, ... that is not taken in `folder`."""
    number = 1
    while (folder / f"{stem}-{number}").exists():
        number += 1
    return folder / f"{stem}-{number}"


def cache_dir() -> Path:
    """Where generated data sets live: $CSG_CACHE, else the user's cache folder."""
    return Path(os.environ.get("CSG_CACHE") or platformdirs.user_cache_dir("csg"))


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Bring a file or a folder's entries to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def atomic_write(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Write a file so that a reader, or a crash, sees the old one or the new one and nothing between."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(mode)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    sync(path.parent)


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """A folder to fill, which takes the name `path` only when the block ends well.

    If another process made `path` meanwhile, that one stays and ours is dropped: both hold the same.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    fresh.chmod(0o755)
    try:
        yield fresh
        for file in fresh.rglob("*"):
            sync(file)
        sync(fresh)
        try:
            fresh.rename(path)
        except OSError:
            if not path.is_dir():
                raise
        sync(path.parent)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
