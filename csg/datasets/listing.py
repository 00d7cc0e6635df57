"""The files of a dataset's folder: the images, and how many files were passed over."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from csg.errors import InputError
from csg.images import SUFFIXES

SYSTEM_NAMES = frozenset(
    {"__MACOSX", "@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information"}
    | {"Thumbs.db", "ehthumbs.db", "desktop.ini", "Desktop.ini", "Icon\r"}
)
"""Folders and files that operating systems add; like hidden ones, they are passed over."""


@dataclass(frozen=True)
class Listing:
    """The images below a folder."""

    images: tuple[Path, ...]
    """The files whose names end like an image's, sorted; their paths begin with the folder as it was given."""
    passed_over: Mapping[str, int] = field(default_factory=dict)
    """The number of other files by ending; `hidden` for hidden files and folders, `without an ending`."""
    folders: tuple[Path, ...] = ()
    """The folders below the listed one that hold images, sorted."""


def list_images(folder: Path, endings: Collection[str] = SUFFIXES) -> Listing:
    """List the images below a folder, in sub-folders and linked folders too.

    Args:
        folder: an existing folder.
        endings: how the name of an image ends, in lower case.

    Example:
        >>> list_images(Path("photos")).passed_over
        {'.txt': 1, 'hidden': 2}
    """
    suffixes, images, others, folders = tuple(endings), list[Path](), Counter[str](), list[Path]()
    for path, names in walk(folder, others):
        found = [name for name in names if name.lower().endswith(suffixes)]
        images += [Path(path, name) for name in found]
        if found and path != folder:
            folders.append(path)
        if len(found) < len(names):
            others.update(ending_of(name) for name in set(names).difference(found))
    images.sort(key=lambda image: image.parts)  # the order of paths, at a tenth of the time
    return Listing(tuple(images), {kind: count for kind, count in others.items() if count}, tuple(sorted(folders)))


def split_entries(folder: Path) -> tuple[list[Path], list[Path], int]:
    """What lies directly in a folder.

    Returns:
        The folders and the other files, both sorted, and the number of hidden entries.
    """
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        _fail(error)
    visible = [entry for entry in entries if not is_hidden(entry.name)]
    folders = [entry for entry in visible if entry.is_dir()]
    return folders, [entry for entry in visible if not entry.is_dir()], len(entries) - len(visible)


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is passed over: hidden, or added by an operating system."""
    return name.startswith(".") or name in SYSTEM_NAMES


def walk(folder: Path, hidden: Counter[str]) -> Iterator[tuple[Path, list[str]]]:
    """The folders below a folder, with the files in each but hidden ones, which are counted.

    A folder that is reached twice is read once, and a link to a folder above is not followed.
    """
    above = (parent.stat() for parent in folder.resolve().parents)
    seen = {(status.st_dev, status.st_ino) for status in above}
    for path, folders, files in os.walk(folder, followlinks=True, onerror=_fail):
        here = Path(path)
        status = here.stat()
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        visible = [name for name in files if not is_hidden(name)]
        shown = [name for name in folders if not is_hidden(name)]
        hidden["hidden"] += len(files) - len(visible) + len(folders) - len(shown)
        folders[:] = sorted(shown)
        yield here, visible


def ending_of(name: str) -> str:
    """The ending of a file's name in lower case, as passed-over files are counted."""
    return Path(name).suffix.lower() or "without an ending"


def _fail(error: OSError) -> NoReturn:
    """A folder that can't be read is an error: its images would be left out."""
    raise InputError(f"folder {error.filename} can't be read: {error.strerror}", "check its permissions") from None


def describe_files(counts: Mapping[str, int]) -> str:
    """Files by ending, in words.

    Example:
        >>> describe_files({".txt": 1, ".gif": 5})
        '6 files: 5 .gif, 1 .txt'
    """
    total = sum(counts.values())
    kinds = ", ".join(f"{count} {kind}" for kind, count in Counter(counts).most_common() if count)
    return f"{total} file{'' if total == 1 else 's'}: {kinds}"


def describe_passed_over(counts: Mapping[str, int]) -> str:
    """The files that were passed over, in words.

    Example:
        >>> describe_passed_over({".txt": 1, ".gif": 5})
        '6 files passed over: 5 .gif, 1 .txt'
    """
    return describe_files(counts).replace(":", " passed over:", 1)
