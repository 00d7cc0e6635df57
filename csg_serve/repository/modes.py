"""`csg deploy --mode`: the permissions of what a deployment writes, for a server that another user runs."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from csg.errors import UsageError


def parse_mode(text: str) -> int:
    """Return the mode that an octal number names.

    Raises:
        UsageError: it is none, or the owner could not read and write the files.

    Example:
        >>> oct(parse_mode("644"))
        '0o644'
    """
    if not re.fullmatch("0?[67][0-7][0-7]", text):
        raise UsageError(
            f"--mode {text} is not the mode of a file", "use an octal number such as 644, or 640 for a group"
        )
    return int(text, 8)


@contextmanager
def umask_for(mode: int | None) -> Iterator[None]:
    """Let new files get a mode, and new folders the one that goes with it. None: the umask stays."""
    if mode is None:
        yield
        return
    before = os.umask(0o777 & ~_of_folder(mode))
    try:
        yield
    finally:
        os.umask(before)


def set_modes(mode: int | None, folder: Path, content: bool = True) -> None:
    """Give a folder and all it holds the permissions that go with a mode of files. None: leave them.

    Args:
        mode: of the files; those of other users keep theirs.
        folder: need not exist.
        content: False: only let those enter the folder who may read the files.
    """
    if mode is None or not folder.exists():
        return
    if not content:
        _chmod(folder, folder.stat().st_mode | _of_folder(mode))
        return
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            _chmod(path, _of_folder(mode) if path.is_dir() else mode)


def _chmod(path: Path, mode: int) -> None:
    """Set the permissions of a file or folder of this user's; the bits that set a user or a group stay."""
    before = path.stat()
    if os.geteuid() in (0, before.st_uid):
        path.chmod(before.st_mode & 0o7000 | mode & 0o777)


def _of_folder(mode: int) -> int:
    """Return the mode with the permission to enter for everyone who may read."""
    return mode | (mode & 0o444) >> 2
