"""The files of a dataset's folder: the images, and how many files were passed over."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from csg.errors import InputError
from csg.images import SUFFIXES

SYSTEM_FOLDERS = frozenset({"__MACOSX", "@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information"})
"""Folders that operating systems add; like hidden ones, they are passed over."""


@dataclass(frozen=True)
class Listing:
    """The images below a folder."""

    images: tuple[Path, ...]
    """The files whose names end like an image's, sorted; their paths begin with the folder as it was given."""
    passed_over: Mapping[str, int] = field(default_factory=dict)
    """The number of other files by ending; `hidden` for hidden files and folders, `without an ending`."""


def list_images(folder: Path, endings: Collection[str] = SUFFIXES) -> Listing:
    """List the images below a folder, in sub-folders and linked folders too.

    Args:
        folder: an existing folder.
        endings: how the name of an image ends, in lower case.

    Example:
        >>> list_images(Path("photos")).passed_over
        {'.txt': 1, 'hidden': 2}
    """
    suffixes, images, others = tuple(endings), [], Counter[str]()
    for file in _walk(folder, others):
        if file.name.lower().endswith(suffixes):
            images.append(file)
        else:
            others[file.suffix.lower() or "without an ending"] += 1
    return Listing(tuple(sorted(images)), dict(others))


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is passed over: hidden, or added by an operating system."""
    return name.startswith(".") or name in SYSTEM_FOLDERS


def _walk(folder: Path, hidden: Counter[str]) -> Iterator[Path]:
    """All files below a folder but hidden ones, which are counted; a folder that is reached twice is read once."""
    seen = set()
    for path, folders, files in os.walk(folder, followlinks=True, onerror=_fail):
        status = Path(path).stat()
        if (status.st_dev, status.st_ino) in seen:  # a link to a folder above it
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        visible = [name for name in folders if not is_hidden(name)]
        hidden["hidden"] += len(folders) - len(visible)
        folders[:] = sorted(visible)
        for name in files:
            if is_hidden(name):
                hidden["hidden"] += 1
            else:
                yield Path(path, name)


def _fail(error: OSError) -> None:
    """A folder that can't be read is an error: its images would be left out."""
    raise InputError(f"folder {error.filename} can't be read: {error.strerror}", "check its permissions") from None


def describe_passed_over(counts: Mapping[str, int]) -> str:
    """The files that were passed over, in words.

    Example:
        >>> describe_passed_over({".txt": 1, ".gif": 5})
        '6 files passed over: 5 .gif, 1 .txt'
    """
    total = sum(counts.values())
    kinds = ", ".join(f"{count} {kind}" for kind, count in Counter(counts).most_common() if count)
    return f"{total} file{'' if total == 1 else 's'} passed over: {kinds}"
