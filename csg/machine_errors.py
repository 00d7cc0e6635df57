"""What to tell a user about an error of his machine: the disk, permissions, memory, a lost connection."""

from __future__ import annotations

import errno
import os
import sqlite3
import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path

from csg.errors import CsgError, InputError, ServerError, one_line
from csg.files import cache_dir

SPACE = "free some space, or write to another disk {elsewhere}"
READ_ONLY = "write to another folder {elsewhere}"
PERMISSION = "change its permissions; results go elsewhere {elsewhere}"
FOLDER = "name another folder {elsewhere}"
FILES = "close other programs, or raise the limit with `ulimit -n`"

REASONS: dict[int, tuple[str, str]] = {
    errno.ENOSPC: ("the disk is full", SPACE),
    errno.EDQUOT: ("the quota of this user is used up", SPACE),
    errno.EFBIG: ("the file is larger than this file system allows", SPACE),
    errno.EROFS: ("the file system is read-only", READ_ONLY),
    errno.EACCES: ("permission denied", PERMISSION),
    errno.EPERM: ("permission denied", PERMISSION),
    errno.ENOTDIR: ("a file is in the place of a folder", FOLDER),
    errno.EEXIST: ("a file is in the place of a folder", FOLDER),
    errno.EISDIR: ("a folder is in the place of a file", FOLDER),
    errno.ENOENT: ("it does not exist, and can't be created", FOLDER),
    errno.ENAMETOOLONG: ("the name is too long", FOLDER),
    errno.ELOOP: ("its links lead in a circle", FOLDER),
    errno.EBUSY: ("it is in use", FOLDER),
    errno.EIO: ("the disk has an error", "check the disk and its cables, or the network share"),
    errno.ESTALE: ("the network share is gone", "mount it again"),
    errno.EMFILE: ("too many files are open", FILES),
    errno.ENFILE: ("too many files are open", FILES),
    errno.ENOMEM: ("there is not enough memory", "close other programs, or use smaller batches and images"),
    errno.EAGAIN: ("no more processes can be started", "close other programs, or raise the limit with `ulimit -u`"),
}
"""For each error number what is wrong, and what to do."""
CONNECTION = (ConnectionError, TimeoutError, ssl.SSLError)
OUT_OF_MEMORY = (
    "out of memory",
    "allocate memory",
    "ALLOC_FAILED",
    "bad_alloc",
    "bad allocation",
    "start new thread",
    "failed to map segment",
    "process pool was terminated abruptly",
)
"""Words of the libraries that have too little memory: torch, NumPy, ONNX Runtime, cuBLAS, Python."""


def machine_error(error: BaseException) -> CsgError | None:
    """The error of the machine that an exception reports, in one line; None if it is none.

    The libraries report the same full disk in many ways: as an OSError, as an error of their own with the words of the
    system in it, or inside another error or a group of them.

    Example:
        >>> str(machine_error(OSError(28, "No space left on device", "runs/cls/a/student.safetensors")))
        "can't use runs/cls/a/student.safetensors: the disk is full; free some space, ..."
    """
    for one in _causes(error):
        if found := _explained(one):
            return found
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, those of a group, and those that caused it."""
    yield error
    if isinstance(error, BaseExceptionGroup):
        for member in error.exceptions:
            yield from _causes(member)
    if error.__cause__:
        yield from _causes(error.__cause__)


def _explained(error: BaseException) -> CsgError | None:
    if isinstance(error, CsgError):
        return error
    if isinstance(error, RuntimeError) and str(error).startswith("Symlink loop"):  # of Path.resolve
        loop = Path(str(error).partition("'")[2].rstrip("'"))
        return _of_file(errno.ELOOP, loop, os.strerror(errno.ELOOP))
    if isinstance(error, CONNECTION) and not getattr(error, "filename", None):
        return ServerError(f"a connection failed: {one_line(error)}", "check the address and the network")
    if isinstance(error, OSError) and error.errno is not None:
        return _of_file(error.errno, _file(error), error.strerror or str(error))
    if isinstance(error, sqlite3.OperationalError):
        return InputError(f"can't use a database: {one_line(error)}", FOLDER.format(elsewhere=_elsewhere(cache_dir())))
    text = str(error)
    if isinstance(error, MemoryError) or any(words in text for words in OUT_OF_MEMORY):
        what = f"there is not enough memory: {one_line(text or 'out of memory', 160)}"
        return InputError(what, "use smaller batches (--set optim.batch=N) or images, or close other programs")
    for number in REASONS:
        if os.strerror(number) in text and isinstance(error, OSError | RuntimeError):
            return _of_file(number, None, one_line(text, 160))
    return None


def _of_file(number: int, file: Path | None, reason: str) -> InputError:
    known, hint = REASONS.get(number, (reason, FOLDER))
    if file is None:
        return InputError(f"can't use a file or standard output: {known}", hint.format(elsewhere=_elsewhere(None)))
    if number in (errno.ENOTDIR, errno.EEXIST):
        known = f"{_obstacle(file)} is a file, not a folder"
    return InputError(f"can't use {file}: {known}", hint.format(elsewhere=_elsewhere(file)))


def _file(error: OSError) -> Path | None:
    name = error.filename2 or error.filename
    if name == ".":
        return Path.cwd()
    return Path(os.fsdecode(name)) if isinstance(name, str | bytes | os.PathLike) else None


def _obstacle(file: Path) -> Path:
    """The file in the place of a folder: `file` itself, or one of the folders above it."""
    return next((one for one in (file, *file.parents) if os.path.lexists(one) and not one.is_dir()), file)


def _elsewhere(file: Path | None) -> str:
    """How a user chooses another place for a file: caches and temporary files have a variable each."""
    places = {
        "CSG_CACHE": cache_dir(),
        "TORCH_HOME": Path(os.environ.get("TORCH_HOME") or "~/.cache/torch").expanduser(),
        "TMPDIR": Path(tempfile.gettempdir(), tempfile.template),
    }
    for variable, place in places.items():
        if file and str(file.absolute()).startswith(str(place.absolute())):
            return f"by setting {variable}"
    return "with --out"
