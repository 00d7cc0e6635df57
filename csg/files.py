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

from csg.errors import InputError, UsageError

LOCK = ".lock"
"""Name of the file that is locked while a process works in a folder."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def is_name(text: str) -> bool:
    """Whether a text is safe as the name of a folder, as `validate_name` wants it."""
    return bool(_NAME.fullmatch(text))


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
    if not is_name(name):
        raise UsageError(
            f"invalid {kind} {name!r}", "use letters, digits, '.', '_' and '-', at most 100, a letter or digit first"
        )
    return name


def check_utf8(path: str | Path) -> None:
    """Raise InputError if a path that files of csg will name is not UTF-8, which they can't hold."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise InputError(f"the path {path} is not UTF-8", "rename it, or make a link to it with another name") from None


def is_empty(folder: Path) -> bool:
    """Whether a folder holds nothing but its lock file."""
    return all(entry.name == LOCK for entry in folder.iterdir())


def absolute(path: Path) -> Path:
    """The path from the root, without `.` and `..`; links are kept, so that its name is the one that was given."""
    return Path(os.path.abspath(path))  # noqa: PTH100 - Path.resolve follows links


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

    Raises:
        OSError: it can't be written; the error names `path`.
    """
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=temporary_prefix(path), dir=path.parent)
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
def atomic_directory(path: Path, shared: bool = False) -> Iterator[Path]:
    """Create a folder atomically.

    Args:
        path: the folder; an empty one, such as that of `new_folder`, is replaced.
        shared: another process may create the same folder with the same content, as in a cache; its folder is kept.

    Yields:
        A temporary folder to fill. It is renamed to `path` if the block succeeds, and removed if it fails.

    Raises:
        InputError: `path` exists at the end and is not empty, and `shared` is false.
        OSError: it can't be written; the error names a file in `path`.
    """
    inside = path.is_dir() and (path.is_mount() or not os.access(path.parent, os.W_OK))
    home = path if inside else path.parent
    with naming(path):
        home.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=temporary_prefix(path), dir=home))
    try:
        with naming(path, temporary):
            temporary.chmod(0o755)
            yield temporary
            for file in temporary.rglob("*"):
                sync(file)
            sync(temporary)
            if inside:
                _move_files(temporary, path)
            else:
                _rename(temporary, path, shared)
            sync(home)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _rename(temporary: Path, path: Path, shared: bool) -> None:
    if path.is_dir() and is_empty(path):
        (path / LOCK).unlink(missing_ok=True)
    try:
        temporary.rename(path)
    except OSError:
        if not path.is_dir():
            raise
        if not shared:
            raise InputError(f"{path} exists already", "name another folder, or remove it") from None


def _move_files(temporary: Path, path: Path) -> None:
    """Move the files of a folder to `path`, which can't be replaced: the root of a disk, or in a read-only folder."""
    if any(entry.name not in (LOCK, temporary.name) for entry in path.iterdir()):
        raise InputError(f"{path} exists already", "name another folder, or remove it")
    for file in sorted(temporary.iterdir()):
        file.rename(path / file.name)


def temporary_prefix(path: Path) -> str:
    """Start of a temporary name beside `path`, short enough for every file system."""
    return f".{path.name[:40]}."


@contextmanager
def naming(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """Let an OSError name the file that a user knows, not a temporary one.

    Args:
        path: what is written.
        temporary: a folder whose files will be in `path`; None: every error is about `path`.
    """
    try:
        yield
    except OSError as error:
        if error.errno is not None:
            name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes | os.PathLike) else None
            if temporary is None or name is None:
                error.filename = str(path)
            elif Path(name).is_relative_to(temporary):
                error.filename = str(path / Path(name).relative_to(temporary))
        raise
