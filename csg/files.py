"""Atomic files and folders: written under a temporary name, synced to disk, then renamed."""

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

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def validate_name(name: str, kind: str) -> str:
    """Check that a name is safe as a folder name, and return it.

    Args:
        name: the name.
        kind: what the name is, for the error: "model name".

    Raises:
        UsageError: it holds other characters than letters, digits, '.', '_' and '-', or is too long.

    Example:
        >>> validate_name("digits-csg-1", "model name")
        'digits-csg-1'
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"invalid {kind} {name!r}", "use letters, digits, '.', '_' and '-', at most 100, a letter or digit first"
        )
    return name


def next_free_path(folder: Path, stem: str) -> Path:
    """The first of stem-1, stem-2, ... that does not exist in `folder`."""
    number = 1
    while (folder / f"{stem}-{number}").exists():
        number += 1
    return folder / f"{stem}-{number}"


def cache_dir() -> Path:
    """The folder of generated datasets: $CSG_CACHE, or else the user's cache folder."""
    return Path(os.environ.get("CSG_CACHE") or platformdirs.user_cache_dir("csg"))


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def atomic_write(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Write a file atomically: a reader, or a crash, finds the old content or the new one.

    Args:
        path: the file; its folder is created if it does not exist.
        content: the whole content.
        mode: permissions of the file.
    """
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
    """Create a folder atomically.

    If another process creates `path` in the meantime, its folder is kept: both are expected to hold the same.

    Yields:
        A temporary folder to fill. It is renamed to `path` if the block succeeds, and removed if it fails.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    temporary.chmod(0o755)
    try:
        yield temporary
        for file in temporary.rglob("*"):
            sync(file)
        sync(temporary)
        try:
            temporary.rename(path)
        except OSError:
            if not path.is_dir():
                raise
        sync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
