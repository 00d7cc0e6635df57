"""Folders and files that one process works in at a time: claimed when their name is chosen, and locked."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from csg.console import log
from csg.errors import UsageError
from csg.files import LOCK, atomic_directory, cache_dir, check_utf8, is_empty, naming, temporary_prefix


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
    with _without_empty_folders(out or parent / stem), working_in(out or _create_next(parent, stem)) as folder:
        check_new(folder)
        yield folder


@contextmanager
def _without_empty_folders(path: Path) -> Iterator[None]:
    """If the block fails, remove the folders above `path` that it has created and left empty."""
    missing = [folder for folder in path.parents if not folder.exists()]
    try:
        yield
    except BaseException:
        with suppress(OSError):  # not empty
            for folder in missing:
                folder.rmdir()
        raise


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
    number = 1
    while True:
        try:
            (parent / f"{stem}-{number}").mkdir(parents=True)
            return parent / f"{stem}-{number}"
        except FileExistsError:
            number += 1


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
    own = file.with_name(f"{temporary_prefix(file)}lock")
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
    with naming(file.parent):
        file.parent.mkdir(parents=True, exist_ok=True)
        opened = file.open("a")
    with opened as handle, _not_inherited(handle):
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


def is_locked(file: Path) -> bool:
    """Whether a process holds the lock of a file (`lock`); nothing is created or kept."""
    try:
        with file.open() as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # there is no lock, or it can't be read
        return False
    return False


_HELD: set[TextIO] = set()
"""The lock files that this process has open."""


@contextmanager
def _not_inherited(handle: TextIO) -> Iterator[None]:
    """Close a lock file in every process that is forked meanwhile: a lock would last as long as one of them."""
    _HELD.add(handle)
    try:
        yield
    finally:
        _HELD.discard(handle)


def _close_inherited() -> None:
    while _HELD:
        _HELD.pop().close()


os.register_at_fork(after_in_child=_close_inherited)


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
