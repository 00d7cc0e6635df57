"""Atomic files and folders: written under a temporary name, synced to disk, then renamed."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import platformdirs

from csg.console import log
from csg.errors import InputError, UsageError

LOCK = ".lock"
"""Name of the file that is locked while a process works in a folder."""
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


@contextmanager
def new_folder(out: Path | None, parent: Path, stem: str) -> Iterator[Path]:
    """Create a folder to work in, and lock it: two processes never work in one.

    Args:
        out: the folder, which may exist if it is empty; None: the first free one of stem-1, stem-2, ... in `parent`.
        parent: where the numbered folders are.
        stem: start of their names.

    Yields:
        The folder. It is removed if the block fails and has written nothing into it.

    Raises:
        UsageError: `out` is not empty, or another process is working in it.
        OSError: it can't be created.
    """
    with working_in(out or _create_next(parent, stem)) as folder:
        check_new(folder)
        yield folder


def check_utf8(path: str | Path) -> None:
    """Raise InputError if a path that files of csg will name is not UTF-8, which they can't hold."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise InputError(f"the path {path} is not UTF-8", "rename it, or make a link to it with another name") from None


@contextmanager
def working_in(folder: Path) -> Iterator[Path]:
    """Create a folder unless it exists, and lock it; it is removed if the block fails and leaves it empty.

    Raises:
        UsageError: another process is working in it.
        OSError: it can't be created.
    """
    check_utf8(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        try:
            yield folder
        except BaseException:
            with suppress(OSError):  # it may be the root of a disk
                if is_empty(folder):
                    shutil.rmtree(folder)
            raise


def check_new(folder: Path) -> None:
    """Raise UsageError if `folder` exists and is not empty, before work is done for it."""
    if folder.is_dir() and not is_empty(folder):
        raise UsageError(f"{folder} exists already and is not empty", "name another folder with --out")


def _create_next(parent: Path, stem: str) -> Path:
    """Create the first of stem-1, stem-2, ... that does not exist: mkdir decides between processes."""
    parent.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        try:
            (parent / f"{stem}-{number}").mkdir()
            return parent / f"{stem}-{number}"
        except FileExistsError:
            number += 1


def is_empty(folder: Path) -> bool:
    """Whether a folder holds nothing but its lock file."""
    return all(entry.name == LOCK for entry in folder.iterdir())


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of an existing folder, the file `.lock` in it, while the block works there.

    Raises:
        UsageError: another process holds it.
    """
    with lock(folder / LOCK) as free:
        if not free:
            raise UsageError(
                f"another process is working in {folder}", "wait for it to finish, or use another folder (--out)"
            )
        yield


@contextmanager
def writing(file: Path) -> Iterator[None]:
    """Let no other process write a file while the block makes its content; its folder is created.

    Raises:
        UsageError: another process is writing it.
        OSError: its folder can't be written.
    """
    own = file.with_name(f"{_prefix(file)}lock")
    with lock(own) as free:
        if not free:
            raise UsageError(f"another process is writing {file}", "wait for it, or name another file with --out")
        try:
            yield
        finally:
            own.unlink(missing_ok=True)


@contextmanager
def lock(file: Path, wait: str | None = None) -> Iterator[bool]:
    """Hold the lock of a file, which is created; the lock ends with the process, however that ends.

    On a file system without locks the block runs unlocked.

    Args:
        file: the file.
        wait: wait for another process that holds the lock, and say this (if it is not empty); None: do not wait.

    Yields:
        Whether the lock is held: false if another process holds it and `wait` is None.
    """
    with _naming(file.parent):
        file.parent.mkdir(parents=True, exist_ok=True)
        opened = file.open("a")
    with opened as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if wait is None:
                yield False
                return
            if wait:
                log(wait)
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
        yield True


def absolute(path: Path) -> Path:
    """The path from the root, without `.` and `..`; links are kept, so that its name is the one that was given."""
    return Path(os.path.abspath(path))  # noqa: PTH100 - Path.resolve follows links


def cache_dir() -> Path:
    """The folder of generated datasets: $CSG_CACHE, or else the user's cache folder."""
    return Path(os.environ.get("CSG_CACHE") or platformdirs.user_cache_dir("csg"))


def cached_folder(name: str, fill: Callable[[Path], None]) -> Path:
    """A folder in the cache, filled on first use; a second process waits for the one that fills it.

    Args:
        name: its name, which states what it contains, with a version.
        fill: writes its content into an empty folder.
    """
    folder = cache_dir() / name
    if not folder.is_dir():
        with lock(cache_dir() / f".{name}.lock", wait=f"waiting for another process, which is making {folder}"):
            if not folder.is_dir():
                with atomic_directory(folder, shared=True) as fresh:
                    fill(fresh)
    return folder


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
    with _naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=_prefix(path), dir=path.parent)
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
    with _naming(path):
        home.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=_prefix(path), dir=home))
    try:
        with _naming(path, temporary):
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


def _prefix(path: Path) -> str:
    """Start of a temporary name beside `path`, short enough for every file system."""
    return f".{path.name[:40]}."


@contextmanager
def _naming(path: Path, temporary: Path | None = None) -> Iterator[None]:
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
