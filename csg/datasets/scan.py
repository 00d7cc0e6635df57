"""One pass over files: the hash of each content, and what an image's header says (`scan_files`)."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from PIL import Image, UnidentifiedImageError
from PIL.ExifTags import Base

from csg.datasets.scan_cache import ScanCache, open_cache
from csg.errors import one_line, printable
from csg.images import MAX_FILE, opened

CHUNK = 512
"""Files that are looked up in the cache at a time."""
THREADS = min(16, 4 * (os.cpu_count() or 1))
"""Files that are read at the same time; reading and hashing release the GIL."""
SETTLED_NS = 2_000_000_000
"""A file that changed less than this before it was read is not kept in the cache: it may change once more within one
tick of its file system's clock, which is up to two seconds long, and look the same. Nor is a file that is no image: a
later version may read it."""
DIGEST_BYTES = 32
"""Length of a digest."""
MISSING = "does not exist"
"""The problem of a file that does not exist."""
TURNED = frozenset({5, 6, 7, 8})
"""EXIF orientations in which width and height are swapped."""


FILE = "file 1"
"""What the cache calls the scan of a path; its number is increased when a scan holds something else."""


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


class _Header(NamedTuple):
    format: str = ""
    mode: str = ""
    width: int = 0
    height: int = 0
    problem: str = ""


def scan_files(paths: Iterable[Path], advance: Callable[[int], None] = lambda done: None) -> Iterator[FileScan]:
    """Read each file once, or not at all if it is known and has not changed since.

    Only the header of an image is decoded: that its pixels are damaged is not seen. What was read is kept in the user's
    cache (csg.datasets.scan_cache).

    Args:
        paths: the files, which need not exist.
        advance: called with the number of files that are done since its last call.

    Yields:
        What was found of each file, in the order of the paths.
    """
    folder, remaining = os.fsencode(Path.cwd()), iter(paths)
    with open_cache() as cache, ThreadPoolExecutor(THREADS) as pool:
        while chunk := [os.path.join(folder, os.fsencode(path)) for path in islice(remaining, CHUNK)]:  # noqa: PTH118
            yield from _scan(chunk, cache, pool)
            advance(len(chunk))


def _scan(chunk: Sequence[bytes], cache: ScanCache, pool: Executor) -> Iterator[FileScan]:
    found = {path: _unpacked(path, row) for path, row in cache.get(FILE, chunk).items()}
    changed = [path for path in chunk if path not in found or found[path].state != _state(path)]
    for scan, settled in pool.map(_read, changed):
        found[scan.path] = scan
        if settled:
            cache.put(FILE, scan.path, _packed(scan))
    return (found[path] for path in chunk)


def _packed(scan: FileScan) -> bytes:
    return scan.digest + f"{scan.state}|{scan.format}|{scan.mode}|{scan.width}|{scan.height}".encode()


def _unpacked(path: bytes, row: bytes) -> FileScan:
    state, kind, mode, width, height = row[DIGEST_BYTES:].decode().split("|")
    return FileScan(path, state, row[:DIGEST_BYTES], kind, mode, int(width), int(height), "")


def _state(path: bytes) -> str:
    """What changes when a file does: by writing to it, by renaming another onto it, by another target of a link."""
    try:
        return _state_of(os.stat(path))  # noqa: PTH116  # a Path of each of 150,000 files takes longer
    except OSError:
        return "missing"


def _state_of(status: os.stat_result) -> str:
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"


def _read(path: bytes) -> tuple[FileScan, bool]:
    """Read a file, and whether its state is one to remember it by."""
    state, digest, settled = "", bytes(DIGEST_BYTES), False
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116
            raise OSError(0, "not a file")
        started = time.time_ns()
        with open(path, "rb") as file:  # noqa: PTH123
            status = os.fstat(file.fileno())
            state = _state_of(status)
            if status.st_size <= MAX_FILE:
                content = file.read()
                digest, header = hashlib.sha256(content).digest(), _header(content)
            else:
                digest = hashlib.file_digest(file, "sha256").digest()
                header = _Header(problem=f"can't be read: it has more than {MAX_FILE} bytes")
            unchanged = state == _state_of(os.fstat(file.fileno()))
        settled = unchanged and status.st_ctime_ns < started - SETTLED_NS and not header.problem
    except FileNotFoundError:
        header = _Header(problem=MISSING)
    except OSError as error:
        header = _Header(problem=f"can't be read: {error.strerror}")
    return FileScan(path, state, digest, *header), settled


def _header(content: bytes) -> _Header:
    try:
        with opened(content) as image:
            width, height = image.size
            if _turned(image):
                width, height = height, width
            return _Header(image.format or "", image.mode, width, height)
    except UnidentifiedImageError:
        return _Header(problem="can't be read: not an image file")
    except Exception as error:  # decoders fail on malformed files in many ways
        return _Header(problem=printable(f"can't be read: {one_line(error)}"))


def _turned(image: Image.Image) -> bool:
    """Whether EXIF data in the header swap width and height; a PNG may have them behind its pixels."""
    if image.format == "PNG" and "exif" not in image.info:
        return False  # Pillow would decode the pixels to look behind them
    try:
        return image.getexif().get(Base.Orientation, 1) in TURNED
    except Exception:  # a broken EXIF block: no orientation
        return False
